import { addAbortSignal } from 'node:stream';
import { text } from 'node:stream/consumers';
import type { Command } from 'commander';
import pc from 'picocolors';
import { ArcherError } from '../errors.js';
import { Policy } from '../rollout/policy.js';
import { type CommonOptions, printJson, runCommand, toNumber } from './command.js';

interface Options extends CommonOptions {
  model: string;
  dtype: 'float32' | 'bfloat16';
  n: number;
  temperature: number;
  topP: number;
  topK: number;
  minP: number;
  maxTokens: number;
  stop?: string[];
  seed: number;
  system?: string;
  raw?: boolean;
  threads: number;
}

export function addGenerate(program: Command): void {
  program
    .command('generate')
    .argument('[prompt]', 'what to ask; read from standard input where it is left out')
    .description('sample responses to one prompt; a single one appears as it is made')
    .option(
      '-m, --model <folder>',
      'Hugging Face folder, a checkpoint, owner/name of a pulled model, or bundled',
      'bundled',
    )
    .option('--dtype <dtype>', 'float32 or bfloat16', 'float32')
    .option('-n <count>', 'responses', toNumber, 1)
    .option('-t, --temperature <value>', '0 is greedy', toNumber, 1)
    .option('--top-p <value>', 'nucleus sampling; 1 is off', toNumber, 1)
    .option('--top-k <count>', 'sample from the k likeliest tokens; -1 is off', toNumber, -1)
    .option('--min-p <value>', 'drop tokens below this share of the likeliest one', toNumber, 0)
    .option('--max-tokens <count>', 'longest response', toNumber, 256)
    .option('--stop <text...>', 'strings that end a response')
    .option('--seed <number>', 'same seed, same responses', toNumber, 0)
    .option('--system <text>', 'system message')
    .option('--raw', 'give the prompt to the model as it is, without the chat template')
    .option('--threads <count>', '0: one per core', toNumber, 0)
    .option('--json', 'print one JSON line per response')
    .action((prompt: string | undefined, options: Options) =>
      runCommand(options, ({ signal, begin }) => run(prompt, options, signal, begin), 'Interrupted.'),
    );
}

async function run(
  prompt: string | undefined,
  options: Options,
  signal: AbortSignal,
  begin: () => void,
): Promise<void> {
  if (!['float32', 'bfloat16'].includes(options.dtype)) {
    throw new ArcherError('ARCHER_E_CONFIG', `--dtype ${options.dtype}: it must be float32 or bfloat16.`);
  }
  const question = prompt ?? (await readInput(signal));
  using policy = await Policy.load(options.model, { dtype: options.dtype, numThreads: options.threads, signal });
  begin();
  const isStreamed = options.n === 1 && !options.json;
  const started = performance.now();
  const [responses = []] = await policy.generate([question], {
    n: options.n,
    temperature: options.temperature,
    topP: options.topP,
    topK: options.topK,
    minP: options.minP,
    maxNewTokens: options.maxTokens,
    stop: options.stop,
    seed: options.seed,
    systemPrompt: options.system,
    applyChatTemplate: !options.raw,
    signal,
    onText: isStreamed ? (piece) => process.stdout.write(piece.text) : undefined,
  });
  const seconds = (performance.now() - started) / 1000;
  for (const { text: response, ids, finish } of responses) {
    const cut = finish === 'length' ? pc.dim(' […cut at --max-tokens]') : '';
    if (options.json) printJson({ response, ids: Array.from(ids), finish });
    else process.stdout.write(`${isStreamed ? '' : response}${cut}\n`);
  }
  const tokens = responses.reduce((sum, { ids }) => sum + ids.length, 0);
  process.stderr.write(
    pc.dim(`${tokens} tokens in ${seconds.toFixed(2)} s, ${(tokens / seconds).toFixed(0)} tokens/s\n`),
  );
}

/** All of standard input; unlike a synchronous read it leaves Ctrl-C its effect. */
async function readInput(signal: AbortSignal): Promise<string> {
  try {
    return await text(addAbortSignal(signal, process.stdin));
  } catch (error) {
    if (signal.aborted) throw new ArcherError('ARCHER_E_ABORTED', 'Interrupted while the prompt was read.');
    throw error;
  }
}
