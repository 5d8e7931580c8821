// Whole sequences into micro-batches of at most `budget` tokens. The loss does not depend on the split (its
// denominators are those of the mini-batch), so this decides about memory and speed alone.

/** First-fit decreasing: indices into `lengths`, by micro-batch. */
function firstFit(lengths: ArrayLike<number>, descending: number[], budget: number): number[][] {
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
function balanced(
  lengths: ArrayLike<number>,
  descending: number[],
  budget: number,
  count: number,
): number[][] | undefined {
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

/**
 * As few micro-batches as first-fit decreasing finds, evened out where that stays within the budget (the fullest one
 * sets the peak memory). A sequence longer than the budget gets one of its own. Deterministic; indices ascend within a
 * micro-batch.
 */
export function packSequences(lengths: ArrayLike<number>, budget: number): number[][] {
  const descending = Array.from({ length: lengths.length }, (_, index) => index).sort(
    (a, b) => lengths[b]! - lengths[a]! || a - b,
  );
  const tight = firstFit(lengths, descending, budget);
  const bins = balanced(lengths, descending, budget, tight.length) ?? tight;
  return bins.filter((bin) => bin.length > 0).map((bin) => bin.sort((a, b) => a - b));
}
