import { basename, resolve } from 'node:path';
import type { Command } from 'commander';
import type { Dtype } from '../bench/environment.js';
import { findPython, nativeProgram } from '../bench/programs.js';
import { quotable } from '../bench/statistics.js';
import { benchStep, stepRivals } from '../bench/step.js';
import { ArcherError } from '../errors.js';
import { benchModel } from './bench-model.js';
import { choices, count, list, type ReportFlags, report, say } from './bench-report.js';
import { runCommand } from './command.js';

interface Flags extends ReportFlags {
  model?: string;
  prompts: string;
  n: string;
  threads: string;
  dtype: string;
  promptTokens: string;
  newTokens: string;
  rivals: string;
  memory: string;
  pairs: string;
  python?: string;
}

const dtypes: Dtype[] = ['bf16', 'float32'];

export function addBenchStep(bench: Command): void {
  bench
    .command('step')
    .description('a whole training step (rollout, scoring, update), beside TRL’s GRPOTrainer')
    .option('-m, --model <folder>', 'Hugging Face folder; without it random weights of the SmolLM2-135M shape')
    .option('--prompts <count>', 'prompts of a step', '4')
    .option('--n <count>', 'responses to each prompt', '8')
    .option('--prompt-tokens <count>', 'length of every prompt', '32')
    .option('--new-tokens <counts>', 'length of every response; nothing ends one earlier', '64')
    .option('--threads <counts>', 'threads of every contestant', '1,2')
    .option('--dtype <names>', dtypes.join(', '), 'bf16')
    .option('--rivals <names>', `${stepRivals.join(', ')}, or none`, stepRivals.join(','))
    .option(
      '--memory <names>',
      'kept: freed memory stays in the process, tensors lie in huge pages; default: as they come',
      'kept',
    )
    .option('--pairs <count>', 'timed rounds; every contestant runs once in each', String(quotable.pairs))
    .option('--python <path>', 'a Python with torch, trl and datasets; without it the one beside libtorch, or python3')
    .option('--json [file]', 'write {machine, load, rows} to a file; without a name print it instead of the table')
    .addHelpText(
      'after',
      `
--new-tokens, --threads, --dtype, --rivals and --memory take several values with commas. With all rivals a round takes one to
two minutes per setting, and there are two rounds of warm-up: reckon with a quarter of an hour per setting.

Examples:
  $ archer-native bench step --threads 2 --rivals trl                         about seven minutes
  $ archer-native bench step --threads 2 --new-tokens 64,256                  longer responses too
  $ archer-native bench step --rivals none                                    the roofline alone, no Python
  $ archer-native bench step --model ./SmolLM2-135M --memory kept,default --json step.json

trl has float32 weights (--dtype bf16: under autocast, as ours computes in bfloat16 over float32 masters); trl-bf16 holds
weights, gradients and moments in bfloat16; recompute is ours with actor.old_log_prob: recompute. The roofline is the least
time that this machine allows. ratio is the rival's time over ours, the median over the pairs; below come the phases. A row is
not quotable, and says why, on a busy machine, with fewer than ${quotable.pairs} pairs, or where the pairs' ratios spread by more than ${100 * quotable.spread} %.`,
    )
    .action((flags: Flags) =>
      runCommand({ json: flags.json === true }, ({ signal, begin }) => run(flags, signal, begin)),
    );
}

async function run(flags: Flags, signal: AbortSignal, begin: () => void): Promise<void> {
  const counts = (option: string, text: string) => list(option, text).map((one) => count(option, one));
  const batch = count('--prompts', flags.prompts);
  const n = count('--n', flags.n);
  if (n < 2) throw new ArcherError('ARCHER_E_CONFIG', `--n ${n}: a group needs at least 2 responses.`);
  const promptTokens = count('--prompt-tokens', flags.promptTokens);
  const lengths = counts('--new-tokens', flags.newTokens);
  const options = {
    shapes: lengths.map((newTokens) => ({ batch, n, promptTokens, newTokens })),
    threads: counts('--threads', flags.threads),
    dtypes: choices('--dtype', flags.dtype, dtypes),
    memory: choices('--memory', flags.memory, ['kept', 'default']),
    rivals: flags.rivals === 'none' ? [] : choices('--rivals', flags.rivals, stepRivals),
    pairs: count('--pairs', flags.pairs),
  };
  const wanted = options.rivals.filter((rival) => rival !== 'recompute');
  const python = wanted.length > 0 ? await findPython(flags.python, ['trl', 'datasets']) : undefined;
  if (wanted.length > 0 && !python) {
    say(
      `No Python with torch, trl and datasets was found, so ${wanted.join(' and ')} cannot run; name one with --python.`,
    );
  }
  const modelOf = await benchModel(flags.model, { promptTokens, newTokens: Math.max(...lengths) });
  const program = await nativeProgram('archer-bench-roofline');
  const model = await modelOf();
  begin();
  const modelName = basename(resolve(model.path)).toLowerCase();
  await report(flags, { program, torch: python?.torch }, (context) =>
    benchStep({ ...options, ...context, model, modelName, program, python, signal }),
  );
}
