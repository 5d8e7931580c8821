// One process in the sandbox: its job and the lines it exchanges with us on descriptor 3, what it prints, its limits in
// time and output, and how it ended. Killing takes the whole process group, and with bubblewrap the whole PID namespace.

import { type ChildProcess, spawn } from 'node:child_process';
import type { Duplex } from 'node:stream';

/** How a process is started inside the sandbox; made by sandbox.ts. */
export interface Command {
  file: string;
  args: string[];
  uid?: number;
  gid?: number;
  env: Record<string, string>;
  /** An open file that it reads on descriptor 4. */
  image?: number | undefined;
  /** bubblewrap reports a signal n as exit status 128 + n. */
  signalsAsStatus: boolean;
}

export type StopReason = 'time' | 'output' | 'start';

export interface Ended {
  status: number | null;
  signal: string | null;
  /** What we ended it for, where we did. */
  stoppedFor?: StopReason;
  /** What it printed, where that was asked for. */
  stdout: string;
  /** The end of what it wrote to stderr. */
  stderr: string;
  seconds: number;
}

export interface SandboxProcess {
  readonly ended: Promise<Ended>;
  /** Sends one line. A process that is gone swallows it. */
  send(line: string): void;
  /** The next line it sends, or undefined once it has ended. */
  receive(): Promise<string | undefined>;
  readonly pid: number | undefined;
  /** Settles when its limits hold and the answer begins, or when it has ended before. */
  readonly started: Promise<unknown>;
  stop(reason?: StopReason): void;
}

export interface StartOptions {
  /** What stands first on descriptor 3. */
  job: string;
  /** Standard input; with it standard output is collected. Without it both are /dev/null. */
  input?: string;
  /** Bytes on standard output, or waiting on descriptor 3, past which the process is ended. */
  outputBytes: number;
}

const stderrBytes = 4096;
const startSeconds = 60;
const maxStderrBytes = 16 * 2 ** 20;
const signalNames: Record<number, string> = {
  4: 'SIGILL',
  5: 'SIGTRAP',
  6: 'SIGABRT',
  7: 'SIGBUS',
  8: 'SIGFPE',
  9: 'SIGKILL',
  11: 'SIGSEGV',
  15: 'SIGTERM',
  24: 'SIGXCPU',
  25: 'SIGXFSZ',
  31: 'SIGSYS',
};

export function startProcess(command: Command, { job, input, outputBytes }: StartOptions): SandboxProcess {
  const began = performance.now();
  const printed = input === undefined ? 'ignore' : 'pipe';
  const child = spawn(command.file, command.args, {
    cwd: '/',
    detached: true,
    env: command.env,
    stdio: [printed, printed, 'pipe', 'pipe', ...(command.image === undefined ? [] : [command.image])],
    ...(command.uid === undefined ? {} : { uid: command.uid, gid: command.gid }),
  });
  let stoppedFor: StopReason | undefined;
  let exited = false;
  const stop = (reason?: StopReason) => {
    stoppedFor ??= reason;
    if (!exited) killGroup(child);
    // Whoever left the group and still holds the other ends must not keep us waiting.
    for (const stream of child.stdio) stream?.destroy();
  };

  const stdout: Buffer[] = [];
  let printedBytes = 0;
  child.stdout?.on('data', (chunk: Buffer) => {
    printedBytes += chunk.length;
    if (printedBytes > outputBytes) return stop('output');
    stdout.push(chunk);
  });
  let stderr = '';
  let stderrSeen = 0;
  child.stderr?.on('data', (chunk: Buffer) => {
    stderrSeen += chunk.length;
    if (stderrSeen > maxStderrBytes) return stop('output');
    stderr = (stderr + chunk.toString('utf8')).slice(-stderrBytes);
  });
  // A process that ends before it has read everything is no fault of ours.
  const ignore = () => {};
  child.stdin?.on('error', ignore);
  child.stdin?.end(input);

  const channel = child.stdio[3] as Duplex;
  channel.on('error', ignore);
  channel.write(job);
  const lines = lineReader(channel, outputBytes, () => stop('output'));

  const ended = new Promise<Ended>((resolve) => {
    let failure: Error | undefined;
    const finish = (code: number | null, signal: string | null) => {
      lines.end();
      const named = command.signalsAsStatus && code !== null && code > 128 ? signalNames[code - 128] : undefined;
      resolve({
        status: named === undefined ? code : null,
        signal: named ?? signal,
        ...(stoppedFor === undefined ? {} : { stoppedFor }),
        stdout: Buffer.concat(stdout).toString('utf8'),
        stderr: failure?.message ?? stderr,
        seconds: (performance.now() - began) / 1000,
      });
    };
    child.on('error', (error) => {
      failure = error;
      finish(null, null);
    });
    child.on('exit', () => {
      exited = true;
      killGroup(child); // who is left of the group
    });
    child.on('close', finish);
  });

  // The first line says that the answer begins. What comes before it, on a busy machine, is no fault of the answer.
  const startTimer = setTimeout(() => stop('start'), startSeconds * 1000);
  const started = lines.next().finally(() => clearTimeout(startTimer));

  return {
    ended,
    started,
    pid: child.pid,
    stop,
    send: (line) => void (channel.writable && channel.write(`${line}\n`)),
    receive: () => started.then(lines.next),
  };
}

/** Splits a stream into lines; `flood` is called once more than `maxBytes` wait. */
function lineReader(stream: Duplex, maxBytes: number, flood: () => void) {
  const ready: Buffer[] = [];
  let waiting: ((line: string | undefined) => void) | undefined;
  let parts: Buffer[] = [];
  let waitingBytes = 0;
  let over = false;
  const hand = () => {
    if (waiting === undefined || (ready.length === 0 && !over)) return;
    const take = waiting;
    const line = ready.shift();
    waiting = undefined;
    waitingBytes -= line === undefined ? 0 : line.length + 1;
    take(line?.toString('utf8'));
  };
  const end = () => {
    over = true;
    hand();
  };
  stream.on('data', (chunk: Buffer) => {
    waitingBytes += chunk.length;
    if (waitingBytes > maxBytes) {
      flood();
      return;
    }
    let start = 0;
    for (let at = chunk.indexOf(10); at !== -1; at = chunk.indexOf(10, start)) {
      ready.push(Buffer.concat([...parts, chunk.subarray(start, at)]));
      parts = [];
      start = at + 1;
    }
    if (start < chunk.length) parts.push(chunk.subarray(start));
    hand();
  });
  stream.on('end', end);
  return {
    end,
    next: () =>
      new Promise<string | undefined>((resolve) => {
        waiting = resolve;
        hand();
      }),
  };
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // The group is empty already.
  }
}
