// Which prompts come next. Every epoch is a permutation of its own, a function of (seed, epoch) alone; batches run on
// across the end of an epoch, so nothing is skipped and nothing comes twice within an epoch.
//
// The one awkward case is a batch that spans two epochs: a prompt of its first part may stand early in the new
// permutation, and a prompt must not come twice in one batch (its responses would be the same ones). Such a prompt is
// deferred: it waits, and is the first to be handed out to the next batch. The epoch stays complete, and the state
// needs no more than the list of those that wait.

import { philox4x32 } from '../algorithm/philox.js';
import { ArcherError } from '../errors.js';

/** JSON; enough to go on exactly where the sampler stood. */
export type SamplerState = PermutationState | { weights: number[]; parts: PermutationState[] };

export interface PermutationState {
  size: number;
  seed: number;
  shuffle: boolean;
  /** Epochs completed. */
  epoch: number;
  /** How much of this epoch's permutation has been looked at. */
  position: number;
  /** Looked at but still to come in this epoch, in their order. */
  deferred: number[];
}

export interface Sampler {
  /** Number of prompts. */
  readonly size: number;
  /** Epochs completed. */
  readonly epoch: number;
  /** Prompts handed out since the beginning, over all epochs. */
  readonly drawn: number;
  /**
   * The next k prompts, as numbers of 0 … size−1, all different.
   *
   * @param options.exclude prompts that must not come now although they may be next (a batch that is being refilled);
   * they are deferred. Within one epoch none of them comes again anyway.
   * @throws ArcherError ARCHER_E_DATA if fewer than k prompts are left after exclusion.
   */
  next(k: number, options?: { exclude?: Iterable<number> }): number[];
  state(): SamplerState;
  /** @throws ArcherError ARCHER_E_CHECKPOINT if the state belongs to another data set, seed or order. */
  restore(state: SamplerState): void;
}

// "DA" in the key's upper word, where a seed below 2^53 never reaches: these numbers are nobody else's.
const dataStream = 0x44410000;

/**
 * A deterministic sampler over `size` prompts.
 *
 * @param options.seed a non-negative integer up to 2^53 − 1
 * @param options.shuffle false: every epoch in the order of the data. Default true.
 * @param options.first number of the first prompt, for a file among several. Default 0.
 */
export function createSampler(options: {
  size: number;
  seed: number;
  shuffle?: boolean;
  first?: number;
}): Omit<Sampler, 'state'> & { state(): PermutationState } {
  const { size, seed, shuffle = true, first = 0 } = options;
  if (!Number.isInteger(size) || size < 1) {
    throw new ArcherError('ARCHER_E_DATA', `A sampler needs at least one prompt; it got ${size}.`);
  }
  let epoch = 0;
  let position = 0;
  let deferred: number[] = [];
  let order = permutation(size, seed, 0, shuffle, first);

  const enterEpoch = (number: number) => {
    epoch = number;
    order = permutation(size, seed, number, shuffle, first);
  };

  return {
    size,
    get epoch() {
      return epoch;
    },
    get drawn() {
      return epoch * size + position - deferred.length;
    },
    next(k, { exclude = [] } = {}) {
      const taken = new Set(exclude);
      const available = size - taken.size;
      if (!Number.isInteger(k) || k < 0 || k > available) {
        const besides = taken.size === 0 ? '' : ` besides the ${taken.size} of the batch`;
        throw new ArcherError(
          'ARCHER_E_DATA',
          `${k} different prompts were asked for${besides}, but the data set has ${size}; lower data.train_batch_size or add prompts.`,
        );
      }
      const batch: number[] = [];
      const before = { epoch, position, deferred };
      while (batch.length < k) {
        const stillDeferred: number[] = [];
        for (const prompt of deferred) {
          if (batch.length < k && !taken.has(prompt)) {
            batch.push(prompt);
            taken.add(prompt);
          } else {
            stillDeferred.push(prompt);
          }
        }
        deferred = stillDeferred;
        while (batch.length < k && position < size) {
          const prompt = order[position] as number;
          position += 1;
          if (taken.has(prompt)) {
            deferred.push(prompt);
          } else {
            batch.push(prompt);
            taken.add(prompt);
          }
        }
        if (position === size && deferred.length === 0) {
          position = 0;
          enterEpoch(epoch + 1);
        } else if (batch.length < k) {
          // Only an arbitrary `exclude` gets here, never the rest of the batch that is being refilled.
          const left = deferred.length;
          if (epoch !== before.epoch) enterEpoch(before.epoch);
          ({ position, deferred } = before);
          throw new ArcherError(
            'ARCHER_E_DATA',
            `No other prompt is left in this epoch: the ${left} that remain are excluded.`,
          );
        }
      }
      return batch;
    },
    state() {
      return { size, seed, shuffle, epoch, position, deferred: [...deferred] };
    },
    restore(state) {
      if (!('size' in state) || state.size !== size || state.seed !== seed || state.shuffle !== shuffle) {
        throw new ArcherError(
          'ARCHER_E_CHECKPOINT',
          `The saved sampler belongs to ${describe(state)}; this run has ${size} prompts, seed ${seed} and shuffle ${shuffle}.`,
        );
      }
      enterEpoch(state.epoch);
      position = state.position;
      deferred = [...state.deferred];
    },
  };
}

function describe(state: SamplerState): string {
  if (!('size' in state)) return `${state.parts.length} weighted files`;
  return `${state.size} prompts with seed ${state.seed} and shuffle ${state.shuffle}`;
}

/** Prompts sorted by a random number of their own, drawn from (seed, epoch, prompt). */
function permutation(size: number, seed: number, epoch: number, shuffle: boolean, first: number): Int32Array {
  const order = Int32Array.from({ length: size }, (_, i) => first + i);
  if (!shuffle) return order;
  const key: [number, number] = [seed % 2 ** 32, (Math.floor(seed / 2 ** 32) ^ dataStream) >>> 0];
  const weights = new Float64Array(size);
  for (let i = 0; i < size; i += 1) {
    const [high, low] = philox4x32([first + i, epoch, 0, 0], key);
    weights[i] = high * 2 ** 21 + (low >>> 11);
  }
  return order.sort((a, b) => (weights[a - first] as number) - (weights[b - first] as number) || a - b);
}
