// Answers that are no mathematics: choice letters, times of day, words.

import { asWords, fontless } from './clean.js';

const letterAlone = /^\(?([A-J])[).:]?\.?$/;

/** The letter that a gold names: C, (C), \text{(C)}. */
export function choiceLetter(gold: string): string | undefined {
  return letterAlone.exec(fontless(gold).replace(/[{}\s]/g, ''))?.[1];
}

/** The letter that a response chooses: C, (C), \textbf{(C)} 48, C) 48, "the answer is C". */
export function choiceOf(response: string): string | undefined {
  const text = fontless(response)
    .replace(/\\[a-zA-Z]+/g, ' ')
    .replace(/[{}*]/g, ' ')
    .trim();
  const bare = letterAlone.exec(text.replace(/\s/g, ''))?.[1];
  if (bare !== undefined) return bare;
  const followed = /^(?:\(\s*([A-J])\s*\)|([A-J])\s*[).:])\s*\S/.exec(text);
  const letter = followed?.[1] ?? followed?.[2];
  if (letter === undefined) return namedOption(text);
  const others = [
    ...text.slice(1).matchAll(/\(\s*([A-J])\s*\)|(?:^|[\s,;])([A-J])\s*[).:]|\b(?:or|and)\s+\(?([A-J])\b/g),
  ];
  return others.every((match) => (match[1] ?? match[2] ?? match[3]) === letter) ? letter : undefined;
}

const markup = String.raw`(?:\*\*|__|\$|\\text(?:bf)?\{|\\mathrm\{|\\\()*`;
const named = new RegExp(
  String.raw`\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer)(?: choice)?(?: is| would be|:| therefore| thus| hence| then)*:? ?${markup} ?\(?([A-J])\)?(?![a-zA-Z'])`,
  'g',
);
const declared = /(?:^|[\s(*])([A-J])[)*]* is (?:the )?(?:correct|right)(?: answer| option| choice)?(?=[\s.!*]|$)/g;
const alternative = new RegExp(
  String.raw`^[}*$\s)]*(?:,|or|and|/)\s*${markup}(?:[Oo]ption )?\(?([A-J])\)?(?![a-zA-Z'])`,
);

/** The one letter that the last line calls the answer; two different ones are none. */
export function namedOption(text: string): string | undefined {
  const lastLine = text.trimEnd().slice(-1_000).split('\n').at(-1) ?? '';
  const letters = new Set<string>();
  for (const match of lastLine.matchAll(declared)) letters.add(match[1] as string);
  for (const match of lastLine.matchAll(named)) {
    letters.add(match[1] as string);
    const other = alternative.exec(lastLine.slice(match.index + match[0].length))?.[1];
    if (other !== undefined) letters.add(other);
  }
  return letters.size === 1 ? [...letters][0] : undefined;
}

interface Time {
  clock: string;
  half?: string;
}

/** 4:45, 4:45 p.m., 4 p.m., 4 */
function timeOf(text: string): Time | undefined {
  const match = /^(\d{1,2})(?: ?: ?(\d{2}(?: ?: ?\d{2})?))? ?(?:([ap])\.? ?m\.?)?$/i.exec(
    fontless(text).replace(/[{}]/g, '').replace(/\s+/g, ' ').trim(),
  );
  if (match === null) return undefined;
  return { clock: `${Number(match[1])}:${(match[2] ?? '00').replace(/ /g, '')}`, half: match[3]?.toLowerCase() };
}

/** Where the gold is a time with a.m. or p.m.: the same clock, and no other half of the day. */
export function sameTime(gold: string, response: string): boolean | undefined {
  const time = timeOf(gold);
  if (time?.half === undefined) return undefined;
  const other = timeOf(response);
  return other !== undefined && other.clock === time.clock && (other.half ?? time.half) === time.half;
}

/** A gold of words alone: a font command around letters, or a plain word of four letters and more. */
export function isWords(gold: string): boolean {
  const plain = fontless(gold);
  if (/[\\^_=<>\d+*/]/.test(plain)) return false;
  const inFont = plain !== gold && /[a-zA-Z]{2}/.test(plain) && /^\s*[{ ]*[a-zA-Z]/.test(plain);
  return inFont || /(?:^|[^a-zA-Z])[a-zA-Z]{4,}/.test(plain) || /^(?:yes|no|odd|red)\.?$/i.test(plain.trim());
}

/** Without regard to case, spaces, fonts and, in a list, order. */
export function sameWords(gold: string, response: string): boolean {
  const a = asWords(gold);
  const b = asWords(response);
  return a === b || (isInfinity(a) && isInfinity(b)) || sortedList(gold) === sortedList(response);
}

function sortedList(text: string): string {
  const items = fontless(text).split(/[,;]|\band\b/i);
  return items
    .map(asWords)
    .filter((word) => word !== '')
    .sort()
    .join(',');
}

function isInfinity(words: string): boolean {
  return /^\+?(?:infinity|\\infty)$/.test(words);
}
