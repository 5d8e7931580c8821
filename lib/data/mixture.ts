// Prompts of several files in given shares. Each file has a sampler of its own, with its own epochs; the next prompt
// comes from the file that is furthest behind its share, so that shares hold in every batch, not only in the long run.
// What each file has handed out is all that there is to remember.

import { ArcherError } from '../errors.js';
import { createSampler, type Sampler, type SamplerState } from './sampler.js';

export interface MixtureOptions {
  /** Prompts of each file; they are numbered through, file by file. */
  sizes: readonly number[];
  /** Of each file, in any unit: twice the weight, twice as many prompts. */
  weights: readonly number[];
  seed: number;
  shuffle?: boolean;
}

/** A sampler whose `epoch` counts as many prompts as there are, whichever they were. */
export function createMixture({ sizes, weights, seed, shuffle }: MixtureOptions): Sampler {
  const size = sum(sizes);
  const firsts = sizes.map((_, i) => sum(sizes.slice(0, i)));
  const parts = sizes.map((own, i) => createSampler({ size: own, seed, shuffle, first: firsts[i] }));
  const total = sum(weights);
  const drawn = () => sum(parts.map((part) => part.drawn));
  const partOf = (prompt: number) => firsts.findLastIndex((first) => first <= prompt);

  return {
    size,
    get epoch() {
      return Math.floor(drawn() / size);
    },
    get drawn() {
      return drawn();
    },
    next(k, { exclude = [] } = {}) {
      const taken = parts.map(() => new Set<number>());
      for (const prompt of exclude) taken[partOf(prompt)]?.add(prompt);
      const available = size - sum(taken.map((own) => own.size));
      if (!Number.isInteger(k) || k < 0 || k > available) {
        throw new ArcherError(
          'ARCHER_E_DATA',
          `${k} different prompts were asked for, but the data set has ${available}; lower data.train_batch_size or add prompts.`,
        );
      }
      return Array.from({ length: k }, () => {
        const due = drawn() + 1;
        const behind = parts.map((part, i) => {
          const hasMore = (taken[i] as Set<number>).size < part.size;
          return hasMore ? (due * (weights[i] as number)) / total - part.drawn : -Infinity;
        });
        const at = behind.indexOf(Math.max(...behind));
        const own = taken[at] as Set<number>;
        const [prompt] = (parts[at] as (typeof parts)[number]).next(1, { exclude: own }) as [number];
        own.add(prompt);
        return prompt;
      });
    },
    state(): SamplerState {
      return { weights: [...weights], parts: parts.map((part) => part.state()) };
    },
    restore(state) {
      if (!('parts' in state) || state.weights.join() !== weights.join()) {
        throw new ArcherError(
          'ARCHER_E_CHECKPOINT',
          `The saved sampler does not have this run's data.train_file_weights, ${weights.join(', ')}.`,
        );
      }
      parts.forEach((part, i) => {
        part.restore(state.parts[i] as SamplerState);
      });
    },
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}
