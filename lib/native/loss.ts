// The objective on its own, for checking it from outside and for embedding it: fusedLoss from hidden states and the head,
// tokenLoss from log-probs and entropies. docs/native-api.md explains every field and result.
import { type LossInput as LossOptionsInput, resolveLossOptions } from '../config/index.js';
import { ArcherError } from '../errors.js';
import { getEngine } from './engine.js';
import { float64, type JobOptions, runJob, uint8 } from './job.js';
import type { ComputeDtype, Denominators, LossArrays, LossResult } from './types.js';

type Numbers = ArrayLike<number>;

/** T response tokens end to end, N responses. */
export interface LossInput {
  /** Int[T]: the sampled tokens. */
  ids: Numbers;
  /** Int[N]: tokens per response, summing to T; 0 is allowed. */
  lengths: Numbers;
  /** Int[N]: which responses answer the same prompt; read for entropy_scope group. Default: all different. */
  groupIds?: Numbers;
  /** [T]: 0 leaves a token out of the loss. Default: all in. */
  lossMask?: Numbers;
  /** [T]: of the policy before the update. */
  oldLogProbs: Numbers;
  /** [T]: needed where entropy_source is rollout (the paper's form). */
  oldEntropies?: Numbers;
  /** [T]: needed where a KL coefficient is not 0. */
  refLogProbs?: Numbers;
  /** [N] */
  advantages: Numbers;
  /** Those of the whole mini-batch. Default: of what is given here. */
  denominators?: Denominators;
  /** [N]: class thresholds fixed beforehand. Default: computed from the entropies given here. */
  thresholds?: Numbers;
  /** Keys of the `actor` section, `algorithm`, `fidelity` and `temperature`. Default: Archer in the paper's form. */
  options?: LossOptionsInput;
  numThreads?: number;
}

export interface FusedLossInput extends LossInput {
  /** [T, H] row-major: row t is the hidden state (after the final norm) that predicts ids[t]. */
  hidden: Numbers;
  /** [V, H] row-major */
  headWeight: Numbers;
  /** Arithmetic: float32 (default), bfloat16 (inputs rounded to it; reductions and the head's gradient in float32), float64. */
  dtype?: ComputeDtype;
}

export interface TokenLossInput extends LossInput {
  /** [T] under the policy being trained. */
  logProbs: Numbers;
  /** [T] nats */
  entropies: Numbers;
  dtype?: 'float32' | 'float64';
}

/**
 * Loss, log-probs, entropies, classes and the exact gradients to hidden states [T, H] and head [V, H].
 * Shares of micro-batches with the same denominators add up to the whole.
 *
 * @throws ARCHER_E_SHAPE (naming the field), ARCHER_E_CONFIG (an option), ARCHER_E_NUMERIC (naming the token)
 */
export async function fusedLoss(
  input: FusedLossInput,
  job: JobOptions = {},
): Promise<LossResult & { gradHidden: Float64Array; gradHead: Float64Array }> {
  const arrays = lossArrays(input);
  const tokens = arrays.ids.length;
  if (tokens === 0 || input.hidden.length % tokens !== 0) {
    throw new ArcherError(
      'ARCHER_E_SHAPE',
      `hidden has ${input.hidden.length} numbers, which is no multiple of the ${tokens} ids: it must be [T, H] row-major.`,
    );
  }
  const request = {
    ...arrays,
    hidden: Float64Array.from(input.hidden),
    headWeight: Float64Array.from(input.headWeight),
    hiddenSize: input.hidden.length / tokens,
    dtype: input.dtype ?? 'float32',
    loss: resolveLossOptions(input.options ?? {}),
  };
  const result = await runJob(job, (control) => getEngine(input.numThreads).fusedLoss(request, control));
  return { ...common(result), gradHidden: float64(result.gradHidden), gradHead: float64(result.gradHead) };
}

/** The same from per-token numbers: the derivatives are with respect to log-probs and entropies, [T] each. */
export async function tokenLoss(
  input: TokenLossInput,
): Promise<LossResult & { gradLogProbs: Float64Array; gradEntropies: Float64Array }> {
  const request = {
    ...lossArrays(input),
    logProbs: Float64Array.from(input.logProbs),
    entropies: Float64Array.from(input.entropies),
    dtype: input.dtype ?? 'float64',
    loss: resolveLossOptions(input.options ?? {}),
  };
  const result = await runJob({}, () => getEngine(input.numThreads).tokenLoss(request));
  return { ...common(result), gradLogProbs: float64(result.gradLogProbs), gradEntropies: float64(result.gradEntropies) };
}

function common(result: LossResult): LossResult {
  return {
    ...result,
    logProbs: float64(result.logProbs),
    entropies: float64(result.entropies),
    classes: uint8(result.classes),
    thresholds: float64(result.thresholds),
  };
}

function lossArrays(input: LossInput): LossArrays {
  const ids = Int32Array.from(input.ids);
  const lengths = Int32Array.from(input.lengths);
  const lossMask = input.lossMask ? Uint8Array.from(input.lossMask) : new Uint8Array(ids.length).fill(1);
  return {
    ids,
    lengths,
    groupIds: input.groupIds ? Int32Array.from(input.groupIds) : Int32Array.from(lengths, (_, i) => i),
    lossMask,
    oldLogProbs: Float64Array.from(input.oldLogProbs),
    advantages: Float64Array.from(input.advantages),
    denominators: input.denominators ?? {
      sequences: lengths.length,
      tokens: ids.length,
      lossTokens: lossMask.reduce((sum, one) => sum + (one ? 1 : 0), 0),
    },
    ...(input.oldEntropies && { oldEntropies: Float64Array.from(input.oldEntropies) }),
    ...(input.refLogProbs && { refLogProbs: Float64Array.from(input.refLogProbs) }),
    ...(input.thresholds && { thresholds: Float64Array.from(input.thresholds) }),
  };
}
