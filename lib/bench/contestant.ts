// One contestant of a benchmark: a process that answers `run` on stdin with one line of JSON (docs/benchmarks.md), so that
// programs in any language can be timed in turn.
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { ArcherError, type ErrorCode, errorCodes } from '../errors.js';

/** How a contestant is started. */
export interface ContestantSpec {
  name: string;
  command: string;
  args: string[];
  /** Where true the benchmark cannot go on without it; others are left out when they fail. Default false. */
  isRequired?: boolean;
}

/** What one iteration cost. */
export interface Sample {
  seconds: number;
  /** Of all threads of the process. */
  cpuSeconds: number;
  /** Peak resident memory beyond inputs and gradients; undefined where it is not measured. */
  peakBytes?: number;
  /** Other numbers of the answer, under the names it gave them. */
  values?: Record<string, number>;
}

interface Waiting {
  event: string;
  resolve: (message: Record<string, unknown>) => void;
  reject: (error: ArcherError) => void;
}

const stderrTail = 2000;

export class Contestant {
  readonly name: string;
  /** What the contestant said about itself when it was ready. */
  details: Record<string, unknown> = {};
  #child: ChildProcessWithoutNullStreams;
  #waiting: Waiting | undefined;
  #ended: ArcherError | undefined;
  #stderr = '';
  #closed: Promise<void>;

  private constructor(spec: ContestantSpec, signal?: AbortSignal) {
    this.name = spec.name;
    // A process group of its own: the terminal's Ctrl-C reaches the driver alone, which then ends its contestants.
    this.#child = spawn(spec.command, spec.args, { detached: true, stdio: 'pipe' });
    const kill = () => this.#child.kill('SIGKILL');
    signal?.addEventListener('abort', kill, { once: true });
    this.#child.stdin.on('error', () => {}); // a process that has gone: its exit says why
    this.#child.stderr.on('data', (data) => {
      this.#stderr = (this.#stderr + data).slice(-stderrTail);
    });
    createInterface({ input: this.#child.stdout }).on('line', (line) => this.#receive(line));
    this.#closed = new Promise((resolve) => {
      const end = (why: string) => {
        signal?.removeEventListener('abort', kill);
        const words = this.#stderr.trim().split('\n').at(-1) ?? '';
        this.#ended = signal?.aborted
          ? new ArcherError('ARCHER_E_ABORTED', 'The benchmark was interrupted.')
          : new ArcherError('ARCHER_E_INTERNAL', `${this.name} ${why}${words ? `: ${words}` : '.'}`);
        this.#fail(this.#ended);
        resolve();
      };
      this.#child.on('error', ({ message }) => end(`could not be started (${message})`));
      this.#child.on('close', (code, killedBy) =>
        end(
          killedBy
            ? `was killed by ${killedBy}${killedBy === 'SIGKILL' ? ' (out of memory?)' : ''}`
            : `ended with status ${code}`,
        ),
      );
    });
  }

  /** Starts the process and waits until its data is made. @throws ArcherError with the contestant's own code and words */
  static async start(spec: ContestantSpec, signal?: AbortSignal): Promise<Contestant> {
    if (signal?.aborted) throw new ArcherError('ARCHER_E_ABORTED', 'The benchmark was interrupted.');
    const contestant = new Contestant(spec, signal);
    const { details } = await contestant.#expect('ready');
    if (typeof details === 'object' && details !== null) contestant.details = details as Record<string, unknown>;
    return contestant;
  }

  /** Process id. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** One timed iteration. @throws ArcherError when the process fails or answers nonsense */
  async run(): Promise<Sample> {
    const waiting = this.#expect('run');
    this.#child.stdin.write('run\n');
    const message = await waiting;
    const { event: _, seconds, cpu_seconds: cpuSeconds, peak_bytes: peakBytes, ...others } = message;
    if (typeof seconds !== 'number' || typeof cpuSeconds !== 'number' || !(seconds > 0)) {
      throw new ArcherError(
        'ARCHER_E_INTERNAL',
        `${this.name} answered ${JSON.stringify(message)}, without seconds and cpu_seconds.`,
      );
    }
    const numbers = Object.entries(others).filter((entry): entry is [string, number] => typeof entry[1] === 'number');
    return {
      seconds,
      cpuSeconds,
      peakBytes: typeof peakBytes === 'number' ? peakBytes : undefined,
      values: numbers.length > 0 ? Object.fromEntries(numbers) : undefined,
    };
  }

  /** Ends the process; never throws. */
  async close(): Promise<void> {
    this.#child.stdin.end('quit\n');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 2000);
    await this.#closed;
    clearTimeout(timer);
  }

  #expect(event: string): Promise<Record<string, unknown>> {
    if (this.#ended) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      this.#waiting = { event, resolve, reject };
    });
  }

  #fail(error: ArcherError): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.reject(error);
  }

  #receive(line: string): void {
    let message: Record<string, unknown>;
    try {
      message = JSON.parse(line);
    } catch {
      this.#fail(
        new ArcherError('ARCHER_E_INTERNAL', `${this.name} printed a line that is no JSON: ${line.slice(0, 200)}`),
      );
      return;
    }
    if (message.event === 'error') {
      const code = errorCodes.find((known) => known === message.code) ?? ('ARCHER_E_INTERNAL' as ErrorCode);
      this.#fail(new ArcherError(code, `${this.name}: ${message.message}`));
    } else if (message.event === this.#waiting?.event) {
      const waiting = this.#waiting;
      this.#waiting = undefined;
      waiting?.resolve(message);
    }
  }
}
