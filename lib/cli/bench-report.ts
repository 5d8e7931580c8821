// What all subcommands of `bench` share: lists on the command line, progress, the table, and the report as JSON.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import pc from 'picocolors';
import { busyCores, describeMachine, load } from '../bench/machine.js';
import { machineOf } from '../bench/programs.js';
import type { BenchRow } from '../bench/statistics.js';
import { benchTable } from '../bench/table.js';
import { ArcherError, messageOf } from '../errors.js';
import { printJson } from './command.js';

export interface ReportFlags {
  json?: string | true;
}

/** What a benchmark is given to tell with, and what was measured before its start. */
export interface ReportContext {
  load: number;
  busyCores: number;
  onProgress: (what: string) => void;
  onDropped: (setting: string, name: string, reason: string) => void;
}

/** Measures, and tells: progress and table for people, {machine, load, rows} for machines. */
export async function report(
  flags: ReportFlags,
  machine: { program: string; torch?: string },
  rowsOf: (context: ReportContext) => AsyncGenerator<BenchRow[]>,
): Promise<void> {
  // After the build, which would count as load.
  const before = { load: load(), busyCores: await busyCores() };
  const result = {
    machine: describeMachine({ ...(await machineOf(machine.program)), torch: machine.torch }),
    load: { before: before.load, after: before.load, busy_cores_before: Number(before.busyCores.toFixed(2)) },
    rows: [] as BenchRow[],
  };
  const progress = progressLine();
  try {
    const onDropped = (setting: string, name: string, reason: string) =>
      progress.say(`${setting}: ${name} is left out (${reason})`);
    for await (const measured of rowsOf({ ...before, onProgress: progress.show, onDropped })) {
      result.rows.push(...measured);
      result.load.after = load();
      // After every setting: an interrupted measurement keeps what it has.
      if (typeof flags.json === 'string') writeReport(flags.json, result);
    }
  } finally {
    progress.end();
    if (flags.json !== true && result.rows.length > 0) {
      const { cpu, cores } = result.machine;
      process.stdout.write(
        `${cpu}, ${cores} processors; load ${result.load.before} before, ${result.load.after} after\n${benchTable(result.rows)}`,
      );
    }
  }
  if (flags.json === true) printJson(result);
}

export function list(option: string, text: string): string[] {
  const values = text.split(',').map((value) => value.trim());
  if (values.some((value) => value === ''))
    throw new ArcherError('ARCHER_E_CONFIG', `${option} "${text}" holds an empty value.`);
  return [...new Set(values)];
}

export function choices<Choice extends string>(option: string, text: string, known: readonly Choice[]): Choice[] {
  const values = list(option, text);
  const unknown = values.find((value) => !(known as readonly string[]).includes(value));
  if (unknown === undefined) return values as Choice[];
  throw new ArcherError(
    'ARCHER_E_CONFIG',
    `${option} ${unknown} is not known; use ${known.join(', ')}${option === '--rivals' ? ' or none' : ''}.`,
  );
}

export function count(option: string, text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 1 && value <= 1e9) return value;
  throw new ArcherError('ARCHER_E_CONFIG', `${option} ${text}: it must be a whole number of at least 1.`);
}

export function say(text: string): void {
  process.stderr.write(`${pc.yellow('note')} ${text}\n`);
}

function writeReport(file: string, value: object): void {
  const path = resolve(file);
  try {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`);
  } catch (error) {
    throw new ArcherError('ARCHER_E_IO', `--json ${file} cannot be written: ${messageOf(error)}. Name another file.`, {
      cause: error,
    });
  }
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
