import { existsSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import type { Command } from 'commander';
import type { Dtype } from '../bench/environment.js';
import { findPython, nativeProgram } from '../bench/programs.js';
import { benchRollout, rolloutRivals } from '../bench/rollout.js';
import { quotable } from '../bench/statistics.js';
import { ArcherError } from '../errors.js';
import { benchModel } from './bench-model.js';
import { choices, count, list, type ReportFlags, report, say } from './bench-report.js';
import { runCommand } from './command.js';

interface Flags extends ReportFlags {
  model?: string;
  batch: string;
  threads: string;
  dtype: string;
  promptTokens: string;
  newTokens: string;
  rivals: string;
  memory: string;
  pairs: string;
  python?: string;
  llama?: string;
  gguf?: string;
}

const dtypes: Dtype[] = ['bf16', 'float32'];

export function addBenchRollout(bench: Command): void {
  bench
    .command('rollout')
    .description('sampling from a model, beside the roofline of this machine and other engines')
    .option('-m, --model <folder>', 'Hugging Face folder; without it random weights of the SmolLM2-135M shape')
    .option('--batch <counts>', 'sequences sampled together', '1,8,32')
    .option('--threads <counts>', 'threads of every contestant', '1,2')
    .option('--dtype <names>', dtypes.join(', '), dtypes.join(','))
    .option('--prompt-tokens <count>', 'length of every prompt', '64')
    .option('--new-tokens <count>', 'length of every response; nothing ends one earlier', '128')
    .option('--rivals <names>', `${rolloutRivals.join(', ')}, or none`, rolloutRivals.join(','))
    .option(
      '--memory <names>',
      'kept: freed memory stays in the process, tensors lie in huge pages; default: as they come',
      'kept',
    )
    .option('--pairs <count>', 'timed rounds; every contestant runs once in each', String(quotable.pairs))
    .option('--python <path>', 'a Python with torch and transformers; without it the one beside libtorch, or python3')
    .option('--llama <folder>', 'where `npm install node-llama-cpp` was run')
    .option('--gguf <files>', 'the same weights for llama.cpp, as bf16=FILE,float32=FILE')
    .option('--json [file]', 'write {machine, load, rows} to a file; without a name print it instead of the table')
    .addHelpText(
      'after',
      `
--batch, --threads, --dtype, --rivals and --memory take several values with commas.

Examples:
  $ archer-native bench rollout --batch 32 --threads 1 --dtype bf16           a few minutes
  $ archer-native bench rollout --rivals none                                 the roofline alone, no Python
  $ archer-native bench rollout --model ./SmolLM2-135M --llama ./llama --gguf bf16=smollm2-bf16.gguf --json rollout.json

ratio is the rival's time over ours, the median over the pairs. against roofline: the least time that bandwidth and the rate
of matrix products of this machine allow (weights read once per step, keys and values, products), over ours: 0.8 is 80 % of
the roofline. A row is not quotable, and says why, on a busy machine, with fewer than ${quotable.pairs} pairs, or where the pairs' ratios
spread by more than ${100 * quotable.spread} %.`,
    )
    .action((flags: Flags) =>
      runCommand({ json: flags.json === true }, ({ signal, begin }) => run(flags, signal, begin)),
    );
}

async function run(flags: Flags, signal: AbortSignal, begin: () => void): Promise<void> {
  const counts = (option: string, text: string) => list(option, text).map((one) => count(option, one));
  const options = {
    batches: counts('--batch', flags.batch),
    threads: counts('--threads', flags.threads),
    dtypes: choices('--dtype', flags.dtype, dtypes),
    memory: choices('--memory', flags.memory, ['kept', 'default']),
    promptTokens: count('--prompt-tokens', flags.promptTokens),
    newTokens: count('--new-tokens', flags.newTokens),
    rivals: flags.rivals === 'none' ? [] : choices('--rivals', flags.rivals, rolloutRivals),
    pairs: count('--pairs', flags.pairs),
    gguf: ggufFiles(flags.gguf),
    llama: flags.llama,
  };
  const has = (rival: string) => options.rivals.includes(rival);
  const python = has('hf') ? await findPython(flags.python) : undefined;
  if (has('hf') && !python) say('No Python with torch was found, so hf is left out; name one with --python.');
  if (has('llama.cpp') && !(options.llama && options.gguf)) {
    say('llama.cpp is left out: it needs --llama (a folder with node-llama-cpp) and --gguf (the same weights).');
  }
  const modelOf = await benchModel(flags.model, options);
  const program = await nativeProgram('archer-bench-roofline');
  const model = await modelOf();
  begin();
  const modelName = basename(resolve(model.path)).toLowerCase();
  await report(flags, { program, torch: python?.torch }, (context) =>
    benchRollout({ ...options, ...context, model, modelName, program, python, signal }),
  );
}

function ggufFiles(text: string | undefined): Partial<Record<Dtype, string>> | undefined {
  if (text === undefined) return undefined;
  return Object.fromEntries(
    list('--gguf', text).map((entry) => {
      const [dtype = '', file = ''] = entry.split(/=(.*)/s);
      if (!dtypes.some((known) => known === dtype) || file === '') {
        throw new ArcherError('ARCHER_E_CONFIG', `--gguf ${entry}: write bf16=FILE or float32=FILE.`);
      }
      if (!existsSync(file)) throw new ArcherError('ARCHER_E_CONFIG', `--gguf ${entry}: there is no such file.`);
      return [dtype, resolve(file)];
    }),
  );
}
