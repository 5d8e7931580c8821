// `archer-native bench <what>`: one subcommand per benchmark; options, progress, table and JSON are common to all.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import type { Command } from 'commander';
import pc from 'picocolors';
import { benchLoss, type Dtype, type Memory, namedShapes, rivalNames, shapeFromName } from '../bench/loss.js';
import { busyCores, describeMachine, load } from '../bench/machine.js';
import { findPython, machineOf, nativeProgram } from '../bench/programs.js';
import { type BenchRow, quotable } from '../bench/statistics.js';
import { benchTable } from '../bench/table.js';
import { ArcherError, messageOf } from '../errors.js';
import { printJson, runCommand } from './command.js';

interface LossFlags {
  shapes: string;
  threads: string;
  dtype: string;
  rivals: string;
  memory: string;
  pairs: string;
  responseTokens: string;
  python?: string;
  json?: string | true;
}

export function addBench(program: Command): void {
  const bench = program
    .command('bench')
    .description('measure this machine: our time and memory beside what people use now')
    .addHelpText('after', '\nWhat is measured, and how: docs/benchmarks.md');
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
    .option('--memory <names>', 'kept: freed memory stays in the process; default: glibc as it is', 'kept')
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
    .action((flags: LossFlags) =>
      runCommand({ json: flags.json === true }, ({ signal, begin }) => runLoss(flags, signal, begin)),
    );
}

async function runLoss(flags: LossFlags, signal: AbortSignal, begin: () => void): Promise<void> {
  const options = {
    shapes: list('--shapes', flags.shapes).map(shapeFromName),
    threads: list('--threads', flags.threads).map((text) => count('--threads', text)),
    dtypes: choices('--dtype', flags.dtype, ['bf16', 'float32']) as Dtype[],
    memory: choices('--memory', flags.memory, ['kept', 'default']) as Memory[],
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

  // After the build, which would count as load.
  const before = { load: load(), busyCores: await busyCores() };
  const report = {
    machine: describeMachine({ ...(await machineOf(program)), torch: python?.torch }),
    load: { before: before.load, after: before.load, busy_cores_before: Number(before.busyCores.toFixed(2)) },
    rows: [] as BenchRow[],
  };
  const progress = progressLine();
  try {
    const rows = benchLoss({
      ...options,
      ...before,
      program,
      python,
      signal,
      onProgress: progress.show,
      onDropped: (...what) => progress.say(dropText(...what)),
    });
    for await (const measured of rows) {
      report.rows.push(...measured);
      report.load.after = load();
      // After every setting: an interrupted measurement keeps what it has.
      if (typeof flags.json === 'string') writeReport(flags.json, report);
    }
  } finally {
    progress.end();
    if (flags.json !== true && report.rows.length > 0) {
      const { cpu, cores } = report.machine;
      process.stdout.write(
        `${cpu}, ${cores} processors; load ${report.load.before} before, ${report.load.after} after\n${benchTable(report.rows)}`,
      );
    }
  }
  if (flags.json === true) printJson(report);
}

const dropText = (setting: string, name: string, reason: string) => `${setting}: ${name} is left out (${reason})`;

function list(option: string, text: string): string[] {
  const values = text.split(',').map((value) => value.trim());
  if (values.some((value) => value === ''))
    throw new ArcherError('ARCHER_E_CONFIG', `${option} "${text}" holds an empty value.`);
  return [...new Set(values)];
}

function choices(option: string, text: string, known: string[]): string[] {
  const values = list(option, text);
  const unknown = values.find((value) => !known.includes(value));
  if (unknown === undefined) return values;
  throw new ArcherError(
    'ARCHER_E_CONFIG',
    `${option} ${unknown} is not known; use ${known.join(', ')}${option === '--rivals' ? ' or none' : ''}.`,
  );
}

function count(option: string, text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 1 && value <= 1e9) return value;
  throw new ArcherError('ARCHER_E_CONFIG', `${option} ${text}: it must be a whole number of at least 1.`);
}

function writeReport(file: string, report: object): void {
  const path = resolve(file);
  try {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, `${JSON.stringify(report, null, 2)}\n`);
  } catch (error) {
    throw new ArcherError('ARCHER_E_IO', `--json ${file} cannot be written: ${messageOf(error)}. Name another file.`, {
      cause: error,
    });
  }
}

function say(text: string): void {
  process.stderr.write(`${pc.yellow('note')} ${text}\n`);
}

/** On a terminal one line that redraws itself; elsewhere a line per setting. */
function progressLine() {
  const { isTTY } = process.stderr;
  const clear = isTTY ? '\r\x1b[K' : '';
  let setting = '';
  return {
    show: (what: string) => {
      const [now = ''] = what.split(':');
      if (isTTY) process.stderr.write(`${clear}${what}`);
      else if (now !== setting) process.stderr.write(`${now}\n`);
      setting = now;
    },
    say: (text: string) => {
      process.stderr.write(clear);
      say(text);
    },
    end: () => process.stderr.write(clear),
  };
}
