// The kept groups as mini-batches, one optimizer update each (archer.md part 6, step 6): ceil(kept /
// ppo_mini_batch_size) near-equal parts, in an order drawn anew for every inner epoch.

import { keyedOrder } from './philox.js';

/** What the order is a function of: the training step and the inner epoch, both from 0. */
export interface MiniBatchKey {
  seed: number;
  step: number;
  epoch: number;
}

/**
 * Group indices (0 … numGroups − 1) by mini-batch; sizes differ by at most one.
 * @param groupsPerUpdate actor.ppo_mini_batch_size, in prompts
 */
export function drawMiniBatches(
  numGroups: number,
  groupsPerUpdate: number,
  { seed, step, epoch }: MiniBatchKey,
): number[][] {
  const order = keyedOrder(numGroups, { seed, stream: 'miniBatches', a: step, b: epoch });
  const parts = Math.ceil(numGroups / groupsPerUpdate);
  const cut = (part: number) => Math.floor((part * numGroups) / parts);
  return Array.from({ length: parts }, (_, part) => order.slice(cut(part), cut(part + 1)));
}
