// Whole responses into micro-batches of at most `budget` tokens; what a micro-batch computes of a prompt, it computes once for
// all its responses there. The loss does not depend on the split (its denominators are those of the mini-batch), so this
// decides about memory and speed alone.

/** First-fit decreasing: indices into `lengths`, by bin. */
function firstFit(lengths: number[], descending: number[], budget: number): number[][] {
  const bins: number[][] = [];
  const loads: number[] = [];
  for (const index of descending) {
    const length = lengths[index]!;
    let bin = loads.findIndex((load) => load + length <= budget);
    if (bin === -1) bin = bins.push([]) - 1;
    bins[bin]!.push(index);
    loads[bin] = (loads[bin] ?? 0) + length;
  }
  return bins;
}

/** Longest first into the least loaded of `count` bins; undefined where that breaks the budget. */
function balanced(lengths: number[], descending: number[], budget: number, count: number): number[][] | undefined {
  const bins = Array.from({ length: count }, () => [] as number[]);
  const loads = new Array<number>(count).fill(0);
  for (const index of descending) {
    const bin = loads.indexOf(Math.min(...loads));
    const load = loads[bin]! + lengths[index]!;
    if (load > budget && bins[bin]!.length > 0) return undefined;
    bins[bin]!.push(index);
    loads[bin] = load;
  }
  return bins;
}

/** As few bins as first-fit decreasing finds, evened out where that stays within the budget: the fullest sets the peak memory. */
function pack(lengths: number[], budget: number): number[][] {
  const descending = lengths.map((_, index) => index).sort((a, b) => lengths[b]! - lengths[a]! || a - b);
  const tight = firstFit(lengths, descending, budget);
  const bins = balanced(lengths, descending, budget, tight.length) ?? tight;
  return bins.filter((bin) => bin.length > 0);
}

/** A prompt and the responses to it, in tokens. */
export interface GroupLengths {
  prompt: number;
  responses: number[];
}

const sum = (lengths: number[]) => lengths.reduce((total, length) => total + length, 0);

/**
 * Micro-batches by the tokens that they compute: P + ΣR for each group in one. A group stays together where it fits into a
 * micro-batch, so its prompt is computed once; one that does not is split into as few parts as possible, each with the
 * prompt. A prompt and response longer than the budget get a micro-batch of their own.
 *
 * @returns by micro-batch the responses' indices, counted through all groups, ascending. Deterministic.
 */
export function packGroups(groups: GroupLengths[], budget: number): number[][] {
  const parts: { members: number[]; tokens: number }[] = [];
  let first = 0;
  for (const { prompt, responses } of groups) {
    for (const bin of pack(responses, budget - prompt)) {
      const tokens = prompt + sum(bin.map((index) => responses[index]!));
      parts.push({ members: bin.map((index) => first + index), tokens });
    }
    first += responses.length;
  }
  return pack(
    parts.map(({ tokens }) => tokens),
    budget,
  ).map((bin) => bin.flatMap((part) => parts[part]!.members).sort((a, b) => a - b));
}
