import type { Command } from 'commander';
import { benchLoss, namedShapes, rivalNames, shapeFromName } from '../bench/loss.js';
import { findPython, nativeProgram } from '../bench/programs.js';
import { quotable } from '../bench/statistics.js';
import { choices, count, list, type ReportFlags, report, say } from './bench-report.js';
import { runCommand } from './command.js';

interface Flags extends ReportFlags {
  shapes: string;
  threads: string;
  dtype: string;
  rivals: string;
  memory: string;
  pairs: string;
  responseTokens: string;
  python?: string;
}

export function addBenchLoss(bench: Command): void {
  bench
    .command('loss')
    .description('the fused loss with its gradients, beside the bare three matrix products and other trainers’ losses')
    .option(
      '--shapes <names>',
      `${Object.keys(namedShapes).join(', ')}, or tokens x hidden x vocabulary`,
      Object.keys(namedShapes).join(','),
    )
    .option('--threads <counts>', 'threads of every contestant', '1,2')
    .option('--dtype <names>', 'bf16, float32', 'bf16')
    .option(
      '--rivals <names>',
      `${rivalNames.join(', ')}, or none; they need a Python with torch`,
      rivalNames.join(','),
    )
    .option('--memory <names>', 'kept: freed memory stays in the process, tensors lie in huge pages; default: as they come', 'kept')
    .option('--pairs <count>', 'timed rounds; every contestant runs once in each', String(quotable.pairs))
    .option('--response-tokens <count>', 'length of a response', '256')
    .option('--python <path>', 'a Python with torch; without it the one beside libtorch, or python3')
    .option('--json [file]', 'write {machine, load, rows} to a file; without a name print it instead of the table')
    .addHelpText(
      'after',
      `
Every option but --pairs, --response-tokens, --python and --json takes several values with commas.

Examples:
  $ archer-native bench loss --shapes smollm2-512 --threads 1              a few minutes
  $ archer-native bench loss --rivals none                                 the bare matrix products alone, no Python
  $ archer-native bench loss --memory kept,default --json loss.json        everything, with both tables

ratio is the rival's time over ours (gemm-floor: the bare products' time over ours), the median over the pairs;
memory ratio is the rival's extra peak memory over ours. A row is not quotable, and says why, on a busy machine
(load average above ${quotable.load}, others using more than ${quotable.cores} processors), with fewer than ${quotable.pairs} pairs, or where the pairs' ratios
spread by more than ${100 * quotable.spread} %.`,
    )
    .action((flags: Flags) =>
      runCommand({ json: flags.json === true }, ({ signal, begin }) => run(flags, signal, begin)),
    );
}

async function run(flags: Flags, signal: AbortSignal, begin: () => void): Promise<void> {
  const options = {
    shapes: list('--shapes', flags.shapes).map(shapeFromName),
    threads: list('--threads', flags.threads).map((text) => count('--threads', text)),
    dtypes: choices('--dtype', flags.dtype, ['bf16', 'float32']),
    memory: choices('--memory', flags.memory, ['kept', 'default']),
    rivals: flags.rivals === 'none' ? [] : choices('--rivals', flags.rivals, rivalNames),
    pairs: count('--pairs', flags.pairs),
    responseTokens: count('--response-tokens', flags.responseTokens),
  };
  const python = options.rivals.length > 0 ? await findPython(flags.python) : undefined;
  if (options.rivals.length > 0 && !python) {
    say('No Python with torch was found, so the rivals are left out; name one with --python.');
  }
  const program = await nativeProgram('archer-bench-loss');
  begin();
  await report(flags, { program, torch: python?.torch }, (context) =>
    benchLoss({ ...options, ...context, program, python, signal }),
  );
}
