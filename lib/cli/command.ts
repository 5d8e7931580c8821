// What all commands share: the shape of a command, --json and --set, interruption, and the last words of a failure.
import { type Command, InvalidArgumentError } from 'commander';
import pc from 'picocolors';
import { type ConfigInput, type LoadedConfig, loadConfig } from '../config/index.js';
import { isArcherError, messageOf } from '../errors.js';
import { exitCodeOf } from './exit.js';

export interface CommonOptions {
  json?: boolean;
  set?: string[];
}

/** What a running command may use and tell. */
export interface CommandContext {
  /** Aborted by the first Ctrl-C (or SIGTERM). */
  signal: AbortSignal;
  /** Call when the user's input has been accepted: later faults exit with 1, not 2. */
  begin: () => void;
}

const collect = (value: string, before: string[] = []) => [...before, value];

/** Adds --set and --json. */
export function withCommonOptions(command: Command): Command {
  return command
    .option('-s, --set <key=value>', 'override a configuration key, e.g. --set actor.optim.lr=1e-5 (repeatable)', collect)
    .option('--json', 'print JSON for machines instead of text');
}

/** Configuration of a command: a file if one is named, then `extra` keys of the command's own flags, then --set. */
export function loadFor(file: string | undefined, options: CommonOptions, extra: ConfigInput = {}): LoadedConfig {
  const flags = Object.entries(flatten(extra)).map(([key, value]) => `${key}=${JSON.stringify(value)}`);
  return loadConfig({ file, sets: [...flags, ...(options.set ?? [])] });
}

function flatten(node: object, prefix = ''): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(node).flatMap(([key, value]) => {
      if (value === undefined) return [];
      const isSection = typeof value === 'object' && value !== null && !Array.isArray(value);
      return isSection ? Object.entries(flatten(value, `${prefix}${key}.`)) : [[`${prefix}${key}`, value]];
    }),
  );
}

/** A command-line number; the option's range is checked by the configuration. */
export function toNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw new InvalidArgumentError(`${text} is not a number.`);
  return value;
}

/** Runs a command's work: Ctrl-C once interrupts it, twice leaves at once; failures become one sentence and an exit code. */
export async function runCommand(
  options: CommonOptions,
  work: (context: CommandContext) => Promise<void>,
  whenInterrupted = 'Interrupted: saving what is done. Press Ctrl-C again to leave at once.',
): Promise<void> {
  const abort = new AbortController();
  let began = false;
  const interrupt = () => {
    if (abort.signal.aborted) process.exit(130);
    process.stderr.write(`\n${whenInterrupted}\n`);
    abort.abort();
  };
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  try {
    await work({
      signal: abort.signal,
      begin: () => {
        began = true;
      },
    });
  } catch (error) {
    report(error, options.json ?? false);
    process.exitCode = exitCodeOf(error, began);
  } finally {
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
  }
}

function report(error: unknown, json: boolean): void {
  const code = isArcherError(error) ? error.code : 'ARCHER_E_INTERNAL';
  if (json) process.stdout.write(`${JSON.stringify({ error: { code, message: messageOf(error) } })}\n`);
  if (code === 'ARCHER_E_ABORTED') return;
  process.stderr.write(`${pc.red('error')} ${pc.dim(code)} ${messageOf(error)}\n`);
  const isOurFault = code === 'ARCHER_E_INTERNAL' && error instanceof Error;
  if (isOurFault) process.stderr.write(`${pc.dim(error.stack ?? '')}\n`);
}

/** One line of JSON on stdout. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
