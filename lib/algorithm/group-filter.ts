// Which groups teach something (archer.md part 6, step 3): where all rewards are equal every advantage is 0. Such
// groups are dropped (and counted); DAPO samples further prompts until the batch is full again.

/** mixed teaches; solve_none and solve_all are equal at 0 or below, at 1 or above; equal is equal in between. */
export type GroupKind = 'mixed' | 'solve_none' | 'solve_all' | 'equal';

export function groupKind(rewards: readonly number[]): GroupKind {
  const first = rewards[0] ?? 0;
  if (rewards.some((reward) => reward !== first)) return 'mixed';
  return first <= 0 ? 'solve_none' : first >= 1 ? 'solve_all' : 'equal';
}

/**
 * Whether a group stays where algorithm.filter_groups.enable is on. Pass the verifier's scores, before a length
 * penalty: one must not make a group without a right answer look worth keeping (verl filters by accuracy, too).
 */
export function keepsGroup(rewards: readonly number[]): boolean {
  return groupKind(rewards) === 'mixed';
}

export interface RefillState {
  /** Groups kept so far in this step, and how many the step wants: data.train_batch_size. */
  kept: number;
  wanted: number;
  /** Sampling rounds done in this step, and algorithm.filter_groups.max_num_gen_batches. */
  rounds: number;
  maxRounds: number;
  /** Prompts that this step has not sampled yet. */
  left: number;
}

/**
 * Whether a refilling step samples another round. Where it may not, it trains on what there is: verl ends the run when
 * its rounds are used up.
 */
export function refillDecision({ kept, wanted, rounds, maxRounds, left }: RefillState): boolean {
  return kept < wanted && rounds < maxRounds && left > 0;
}
