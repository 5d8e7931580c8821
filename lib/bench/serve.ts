// The contestant's side of the protocol (docs/benchmarks.md), for contestants that are Node programs.
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { isArcherError, messageOf } from '../errors.js';
import type { Meter } from './meter.js';

/** What a contestant of `bench rollout` or `bench step` is told. */
export interface SamplingTask {
  model: string;
  dtype: string;
  threads: number;
  /** Prompts of one iteration; in `bench step` with n responses to each. */
  batch: number;
  n: number;
  promptTokens: number;
  newTokens: number;
  batchInvariant: boolean;
  /** Old log-probs by a forward pass, as by default; otherwise as sampled. */
  recompute: boolean;
  /** Where node-llama-cpp lies, and its weights; empty for others. */
  llama: string;
  gguf: string;
}

export interface Served {
  details: Record<string, unknown>;
  /** Made before the model was there, so that its memory counts. */
  meter: Meter;
  iterate: () => Promise<void>;
}

/** Makes the contestant, which reads the command line, and answers line by line until `quit` or the end of the input. */
export async function serve(name: string, make: () => Promise<Served>): Promise<void> {
  try {
    const { details, meter, iterate } = await make();
    say({ event: 'ready', protocol: 1, name, details });
    for await (const line of createInterface({ input: process.stdin })) {
      if (line === 'quit') break;
      if (line === 'run') {
        meter.begin();
        await iterate();
        say({ event: 'run', ...meter.end() });
      } else
        say({
          event: 'error',
          code: 'ARCHER_E_CONFIG',
          message: `The command ${line} is not known; send run or quit.`,
        });
    }
    process.exit(0);
  } catch (error) {
    say({ event: 'error', code: isArcherError(error) ? error.code : 'ARCHER_E_INTERNAL', message: messageOf(error) });
    process.exit(1);
  }
}

/** The values of `--name value` for each of the names; empty where one is not given. */
export function readOptions<Name extends string>(names: readonly Name[]): Record<Name, string> {
  const text = { type: 'string', default: '' } as const;
  const { values } = parseArgs({ options: Object.fromEntries(names.map((name) => [name, text])) });
  return values as Record<Name, string>;
}

export function readSamplingTask(): SamplingTask {
  const of = readOptions([
    'model',
    'dtype',
    'threads',
    'batch',
    'n',
    'prompt-tokens',
    'new-tokens',
    'batch-invariant',
    'recompute',
    'llama',
    'gguf',
  ]);
  return {
    model: of.model,
    dtype: of.dtype,
    threads: Number(of.threads),
    batch: Number(of.batch),
    n: Number(of.n),
    promptTokens: Number(of['prompt-tokens']),
    newTokens: Number(of['new-tokens']),
    batchInvariant: of['batch-invariant'] === 'true',
    recompute: of.recompute === 'true',
    llama: of.llama,
    gguf: of.gguf,
  };
}

function say(event: object): void {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

/**
 * Sequences of random ids, the same ones in every process, and those of random_prompts in bench/rivals_common.py; ids below 3
 * are often special and are left out.
 */
export function randomSequences(count: number, length: number, vocabSize: number): number[][] {
  let state = 1;
  const next = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return 3 + Math.floor((state / 2 ** 32) * (vocabSize - 3));
  };
  return Array.from({ length: count }, () => Array.from({ length }, next));
}
