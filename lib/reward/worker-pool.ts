// Worker processes for built-in verifiers and reward modules. One response at a time per worker; past its time a worker is
// killed (SIGKILL, with whatever it started) and a new one takes its place, so a hang, an exception, process.exit() or
// running out of memory costs the response it happened on and no other.

import { type ChildProcess, fork } from 'node:child_process';
import { statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { extname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ArcherError } from '../errors.js';
import type { BuiltinOptions } from './builtin.js';
import { excusedSince, startClock } from './process-time.js';
import type { RewardInput, ScoreOptions, Verdict } from './types.js';
import { crash, timeout, toVerdict } from './verdict.js';

const workerFile = fileURLToPath(new URL('./worker.mjs', import.meta.url));
const startSeconds = 60;
const heapMiB = 1024;

export interface WorkerPoolOptions {
  /** A module, relative paths from the working directory, or built-in verifiers. */
  judge: { path: string } | { builtin: BuiltinOptions };
  /** For one response. */
  timeoutSeconds: number;
  /** Worker processes. Default: the number of cores. They are started as they are needed. */
  workers?: number;
  /** Silence after which progress names the response that everybody waits for. Default 5. */
  heartbeatSeconds?: number;
}

export interface WorkerPool {
  /** Verdicts in the order of the inputs. One call at a time. */
  scoreAll(inputs: readonly RewardInput[], options?: ScoreOptions): Promise<Verdict[]>;
  /** Kills the workers. Twice is fine. */
  dispose(): Promise<void>;
}

type FromWorker =
  | { type: 'ready' }
  | { type: 'refused'; message: string }
  | { type: 'verdict'; id: number; value: unknown }
  | { type: 'threw'; id: number; message: string }
  | { type: 'stage'; id: number; message: string }
  | { type: 'notice'; message: string }
  | { type: 'stray'; message: string };

interface Worker {
  judge(input: RewardInput, stage: (text: string) => void): Promise<Verdict>;
  isAlive(): boolean;
  kill(): void;
}

/** What a worker loads, as its argument and in words. */
interface Loaded {
  argument: string;
  name: string;
  timeoutSeconds: number;
  /** What of the time of a worker's job does not count: a module may wait for a network, a built-in verifier does not. */
  excused: (pid: number) => () => number;
  /** Told once what a worker has to say about this machine. */
  notice: (text: string) => void;
}

/**
 * Starts a pool and loads what judges in its first worker.
 *
 * @throws ArcherError ARCHER_E_REWARD: a module is missing, cannot be loaded, or has no default function; a built-in
 * verifier does not work on this machine.
 */
export async function createWorkerPool(options: WorkerPoolOptions): Promise<WorkerPool> {
  const { heartbeatSeconds = 5 } = options;
  const loaded = whatToLoad(options);
  const size = Math.max(1, options.workers ?? availableParallelism());
  const workers = new Set<Worker>();
  const idle: Worker[] = [];
  let disposed = false;
  let busy = false;

  const start = async (): Promise<Worker> => {
    const worker = await startWorker(loaded, workers);
    if (disposed) worker.kill();
    return worker;
  };
  const killAll = () => {
    for (const worker of workers) worker.kill();
    idle.length = 0;
  };
  const killOnExit = () => killAll();
  idle.push(await start());
  process.on('exit', killOnExit);

  return {
    async scoreAll(inputs, { signal, onProgress } = {}) {
      if (disposed) throw new ArcherError('ARCHER_E_DISPOSED', 'The reward workers have been disposed of.');
      if (busy) throw new ArcherError('ARCHER_E_INTERNAL', 'The reward workers are already scoring.');
      if (signal?.aborted) throw abortedError();
      busy = true;
      const verdicts: Verdict[] = new Array(inputs.length);
      let next = 0;
      let done = 0;
      const judged = new Map<number, { sinceMs: number; stage: string }>();
      let spokenMs = performance.now();
      const report = (waiting?: { index: number; seconds: number; stage: string }) => {
        spokenMs = performance.now();
        onProgress?.({ done, total: inputs.length, ...(waiting === undefined ? {} : { waiting }) });
      };
      const heartbeat = setInterval(() => {
        const now = performance.now();
        // A Map keeps the order of insertion: the first is the one that has been judged for longest.
        const [oldest] = judged;
        if (oldest === undefined || now - spokenMs < heartbeatSeconds * 1000) return;
        const [index, { sinceMs, stage }] = oldest;
        report({ index, seconds: (now - sinceMs) / 1000, stage });
      }, heartbeatSeconds * 200);
      signal?.addEventListener('abort', killAll, { once: true });
      const lane = async () => {
        let worker: Worker | undefined;
        while (next < inputs.length && !signal?.aborted && !disposed) {
          const at = next;
          next += 1;
          if (worker === undefined || !worker.isAlive()) worker = takeIdle(idle) ?? (await start());
          const own = { sinceMs: performance.now(), stage: '' };
          judged.set(at, own);
          verdicts[at] = await worker.judge(inputs[at] as RewardInput, (text) => {
            own.stage = text;
          });
          judged.delete(at);
          done += 1;
          if (!signal?.aborted) report();
        }
        if (worker?.isAlive()) idle.push(worker);
      };
      try {
        const lanes = await Promise.allSettled(Array.from({ length: Math.min(size, inputs.length) }, lane));
        if (signal?.aborted) throw abortedError();
        if (disposed) throw new ArcherError('ARCHER_E_DISPOSED', 'The reward workers were disposed of while scoring.');
        const failed = lanes.find((result) => result.status === 'rejected');
        if (failed !== undefined) throw failed.reason;
        return verdicts;
      } finally {
        clearInterval(heartbeat);
        signal?.removeEventListener('abort', killAll);
        busy = false;
      }
    },
    async dispose() {
      disposed = true;
      process.off('exit', killOnExit);
      killAll();
    },
  };
}

function takeIdle(idle: Worker[]): Worker | undefined {
  for (let worker = idle.pop(); worker !== undefined; worker = idle.pop()) {
    if (worker.isAlive()) return worker;
  }
  return undefined;
}

function whatToLoad({ judge, timeoutSeconds }: WorkerPoolOptions): Loaded {
  const said = new Set<string>();
  const notice = (text: string) => {
    if (!said.has(text)) process.emitWarning(text, { code: 'ARCHER_W_REWARD' });
    said.add(text);
  };
  if ('builtin' in judge) {
    const name = `verifier ${judge.builtin.name ?? 'by data_source'}`;
    return { argument: JSON.stringify(judge), name, timeoutSeconds, notice, excused: excusedSince };
  }
  const file = resolve(judge.path);
  checkModule(file);
  const argument = JSON.stringify({ module: file });
  return { argument, name: `module ${file}`, timeoutSeconds, notice, excused: () => () => 0 };
}

function checkModule(file: string): void {
  const stat = statSync(file, { throwIfNoEntry: false });
  if (stat === undefined || !stat.isFile()) {
    throw new ArcherError('ARCHER_E_REWARD', `The reward module ${file} does not exist; check reward.path.`);
  }
  const extension = extname(file);
  const strips = Boolean((process.features as { typescript?: unknown }).typescript);
  if ((extension === '.ts' || extension === '.mts') && !strips) {
    throw new ArcherError(
      'ARCHER_E_REWARD',
      `${file} is TypeScript, which Node ${process.version} does not run (22.18 and newer do); compile it, or write it as .mjs.`,
    );
  }
  if (!['.js', '.mjs', '.cjs', '.ts', '.mts'].includes(extension)) {
    throw new ArcherError(
      'ARCHER_E_REWARD',
      `${file} is no JavaScript module; reward.path names a .js, .mjs or .cjs file.`,
    );
  }
}

async function startWorker(loaded: Loaded, alive: Set<Worker>): Promise<Worker> {
  const { timeoutSeconds } = loaded;
  // detached: a process group of its own, so that Ctrl-C in the terminal reaches the trainer alone (it saves first) and
  // killing the group also ends what the module started. What the module prints goes to stderr: stdout may be JSON.
  const child = fork(workerFile, [loaded.argument], {
    serialization: 'advanced',
    detached: true,
    execArgv: [`--max-old-space-size=${heapMiB}`],
    stdio: ['ignore', 2, 2, 'ipc'],
  });
  let onMessage: (message: FromWorker) => void = () => {};
  let onEnd: (reason: string) => void = () => {};
  let ended: string | undefined;
  const end = (reason: string) => {
    if (ended !== undefined) return;
    ended = reason;
    alive.delete(worker);
    onEnd(reason);
  };
  child.on('message', (message) => onMessage(message as FromWorker));
  child.on('exit', (code, signal) => end(exitReason(code, signal)));
  child.on('error', (error) => end(error.message));

  let jobs = 0;
  let stray = '';
  const worker: Worker = {
    isAlive: () => ended === undefined,
    kill: () => {
      killGroup(child);
      end('it was killed');
    },
    judge: (input, stage) =>
      new Promise((settle) => {
        jobs += 1;
        const id = jobs;
        let reached = '';
        const finish = (verdict: Verdict) => {
          clock.stop();
          onMessage = keepStray;
          onEnd = () => {};
          setReferenced(child, false);
          settle(verdict);
        };
        const end = () => {
          const note = `${reached === '' ? '' : `, at ${reached}`}${stray === '' ? '' : `; an exception outside of the call: ${stray}`}`;
          finish(timeout(timeoutSeconds, note));
          worker.kill();
        };
        const clock = startClock(timeoutSeconds, loaded.excused(child.pid as number), end);
        onEnd = (reason) => finish(crash(`the reward process ended: ${reason}`));
        onMessage = (message) => {
          if (message.type === 'verdict' && message.id === id) finish(toVerdict(message.value));
          else if (message.type === 'threw' && message.id === id) finish(crash(message.message));
          else if (message.type === 'stage' && message.id === id) {
            reached = message.message;
            stage(reached);
          } else keepStray(message);
        };
        if (ended !== undefined) return onEnd(ended);
        stray = '';
        setReferenced(child, true);
        child.send({ id, input }, (error) => {
          if (error !== null) worker.kill();
        });
      }),
  };
  const keepStray = (message: FromWorker) => {
    if (message.type === 'stray') stray = message.message;
    if (message.type === 'notice') loaded.notice(message.message);
  };
  alive.add(worker);

  await new Promise<void>((ready, refuse) => {
    const fail = (reason: string) => {
      clearTimeout(timer);
      onEnd = () => {};
      killGroup(child);
      refuse(new ArcherError('ARCHER_E_REWARD', `The reward ${loaded.name} cannot be used: ${reason}.`));
    };
    const timer = setTimeout(() => fail(`loading it took more than ${startSeconds} s`), startSeconds * 1000);
    onEnd = fail;
    onMessage = (message) => {
      if (message.type === 'refused') fail(message.message);
      if (message.type === 'notice') loaded.notice(message.message);
      if (message.type !== 'ready') return;
      clearTimeout(timer);
      onEnd = () => {};
      onMessage = keepStray;
      ready();
    };
  });
  setReferenced(child, false);
  return worker;
}

/** An idle worker must not keep a program running that forgot to dispose of it. */
function setReferenced(child: ChildProcess, referenced: boolean): void {
  if (referenced) {
    child.ref();
    child.channel?.ref();
  } else {
    child.unref();
    child.channel?.unref();
  }
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    child.kill('SIGKILL');
  }
}

function exitReason(code: number | null, signal: NodeJS.Signals | null): string {
  if (signal === 'SIGABRT') return `signal SIGABRT (out of memory? a worker may use ${heapMiB} MiB of heap)`;
  return signal !== null ? `signal ${signal}` : `exit code ${code}`;
}

function abortedError(): ArcherError {
  return new ArcherError('ARCHER_E_ABORTED', 'Scoring was interrupted.');
}
