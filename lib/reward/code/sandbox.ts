// The strongest isolation that works here, found by trying it: bubblewrap (namespaces: own processes, no network, a file
// system of the interpreter and an empty /tmp), else rlimits. In both python3 adds limits and, where the kernel has them,
// seccomp and Landlock (rights.py); where there is no python3 that can be isolated, Python in WebAssembly takes its place
// (pyodide.ts). docs/code-verifier.md says what each level prevents.

import { execFile } from 'node:child_process';
import { readdirSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { availableParallelism, release } from 'node:os';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { ArcherError, messageOf } from '../../errors.js';
import { type Command, type SandboxProcess, startProcess } from './process.js';
import { findPyodide } from './pyodide.js';

export const isolationLevels = ['bubblewrap', 'rlimits'] as const;
export type Isolation = (typeof isolationLevels)[number];

export const interpreters = ['python3', 'pyodide'] as const;
export type InterpreterKind = (typeof interpreters)[number];

export interface SandboxOptions {
  /** The one interpreter to use; auto: python3, and where none can be isolated pyodide. */
  interpreter: 'auto' | InterpreterKind;
  /** The one level to use; auto: the strongest that works. */
  isolation: 'auto' | Isolation;
  /** For one process, in MiB of address space. */
  memoryMiB: number;
}

export interface SandboxJob {
  mode: 'program' | 'serve' | 'check' | 'probe';
  code: string;
  /** Of test code that defines `check`. */
  entryPoint?: string | undefined;
  /** CPU time of the process, in whole seconds. */
  cpuSeconds: number;
  /** Standard input of a program. */
  input?: string;
  outputBytes: number;
}

export interface Sandbox {
  isolation: Isolation;
  interpreter: InterpreterKind;
  /** "bubblewrap with seccomp, Python 3.11.2 (/usr/bin/python3.11)" */
  description: string;
  start(job: SandboxJob): SandboxProcess;
}

export interface Limits {
  /** For Python's own memory. */
  memoryMiB: number;
  cpuSeconds: number;
  /** Threads included. */
  processes: number;
  /** In namespaces of its own. */
  confined: boolean;
}

/** What runs the harness. */
export interface Interpreter {
  kind: InterpreterKind;
  /** What follows the version in a description. */
  place: string;
  /** What it reads outside /usr, /lib and /bin. */
  folders: string[];
  command(limits: Limits): { argv: string[]; image?: number | undefined };
  /** Before the first start that counts. */
  prepare?(start: Sandbox['start']): Promise<void>;
}

const textOf = (name: string) => readFileSync(new URL(name, import.meta.url), 'utf8');
const harness = textOf('./harness.py');
const nobody = 65534;
const fileMiB = 64;
const threads = 64;
const probeSeconds = 20;
const isRoot = process.getuid?.() === 0;

/** @throws ArcherError ARCHER_E_REWARD when no level works, with what each one said. */
export async function findSandbox({ interpreter, isolation, memoryMiB }: SandboxOptions): Promise<Sandbox> {
  const failures: string[] = [];
  for (const kind of interpreter === 'auto' ? interpreters : [interpreter]) {
    const candidates = kind === 'python3' ? await findPythons() : findPyodides();
    if (candidates.length === 0) failures.push(`there is no ${kind}`);
    for (const level of isolation === 'auto' ? isolationLevels : [isolation]) {
      for (const candidate of candidates) {
        const start = starter(level, candidate, memoryMiB);
        const said = await probe(candidate, start);
        if ('failure' in said) {
          failures.push(`${level} with ${candidate.place}: ${said.failure}`);
          continue;
        }
        const added = said.held.length === 0 ? '' : ` with ${said.held.join(' and ')}`;
        const description = `${level}${added}, Python ${said.version} ${candidate.place}`;
        return { isolation: level, interpreter: kind, start, description };
      }
    }
  }
  throw new ArcherError(
    'ARCHER_E_REWARD',
    `No sandbox for judged programs works here: ${failures.join('; ')}. Install python3 and bubblewrap, or pyodide (npm install pyodide), or choose another reward.`,
  );
}

/** The interpreters that may be meant by python3; a sandbox for which the first is out of reach takes the next. */
async function findPythons(): Promise<Interpreter[]> {
  const found = new Map<string, Interpreter>();
  for (const name of ['python3', '/usr/bin/python3', '/usr/local/bin/python3']) {
    try {
      const { stdout } = await promisify(execFile)(name, [
        '-I',
        '-S',
        '-c',
        'import sys; print(sys.executable); print(sys.base_prefix)',
      ]);
      const [executable = '', prefix = ''] = stdout.trim().split('\n');
      const real = realpathSync(executable);
      const argv = [real, '-s', '-S', '-B', '-c', `${textOf('./rights.py')}${harness}main()\n`];
      if (!found.has(real)) {
        const folders = [realpathSync(prefix), dirname(real)];
        found.set(real, { kind: 'python3', place: `(${real})`, folders, command: () => ({ argv }) });
      }
    } catch {
      // Not there.
    }
  }
  return [...found.values()];
}

function findPyodides(): Interpreter[] {
  const found = findPyodide(`${textOf('./pyodide-rights.py')}${harness}`);
  return found === undefined ? [] : [found];
}

/** The same hash seed for every run, so that an answer that prints a set gets the same verdict every time. */
const environment = {
  PATH: '/usr/local/bin:/usr/bin:/bin',
  HOME: '/tmp',
  LC_ALL: 'C.UTF-8',
  PYTHONHASHSEED: '0',
  PYTHONIOENCODING: 'utf-8',
};

function starter(level: Isolation, interpreter: Interpreter, memoryMiB: number): Sandbox['start'] {
  const confined = level === 'bubblewrap';
  const processes = processLimit(confined);
  const system = ['/usr', '/lib', '/lib64', '/bin', '/etc/ld.so.cache', '/dev/null', '/dev/urandom'];
  const readable = confined ? '' : [...system, ...interpreter.folders].join(':');
  return ({ mode, code, entryPoint, cpuSeconds, input, outputBytes }) => {
    const command = interpreter.command({ memoryMiB, cpuSeconds, processes, confined });
    const fileBytes = confined ? fileMiB * 2 ** 20 : 0;
    const limits = [memoryMiB * 2 ** 20, cpuSeconds, fileBytes, processes, Buffer.byteLength(code)];
    const header = [mode, entryPoint ?? '', readable, ...limits].join('\t');
    return startProcess(confined ? bubblewrap(command, interpreter.folders) : plain(command), {
      job: `${header}\n${code}`,
      input: mode === 'program' ? (input ?? '') : undefined,
      outputBytes,
    });
  };
}

/**
 * The limit counts threads: since Linux 5.14 those of the sandbox's own user namespace; before, and without one, all of
 * the user's. Those of an ordinary user may become more while a program runs; root's programs share a user of their own.
 */
function processLimit(confined: boolean): number {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  if (confined && (major > 5 || (major === 5 && minor >= 14))) return threads;
  const uid = isRoot ? nobody : process.getuid?.();
  let running = 0;
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      if (statSync(`/proc/${pid}`).uid === uid) running += readdirSync(`/proc/${pid}/task`).length;
    } catch {
      // It has ended meanwhile.
    }
  }
  return running + (isRoot ? threads + 2 * availableParallelism() : 1024);
}

