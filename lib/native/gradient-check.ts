// Every term of the loss against central differences in float64, on a tiny batch: what `doctor` runs on a user's machine,
// where a broken BLAS or a miscompiled kernel would otherwise only show as a model that does not learn.
import type { LossInput as LossOptionsInput } from '../config/index.js';
import { ArcherError } from '../errors.js';
import { type FusedLossInput, fusedLoss } from './loss.js';

const T = 6;
const H = 3;
const V = 7;
const step = 1e-6;
const tolerance = 1e-6;

const terms: Record<string, LossOptionsInput> = {
  'archer, paper': {},
  'archer, reference': { fidelity: 'reference' },
  grpo: { algorithm: 'grpo' },
  dapo: { algorithm: 'dapo' },
  'entropy bonus': { entropy_coeff: 0.1 },
  'KL k1': { kl_loss_type: 'k1' },
  'KL k2': { kl_loss_type: 'k2' },
  'KL k3': { kl_loss_type: 'low_var_kl', high_entropy_kl_loss_coef: 0.1 },
  temperature: { temperature: 0.7 },
};

/** Deterministic numbers in (−1, 1) without a pattern that would hide a transposition. */
const number = (i: number) => Math.sin(12.9898 * (i + 1)) * 0.9;

/** @throws ARCHER_E_NUMERIC naming the first term whose gradient is wrong */
export async function checkLossGradients(): Promise<{ cases: number; worst: number }> {
  const base: FusedLossInput = {
    hidden: Float64Array.from({ length: T * H }, (_, i) => number(i)),
    headWeight: Float64Array.from({ length: V * H }, (_, i) => number(i + 100)),
    ids: [1, 4, 6, 0, 2, 5],
    lengths: [4, 2],
    groupIds: [0, 0],
    oldLogProbs: [-1.9, -2.0, -1.7, -2.1, -1.8, -2.2],
    oldEntropies: [0.4, 1.9, 0.8, 1.2, 0.5, 1.5],
    refLogProbs: [-2.2, -1.6, -2.0, -1.9, -2.1, -1.7],
    advantages: [0.8, -1.1],
    dtype: 'float64',
  };
  let worst = 0;
  for (const [name, options] of Object.entries(terms)) {
    const { gradHidden, gradHead } = await fusedLoss({ ...base, options });
    for (const [field, gradient] of [
      ['hidden', gradHidden],
      ['headWeight', gradHead],
    ] as const) {
      const differences = Float64Array.from(gradient);
      for (let i = 0; i < gradient.length; i++) {
        const lossAt = async (delta: number) => {
          const moved = Float64Array.from(base[field]);
          moved[i] = (moved[i] as number) + delta;
          return (await fusedLoss({ ...base, [field]: moved, options })).loss;
        };
        differences[i] = ((await lossAt(step)) - (await lossAt(-step))) / (2 * step);
      }
      const error = relativeError(gradient, differences);
      if (!(error <= tolerance)) {
        throw new ArcherError('ARCHER_E_NUMERIC', `the gradient of "${name}" with respect to ${field} is off by ${error.toExponential(1)}`);
      }
      worst = Math.max(worst, error);
    }
  }
  return { cases: Object.keys(terms).length, worst };
}

function relativeError(a: Float64Array, b: Float64Array): number {
  let difference = 0;
  let size = 0;
  a.forEach((value, i) => {
    difference += (value - (b[i] as number)) ** 2;
    size += (b[i] as number) ** 2;
  });
  return Math.sqrt(difference / Math.max(size, 1e-300));
}
