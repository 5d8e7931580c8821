// What the set-up scripts share: the package root, an error that is a sentence for people, running programs, a progress
// line. Plain Node without dependencies: these scripts run before anything is installed or compiled.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

export const packageRoot = dirname(dirname(fileURLToPath(import.meta.url)));

/** A failure that the user can act on: printed as it is, without a stack. */
export class SetupError extends Error {
  constructor(message, options) {
    super(message, options);
    this.name = 'SetupError';
    this.code = 'ARCHER_E_SETUP';
  }
}

/** True where `url` is the script that node was started with. */
export function isMain(url) {
  return process.argv[1] !== undefined && pathToFileURL(realpathSync(process.argv[1])).href === url;
}

/** Runs a command-line entry point: a SetupError becomes one sentence and exit status 1. */
export async function runMain(main) {
  try {
    process.exitCode = (await main(process.argv.slice(2))) ?? 0;
  } catch (error) {
    if (error?.name !== 'SetupError') throw error;
    process.stderr.write(`archer-native: ${error.message}\n`);
    process.exitCode = 1;
  }
}

export function log(message) {
  process.stderr.write(`archer-native: ${message}\n`);
}

export function readJson(path) {
  return JSON.parse(readFileSync(path, 'utf8'));
}

/** Output of a short command, or undefined where the program is missing or fails. */
export function capture(command, args, options = {}) {
  const result = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 26, ...options });
  return result.error || result.status !== 0 ? undefined : result.stdout;
}

/** Runs a program to its end; stdout and stderr go to `onData` (or the terminal). Resolves to its exit status. */
export function run(command, args, { onData, ...options } = {}) {
  return new Promise((resolve) => {
    const stdio = onData ? ['ignore', 'pipe', 'pipe'] : ['ignore', 'inherit', 'inherit'];
    const child = spawn(command, args, { stdio, ...options });
    child.stdout?.on('data', onData);
    child.stderr?.on('data', onData);
    child.on('error', (error) => {
      onData?.(Buffer.from(`${error.message}\n`));
      resolve(127);
    });
    child.on('close', (code, signal) => resolve(signal ? 128 : code));
  });
}

/** [major, minor] of the first x.y in a text. */
export function parseVersion(text) {
  const match = /(\d+)\.(\d+)/.exec(text ?? '');
  return match ? [Number(match[1]), Number(match[2])] : undefined;
}

export function atLeast(version, minimum) {
  return version[0] > minimum[0] || (version[0] === minimum[0] && version[1] >= minimum[1]);
}

export function formatBytes(bytes) {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.round(bytes / 1e6)} MB`;
}

/** A bar that redraws itself on a terminal, a line per quarter elsewhere. `total` may be 0 (unknown). */
export class Progress {
  #label;
  #total;
  #stream;
  #printed = -1;
  #drawnAt = 0;

  constructor(label, total, stream = process.stderr) {
    this.#label = label;
    this.#total = total;
    this.#stream = stream;
  }

  update(done) {
    const share = this.#total > 0 ? Math.min(1, done / this.#total) : 0;
    if (this.#stream.isTTY) {
      const now = Date.now();
      if (now - this.#drawnAt < 100 && share < 1) return;
      this.#drawnAt = now;
      const filled = Math.round(share * 24);
      const bar = `${'█'.repeat(filled)}${'░'.repeat(24 - filled)}`;
      const amount = this.#total > 0 ? `${formatBytes(done)} of ${formatBytes(this.#total)}` : formatBytes(done);
      this.#stream.write(`\r\u001b[2K${this.#label} ${bar} ${amount}`);
    } else if (this.#total > 0 && Math.floor(share * 4) > this.#printed) {
      this.#printed = Math.floor(share * 4);
      if (this.#printed > 0) this.#stream.write(`${this.#label}: ${this.#printed * 25} %\n`);
    }
  }

  end() {
    if (this.#stream.isTTY) this.#stream.write('\r\u001b[2K');
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** Runs `work` while holding a lock file; waits for a living holder, takes over from a dead one. */
export async function withLock(path, work) {
  mkdirSync(dirname(path), { recursive: true });
  let told = false;
  for (;;) {
    try {
      writeFileSync(path, String(process.pid), { flag: 'wx' });
      break;
    } catch (error) {
      if (error.code !== 'EEXIST') {
        throw new SetupError(`${dirname(path)} cannot be written (${error.code}). Make it writable for this user.`);
      }
    }
    let holder;
    let ageMs;
    try {
      holder = readFileSync(path, 'utf8');
      ageMs = Date.now() - statSync(path).mtimeMs;
    } catch {
      continue; // released in between
    }
    // An empty file is a holder between creating and writing it, unless it stays so.
    if (holder === '' ? ageMs > 10_000 : !isAlive(Number(holder))) {
      rmSync(path, { force: true });
      continue;
    }
    if (!told) log(`process ${holder} is building here; waiting for it (${path} is its lock).`);
    told = true;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  try {
    return await work();
  } finally {
    rmSync(path, { force: true });
  }
}