/** As root the process limit would not bind, nor would file permissions. */
const unprivileged = isRoot ? { uid: nobody, gid: nobody } : {};

type Started = ReturnType<Interpreter['command']>;

function plain({ argv: [file = '', ...args], image }: Started): Command {
  return { file, args, env: environment, image, signalsAsStatus: false, ...unprivileged };
}

function bubblewrap({ argv, image }: Started, own: string[]): Command {
  const folders = ['/usr', '/lib', '/lib64', '/bin'].flatMap((path) => ['--ro-bind-try', path, path]);
  const args = [
    ...['--unshare-all', '--die-with-parent', '--new-session', '--cap-drop', 'ALL'],
    ...folders,
    ...['--ro-bind-try', '/etc/ld.so.cache', '/etc/ld.so.cache'],
    ...own.filter((path) => !path.startsWith('/usr')).flatMap((path) => ['--ro-bind', path, path]),
    // No /proc: through it a program could rewrite bubblewrap's own process, which has none of the limits.
    ...['--dev', '/dev', '--remount-ro', '/dev'],
    ...['--size', String(fileMiB * 2 ** 20), '--tmpfs', '/tmp', '--chdir', '/tmp', '--remount-ro', '/'],
    ...['--', ...argv],
  ];
  return { file: 'bwrap', args, env: environment, image, signalsAsStatus: true, ...unprivileged };
}

type Said = { held: string[]; version: string } | { failure: string };

async function probe(interpreter: Interpreter, start: Sandbox['start']): Promise<Said> {
  try {
    await interpreter.prepare?.(start);
    const trial = start({ mode: 'probe', code: '', cpuSeconds: probeSeconds, outputBytes: 2 ** 16 });
    const timer = setTimeout(() => trial.stop('time'), probeSeconds * 1000);
    const line = await trial.receive();
    const { stderr, stoppedFor } = await trial.ended;
    clearTimeout(timer);
    if (line !== undefined) return JSON.parse(line) as { held: string[]; version: string };
    return {
      failure:
        stoppedFor === 'time'
          ? `no answer within ${probeSeconds} s`
          : stderr.trim().split('\n').at(-1) || 'it ended without a word',
    };
  } catch (error) {
    return { failure: messageOf(error) };
  }
}
