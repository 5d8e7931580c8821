// One writer per run folder. The lock is a file that names its process. On the same machine it is stale when that
// process is gone; a lock of another machine or container is stale when its heartbeat (the file's mtime) has stopped.
import { readFileSync } from 'node:fs';
import { link, open, readFile, rename, rm, stat, utimes } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { ArcherError } from '../errors.js';
import { ioError } from '../io-error.js';

export const lockName = '.lock';
const heartbeatMs = 10_000;
const staleAfterMs = 60_000;
// Tells the locks and temporary names of one process apart.
let nextNumber = 1;

interface LockOwner {
  pid: number;
  host: string;
  /** Changes with every start of the machine. */
  boot: string;
  /** Clock ticks from boot to the process's start: process ids are used again, this pair is not. */
  started: string;
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

// Field 22 of /proc/<pid>/stat; the command (field 2) may itself hold blanks and brackets.
function startOf(pid: number): string {
  const text = readText(`/proc/${pid}/stat`);
  return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}

/** Whether a process of this machine is running (also one that belongs to somebody else). */
export function isProcessAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as { code?: string }).code === 'EPERM';
  }
}

function ourselves(): LockOwner {
  const boot = readText('/proc/sys/kernel/random/boot_id').trim();
  return { pid: process.pid, host: hostname(), boot, started: startOf(process.pid) };
}

function isStale(text: string, mtimeMs: number): boolean {
  const us = ourselves();
  let owner: Partial<LockOwner> | null = null;
  try {
    owner = JSON.parse(text);
  } catch {
    // Cut off while it was written: the heartbeat decides.
  }
  if (owner?.host === us.host && owner.boot === us.boot && typeof owner.pid === 'number') {
    return !isProcessAlive(owner.pid) || startOf(owner.pid) !== owner.started;
  }
  return Date.now() - mtimeMs > staleAfterMs;
}

function lockedError(runDir: string, text: string): ArcherError {
  const [, pid] = /"pid":\s*(\d+)/.exec(text) ?? [];
  const [, host] = /"host":\s*"([^"]*)"/.exec(text) ?? [];
  const by = pid === undefined ? 'another process' : `process ${pid} on ${host ?? 'another machine'}`;
  return new ArcherError(
    'ARCHER_E_IO',
    `The run folder ${runDir} is being written by ${by}. Wait for it, choose another folder, ` +
      `or, if that process is gone, remove ${join(runDir, lockName)}.`,
  );
}

// Several processes may find the same stale lock. Each moves it to a name of its own; whoever finds that it moved a
// lock other than the one it judged has moved a fresh one, and puts it back.
async function removeStale(path: string, judged: string): Promise<boolean> {
  const aside = `${path}.stale-${process.pid}-${nextNumber++}`;
  try {
    await rename(path, aside);
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOENT') return true;
    throw error;
  }
  const moved = await readFile(aside, 'utf8');
  if (moved !== judged) await link(aside, path).catch(() => {});
  await rm(aside, { force: true });
  return moved === judged;
}

/** A held lock. `release` may be called more than once. */
export interface RunLock {
  readonly path: string;
  release(): Promise<void>;
}

async function tryCreate(path: string, text: string): Promise<boolean> {
  try {
    const handle = await open(path, 'wx');
    try {
      await handle.writeFile(text);
    } finally {
      await handle.close();
    }
    return true;
  } catch (error) {
    if ((error as { code?: string }).code === 'EEXIST') return false;
    throw error;
  }
}

function hold(path: string, text: string): RunLock {
  const timer = setInterval(() => {
    const now = new Date();
    utimes(path, now, now).catch(() => {});
  }, heartbeatMs);
  timer.unref();
  return {
    path,
    async release() {
      clearInterval(timer);
      const found = await readFile(path, 'utf8').catch(() => '');
      if (found === text) await rm(path, { force: true });
    },
  };
}

/**
 * Takes the lock of a run folder; one that a dead process left is taken over.
 *
 * @throws ARCHER_E_IO where a living process holds it, or the folder cannot be written
 */
export async function lockRunFolder(runDir: string): Promise<RunLock> {
  const path = join(runDir, lockName);
  const text = `${JSON.stringify({ ...ourselves(), number: nextNumber++ })}\n`;
  try {
    for (let attempt = 0; attempt < 5; ++attempt) {
      if (await tryCreate(path, text)) return hold(path, text);
      let found: string;
      let mtimeMs: number;
      try {
        found = await readFile(path, 'utf8');
        mtimeMs = (await stat(path)).mtimeMs;
      } catch (error) {
        if ((error as { code?: string }).code === 'ENOENT') continue;
        throw error;
      }
      if (!isStale(found, mtimeMs)) throw lockedError(runDir, found);
      if (!(await removeStale(path, found))) throw lockedError(runDir, found);
    }
    throw lockedError(runDir, '');
  } catch (error) {
    throw ioError('lock', path, error);
  }
}
