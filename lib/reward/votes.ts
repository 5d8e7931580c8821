// Who votes for the same answer, for maj@n: the verifier itself is asked, with one answer as the response and the other
// as the ground truth, so that 1/2 and 0.5 are one vote. A reward function of the user's cannot be asked that way: there,
// answers are equal as text. Programs do not vote.
import type { RewardInput, Verdict } from './types.js';
import { builtinVerifiers, verifierForSource } from './verifiers.js';

/**
 * For every response to one problem the index of the first one with an equal answer; null where no answer was found,
 * which is no vote.
 *
 * @param judge what gave the verdicts: the scorer's description
 */
export function votesOf(verdicts: readonly Verdict[], input: RewardInput, judge: string): (number | null)[] {
  const chosen = judge === 'by data_source' ? verifierForSource(input.dataSource) : judge;
  const verify = chosen === 'math' || chosen === 'numeric' ? builtinVerifiers[chosen] : undefined;
  const firstOfText = new Map<string, number>();
  const classes: { answer: string; first: number }[] = [];
  return verdicts.map(({ outcome, extracted }, i) => {
    if (extracted === undefined || outcome === 'parse_error' || chosen === 'code') return null;
    const known = firstOfText.get(extracted);
    if (known !== undefined) return known;
    const response = `\\boxed{${extracted}}`;
    const equal = classes.find(({ answer }) => verify?.({ ...input, response, groundTruth: answer }).outcome === 'ok');
    if (equal === undefined) classes.push({ answer: extracted, first: i });
    const vote = equal?.first ?? i;
    firstOfText.set(extracted, vote);
    return vote;
  });
}
