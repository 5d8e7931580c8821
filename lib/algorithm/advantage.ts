// Group advantages (archer.md part 1): A_i = (R_i − mean R) / (std R + 1e-6), std with N−1, one scalar per response.
// Without the division it is Dr. GRPO's R_i − mean R.

import { ArcherError } from '../errors.js';

export interface AdvantageOptions {
  /** algorithm.norm_adv_by_std_in_grpo (default true). */
  normByStd?: boolean;
}

export const stdEpsilon = 1e-6;

/**
 * The advantages of one group from its G rewards, computed in float64. Equal rewards give exact zeros.
 * @throws ArcherError ARCHER_E_CONFIG for G < 2, ARCHER_E_REWARD for a reward that is not finite.
 */
export function groupAdvantages(rewards: readonly number[], { normByStd = true }: AdvantageOptions = {}): Float32Array {
  const size = rewards.length;
  if (size < 2) {
    throw new ArcherError(
      'ARCHER_E_CONFIG',
      `G = ${size}: a response needs others to be compared with; set rollout.n to 2 or more.`,
    );
  }
  const bad = rewards.findIndex((reward) => !Number.isFinite(reward));
  if (bad !== -1) {
    throw new ArcherError(
      'ARCHER_E_REWARD',
      `The reward of response ${bad} of a group is ${rewards[bad]}; it must be a finite number.`,
    );
  }
  // A rounded mean would leave a tiny advantage, and with it a backward pass, to every token of the group.
  if (rewards.every((reward) => reward === rewards[0])) return new Float32Array(size);
  const mean = rewards.reduce((sum, reward) => sum + reward, 0) / size;
  const variance = rewards.reduce((sum, reward) => sum + (reward - mean) ** 2, 0) / (size - 1);
  const scale = normByStd ? Math.sqrt(variance) + stdEpsilon : 1;
  return Float32Array.from(rewards, (reward) => (reward - mean) / scale);
}
