// The strongest isolation that works here, found by trying it: bubblewrap (namespaces: own processes, no network, a file
// system of the interpreter and an empty /tmp), else rlimits. In both the harness adds its own limits and, where the kernel
// has them, seccomp and Landlock. docs/code-verifier.md says what each level prevents.

import { execFile } from 'node:child_process';
import { readdirSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { availableParallelism, release } from 'node:os';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { ArcherError, messageOf } from '../../errors.js';
import { type Command, type SandboxProcess, startProcess } from './process.js';

export const isolationLevels = ['bubblewrap', 'rlimits'] as const;
export type Isolation = (typeof isolationLevels)[number];

export interface SandboxOptions {
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
  /** "bubblewrap with seccomp, Python 3.11.2 (/usr/bin/python3.11)" */
  description: string;
  start(job: SandboxJob): SandboxProcess;
}

const harness = readFileSync(new URL('./harness.py', import.meta.url), 'utf8');
const nobody = 65534;
const fileMiB = 64;
const threads = 64;
const probeSeconds = 20;
const isRoot = process.getuid?.() === 0;

/** @throws ArcherError ARCHER_E_REWARD when no level works, with what each one said. */
export async function findSandbox({ isolation, memoryMiB }: SandboxOptions): Promise<Sandbox> {
  const pythons = await findPythons();
  const failures: string[] = pythons.length === 0 ? ['there is no python3'] : [];
  for (const level of isolation === 'auto' ? isolationLevels : [isolation]) {
    for (const python of pythons) {
      const start = starter(level, python, memoryMiB);
      const said = await probe(start);
      if ('failure' in said) {
        failures.push(`${level} with ${python.executable}: ${said.failure}`);
        continue;
      }
      const added = said.held.length === 0 ? '' : ` with ${said.held.join(' and ')}`;
      return {
        isolation: level,
        start,
        description: `${level}${added}, Python ${said.version} (${python.executable})`,
      };
    }
  }
  throw new ArcherError(
    'ARCHER_E_REWARD',
    `No sandbox for judged programs works here: ${failures.join('; ')}. Install python3 and bubblewrap, or choose another reward.`,
  );
}

interface Python {
  executable: string;
  /** Where its library lies. */
  prefix: string;
}

/** The interpreters that may be meant by python3; a sandbox for which the first is out of reach takes the next. */
async function findPythons(): Promise<Python[]> {
  const found = new Map<string, Python>();
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
      if (!found.has(real)) found.set(real, { executable: real, prefix: realpathSync(prefix) });
    } catch {
      // Not there.
    }
  }
  return [...found.values()];
}

/** The same hash seed for every run, so that an answer that prints a set gets the same verdict every time. */
const environment = {
  PATH: '/usr/local/bin:/usr/bin:/bin',
  HOME: '/tmp',
  LC_ALL: 'C.UTF-8',
  PYTHONHASHSEED: '0',
  PYTHONIOENCODING: 'utf-8',
};

function starter(level: Isolation, python: Python, memoryMiB: number): Sandbox['start'] {
  const command = level === 'bubblewrap' ? bubblewrap(python) : plain(python);
  const memoryBytes = memoryMiB * 2 ** 20;
  const confined = level === 'bubblewrap';
  const processes = processLimit(confined);
  const readable = [
    '/usr',
    '/lib',
    '/lib64',
    '/bin',
    python.prefix,
    dirname(python.executable),
    '/etc/ld.so.cache',
    '/dev/null',
    '/dev/urandom',
  ];
  return ({ mode, code, entryPoint, cpuSeconds, input, outputBytes }) => {
    const limits = [memoryBytes, cpuSeconds, confined ? fileMiB * 2 ** 20 : 0, processes, Buffer.byteLength(code)];
    const header = [mode, entryPoint ?? '', confined ? '' : readable.join(':'), ...limits].join('\t');
    return startProcess(command, {
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

const pythonArgs = ['-s', '-S', '-B', '-c', harness];

/** As root the process limit would not bind, nor would file permissions. */
const unprivileged = isRoot ? { uid: nobody, gid: nobody } : {};

function plain(python: Python): Command {
  return { file: python.executable, args: pythonArgs, env: environment, signalsAsStatus: false, ...unprivileged };
}

function bubblewrap(python: Python): Command {
  const folders = ['/usr', '/lib', '/lib64', '/bin'].flatMap((path) => ['--ro-bind-try', path, path]);
  const own = python.prefix.startsWith('/usr') ? [] : ['--ro-bind', python.prefix, python.prefix];
  const args = [
    ...['--unshare-all', '--die-with-parent', '--new-session', '--cap-drop', 'ALL'],
    ...folders,
    ...['--ro-bind-try', '/etc/ld.so.cache', '/etc/ld.so.cache'],
    ...own,
    // No /proc: through it a program could rewrite bubblewrap's own process, which has none of the limits.
    ...['--dev', '/dev', '--remount-ro', '/dev'],
    ...['--size', String(fileMiB * 2 ** 20), '--tmpfs', '/tmp', '--chdir', '/tmp', '--remount-ro', '/'],
    ...['--', python.executable, ...pythonArgs],
  ];
  return { file: 'bwrap', args, env: environment, signalsAsStatus: true, ...unprivileged };
}

async function probe(start: Sandbox['start']): Promise<{ held: string[]; version: string } | { failure: string }> {
  try {
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
