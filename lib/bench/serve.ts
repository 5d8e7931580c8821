// The contestant's side of the protocol (docs/benchmarks.md), for contestants that are Node programs.
import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { isArcherError, messageOf } from '../errors.js';

/** What a contestant of `bench rollout` is told. */
export interface SamplingTask {
  model: string;
  dtype: string;
  threads: number;
  batch: number;
  promptTokens: number;
  newTokens: number;
  batchInvariant: boolean;
  /** Where node-llama-cpp lies, and its weights; empty for others. */
  llama: string;
  gguf: string;
}

export interface Served {
  details: Record<string, unknown>;
  /** Resident bytes before the model was there. */
  baseBytes: number;
  iterate: () => Promise<void>;
}

/** Makes the contestant, which reads the command line, and answers line by line until `quit` or the end of the input. */
export async function serve(name: string, make: () => Promise<Served>): Promise<void> {
  try {
    const { details, baseBytes, iterate } = await make();
    say({ event: 'ready', protocol: 1, name, details });
    for await (const line of createInterface({ input: process.stdin })) {
      if (line === 'quit') break;
      if (line === 'run') say({ event: 'run', ...(await measure(iterate, baseBytes)) });
      else
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
    'prompt-tokens',
    'new-tokens',
    'batch-invariant',
    'llama',
    'gguf',
  ]);
  return {
    model: of.model,
    dtype: of.dtype,
    threads: Number(of.threads),
    batch: Number(of.batch),
    promptTokens: Number(of['prompt-tokens']),
    newTokens: Number(of['new-tokens']),
    batchInvariant: of['batch-invariant'] === 'true',
    llama: of.llama,
    gguf: of.gguf,
  };
}

async function measure(iterate: () => Promise<void>, baseBytes: number): Promise<Record<string, number | null>> {
  const peakIsKnown = resetPeakMemory();
  const before = process.cpuUsage();
  const began = performance.now();
  await iterate();
  const seconds = (performance.now() - began) / 1000;
  const { user, system } = process.cpuUsage(before);
  const peak = peakIsKnown ? Math.max(0, residentBytes('VmHWM') - baseBytes) : null;
  return { seconds, cpu_seconds: (user + system) / 1e6, peak_bytes: peak };
}

/** VmRSS (now) or VmHWM (peak) of this process in bytes; 0 where nothing tells. */
export function residentBytes(key: 'VmRSS' | 'VmHWM'): number {
  try {
    const [, kilobytes = 0] =
      new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
    return Number(kilobytes) * 1024;
  } catch {
    return 0;
  }
}

/** The high-water mark falls back to what is resident; false where the kernel does not allow it. */
function resetPeakMemory(): boolean {
  try {
    writeFileSync('/proc/self/clear_refs', '5');
    return true;
  } catch {
    return false;
  }
}

function say(event: object): void {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

/** Sequences of random ids, the same ones in every process; ids below 3 are often special and are left out. */
export function randomSequences(count: number, length: number, vocabSize: number): number[][] {
  let state = 1;
  const next = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return 3 + Math.floor((state / 2 ** 32) * (vocabSize - 3));
  };
  return Array.from({ length: count }, () => Array.from({ length }, next));
}
