// Questions to a served model: every response is a request of its own with its own seed, so many at a time.
import { philox4x32 } from '../algorithm/philox.js';
import type { ChatMessage } from '../data/types.js';
import type { ServedModel } from '../rollout/served-model.js';
import type { Answer, Ask } from '../train/evaluate.js';
import type { Problem } from '../train/types.js';
import type { Benchmark } from './benchmarks.js';

export interface AskServedOptions {
  model: ServedModel;
  benchmark: Pick<Benchmark, 'sampling' | 'data'>;
  seed: number;
  /** Requests under way at a time. */
  concurrency: number;
}

export function askServed({ model, benchmark, seed, concurrency }: AskServedOptions): Ask<Problem> {
  const { n, ...sampling } = benchmark.sampling;
  return async (problems, { signal, onProgress }) => {
    const answers: Answer[][] = problems.map(() => []);
    const stop = new AbortController();
    const signals = AbortSignal.any(signal ? [stop.signal, signal] : [stop.signal]);
    let next = 0;
    let done = 0;
    const worker = async () => {
      while (next < problems.length * n) {
        const [i, sample] = [Math.floor(next / n), next % n];
        next += 1;
        const problem = problems[i]!;
        const prompt = promptOf(problem, benchmark.data);
        answers[i]![sample] = await model.answer({
          ...sampling,
          prompt,
          templateArguments: benchmark.data.apply_chat_template_kwargs,
          seed: sampleSeed(seed, problem.promptKey, sample),
          signal: signals,
        });
        done += 1;
        onProgress?.(done / (problems.length * n));
      }
    };
    try {
      await Promise.all(Array.from({ length: concurrency }, worker));
    } finally {
      // One request that failed for good ends the others.
      stop.abort();
    }
    return answers;
  };
}

/** Without the chat template the server gets the text itself. */
function promptOf({ row }: Problem, data: Benchmark['data']): ChatMessage[] | string {
  const { system_prompt: system } = data;
  const messages =
    system !== null && row.prompt[0]?.role !== 'system'
      ? [{ role: 'system', content: system }, ...row.prompt]
      : row.prompt;
  return data.apply_chat_template ? messages : messages.map(({ content }) => content).join('\n');
}

/** 31 bits, which every server takes. */
function sampleSeed(seed: number, promptKey: number, sample: number): number {
  const [word] = philox4x32([sample, promptKey, 0, 0], [seed % 2 ** 32, Math.floor(seed / 2 ** 32)]);
  return word >>> 1;
}
