// The 20-gram repetition rate that the authors watch (archer.md part 7): a policy whose entropy collapses repeats
// itself.

/**
 * Share of the n-grams of lower-cased whitespace words that stood in the text before: (total − distinct) / total.
 * 0 for a text of fewer than n words.
 */
export function repetitionRate(text: string, n = 20): number {
  const words = text
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== '');
  const total = words.length - n + 1;
  if (total <= 0) return 0;
  const seen = new Set<string>();
  for (let begin = 0; begin < total; ++begin) seen.add(words.slice(begin, begin + n).join(' '));
  return (total - seen.size) / total;
}
