// How long the responses to each prompt were when it was last sampled: the longest start first in the next round. Only time
// depends on it, and, where the arithmetic of a batch depends on its rows, the last bits: it belongs to the run's state.
import type { EncodedPrompt, ResponseGroup } from '../rollout/types.js';

/** Prompt key -> mean length of its last responses, in tokens. */
export class ResponseLengths {
  private readonly means: Map<number, number>;

  constructor(saved: Record<string, number> = {}) {
    this.means = new Map(Object.entries(saved).map(([key, mean]) => [Number(key), mean]));
  }

  /** Float64[prompts], NaN where a prompt has not been sampled. */
  of(prompts: EncodedPrompt[]): Float64Array {
    return Float64Array.from(prompts, ({ promptKey }) => this.means.get(promptKey) ?? Number.NaN);
  }

  record(groups: ResponseGroup[]): void {
    for (const { prompt, responses } of groups) {
      const tokens = responses.reduce((sum, { ids }) => sum + ids.length, 0);
      this.means.set(prompt.promptKey, tokens / responses.length);
    }
  }

  toJSON(): Record<string, number> {
    return Object.fromEntries(this.means);
  }
}
