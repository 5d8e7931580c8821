import { basename, join, resolve } from 'node:path';
import type { Command } from 'commander';
import type { Dtype } from '../bench/environment.js';
import { findPython, nativeProgram } from '../bench/programs.js';
import { makeRandomModel, smollm2 } from '../bench/random-model.js';
import { quotable } from '../bench/statistics.js';
import { benchUpdate, microBatchFromName, updateRivals } from '../bench/update.js';
import { ArcherError } from '../errors.js';
import { resolveModelPath } from '../hub/resolve.js';
import { readModelFolder } from '../model/folder.js';
import { packageRoot } from '../package-root.js';
import { choices, count, list, type ReportFlags, report, say } from './bench-report.js';
import { runCommand } from './command.js';

interface Flags extends ReportFlags {
  model?: string;
  shapes: string;
  threads: string;
  dtype: string;
  promptTokens: string;
  rivals: string;
  memory: string;
  pairs: string;
  python?: string;
}

const dtypes: Dtype[] = ['bf16', 'float32'];

export function addBenchUpdate(bench: Command): void {
  bench
    .command('update')
    .description(
      'forward and backward of a training micro-batch, beside the bare products and Hugging Face with autograd',
    )
    .option('-m, --model <folder>', 'Hugging Face folder; without it random weights of the SmolLM2-135M shape')
    .option('--shapes <names>', 'packed sequences x tokens of each', '4x256,8x512')
    .option('--threads <counts>', 'threads of every contestant', '1,2')
    .option('--dtype <names>', dtypes.join(', '), 'bf16')
    .option('--prompt-tokens <count>', 'of the tokens of each sequence; the loss has the others', '64')
    .option('--rivals <names>', `${updateRivals.join(', ')}, or none`, updateRivals.join(','))
    .option(
      '--memory <names>',
      'kept: freed memory stays in the process, tensors lie in huge pages; default: as they come',
      'kept',
    )
    .option('--pairs <count>', 'timed rounds; every contestant runs once in each', String(quotable.pairs))
    .option('--python <path>', 'a Python with torch and transformers; without it the one beside libtorch, or python3')
    .option('--json [file]', 'write {machine, load, rows} to a file; without a name print it instead of the table')
    .addHelpText(
      'after',
      `
--shapes, --threads, --dtype, --rivals and --memory take several values with commas.

Examples:
  $ archer-native bench update --shapes 4x256 --threads 1                     a few minutes
  $ archer-native bench update --rivals none                                  the bare products alone, no Python
  $ archer-native bench update --memory kept,default --json update.json       everything, with both tables

ratio is the rival's time over ours, the median over the pairs. against gemm-rate: the time that the FLOPs of the micro-batch
take at the rate of the bare products of this model, over ours: 0.75 is 75 % of that rate. hf has float32 weights under bfloat16
autocast, hf-bf16 weights and gradients in bfloat16. A row is not quotable, and says why, on a busy machine, with fewer than
${quotable.pairs} pairs, or where the pairs' ratios spread by more than ${100 * quotable.spread} %.`,
    )
    .action((flags: Flags) =>
      runCommand({ json: flags.json === true }, ({ signal, begin }) => run(flags, signal, begin)),
    );
}

async function run(flags: Flags, signal: AbortSignal, begin: () => void): Promise<void> {
  const promptTokens = count('--prompt-tokens', flags.promptTokens);
  const options = {
    shapes: list('--shapes', flags.shapes).map((name) => microBatchFromName(name, promptTokens)),
    threads: list('--threads', flags.threads).map((text) => count('--threads', text)),
    dtypes: choices('--dtype', flags.dtype, dtypes),
    memory: choices('--memory', flags.memory, ['kept', 'default']),
    rivals: flags.rivals === 'none' ? [] : choices('--rivals', flags.rivals, updateRivals),
    pairs: count('--pairs', flags.pairs),
  };
  const python = options.rivals.length > 0 ? await findPython(flags.python) : undefined;
  if (options.rivals.length > 0 && !python) {
    say('No Python with torch was found, so the rivals are left out; name one with --python.');
  }
  const named = flags.model ? await readModelFolder(resolveModelPath(flags.model)) : undefined;
  const longest = named?.nativeConfig.maxPositionEmbeddings ?? smollm2.max_position_embeddings;
  const tooLong = options.shapes.find(({ tokens }) => tokens > longest);
  if (tooLong) {
    throw new ArcherError(
      'ARCHER_E_CONFIG',
      `--shapes ${tooLong.sequences}x${tooLong.tokens} exceeds the model's ${longest} positions; ask for fewer tokens.`,
    );
  }
  const program = await nativeProgram('archer-bench-products');
  const model =
    named ?? (await readModelFolder(makeRandomModel(join(packageRoot, 'native/build/bench/smollm2-135m'), smollm2)));
  begin();
  const modelName = basename(resolve(model.path)).toLowerCase();
  await report(flags, { program, torch: python?.torch }, (context) =>
    benchUpdate({ ...options, ...context, model, modelName, program, python, signal }),
  );
}
