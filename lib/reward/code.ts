// The verifier `code`: the last fenced Python block must pass every test of the ground truth. The answer runs in a sandbox
// (code/sandbox.ts) that never holds an expected output: what it prints or returns is compared here, and the data set's test
// code runs in a process of its own that the answer cannot reach (code/harness.py).

import { findCode } from './code/answer.js';
import { sameOutput } from './code/output.js';
import type { Ended, SandboxProcess } from './code/process.js';
import { findSandbox, type InterpreterKind, type Isolation, type Sandbox } from './code/sandbox.js';
import { type AssertTest, type CallTest, type CodeTest, parseTests, type StdinTest, TestsError } from './code/tests.js';
import { equalValues, parseJson } from './code/wire.js';
import { startClock, waitedSeconds } from './process-time.js';
import type { RewardInput, Verdict } from './types.js';

export interface CodeOptions {
  /** CPU time of one test, and its wall-clock time less what it waits for a processor. Default 6. */
  testSeconds: number;
  /** Address space of the program. Default 1024. */
  memoryMiB: number;
  /** Tests of a response at most, spread evenly over all; 0: all of them. Default 0. */
  maxTests: number;
  /** Default auto: python3, and where none can be isolated pyodide. */
  interpreter: 'auto' | InterpreterKind;
  /** Default auto: the strongest isolation that works here. */
  isolation: 'auto' | Isolation;
}

export const codeDefaults: CodeOptions = {
  testSeconds: 6,
  memoryMiB: 1024,
  maxTests: 0,
  interpreter: 'auto',
  isolation: 'auto',
};

export interface CodeVerifier {
  sandbox: Sandbox;
  /** @param stage is told which test runs. */
  verify(input: RewardInput, stage?: (text: string) => void): Promise<Verdict>;
}

/** @throws ArcherError ARCHER_E_REWARD when programs cannot be isolated here. */
export async function createCodeVerifier(options: Partial<CodeOptions> = {}): Promise<CodeVerifier> {
  const settings = { ...codeDefaults, ...options };
  const sandbox = await findSandbox(settings);
  return {
    sandbox,
    async verify({ response, groundTruth, extraInfo }, stage = () => {}) {
      const found = findCode(response);
      if ('missing' in found) return { score: 0, outcome: 'parse_error', message: found.missing };
      const extracted = found.code;
      try {
        const tests = choose(parseTests(groundTruth, extraInfo), settings.maxTests);
        const verdict = await runTests(tests, new Run(sandbox, found.code, settings.testSeconds), stage);
        return { extracted, ...verdict };
      } catch (error) {
        if (error instanceof TestsError) return { score: 0, outcome: 'crash', extracted, message: error.message };
        throw error;
      }
    },
  };
}

function choose(tests: CodeTest[], max: number): CodeTest[] {
  if (max === 0 || tests.length <= max) return tests;
  return Array.from({ length: max }, (_, i) => tests[Math.floor((i * tests.length) / max)] as CodeTest);
}

/** In order, until one is not passed. */
async function runTests(tests: CodeTest[], run: Run, stage: (text: string) => void): Promise<Verdict> {
  try {
    for (const [i, test] of tests.entries()) {
      const place = `test ${i + 1} of ${tests.length}`;
      stage(place);
      const failure = await run.test(test);
      if (failure !== undefined) return { score: 0, ...failure, message: `${place}: ${failure.message}` };
    }
    return { score: 1, outcome: 'ok' };
  } finally {
    run.stop();
  }
}

type Failure = Required<Pick<Verdict, 'outcome' | 'message'>> & Pick<Verdict, 'detail'>;

const channelBytes = 16 * 2 ** 20;
/** A program that prints more than this beyond what is expected cannot be right. */
const spareOutputBytes = 2 ** 16;

/** One answer's processes. Every method returns undefined for a test that is passed. */
class Run {
  #server: SandboxProcess | undefined;

  constructor(
    private readonly sandbox: Sandbox,
    private readonly code: string,
    private readonly seconds: number,
  ) {}

  async test(test: CodeTest): Promise<Failure | undefined> {
    if (test.kind === 'stdin') return this.#program(test);
    return test.kind === 'call' ? this.#call(test) : this.#asserts(test);
  }

  stop(): void {
    this.#server?.stop();
    this.#server = undefined;
  }

  async #program({ input, output }: StdinTest): Promise<Failure | undefined> {
    const outputBytes = 4 * Buffer.byteLength(output) + spareOutputBytes;
    const program = this.sandbox.start({ mode: 'program', code: this.code, input, outputBytes, cpuSeconds: this.#cpu });
    const ended = await this.#within(program.ended, program);
    if (ended.status !== 0 || ended.stoppedFor !== undefined) return this.#failureOf(ended);
    return sameOutput(ended.stdout, output)
      ? undefined
      : { outcome: 'wrong', message: `it prints ${short(ended.stdout)}, expected is ${short(output)}` };
  }

  async #call({ name, args, output, wrapped }: CallTest): Promise<Failure | undefined> {
    const server = this.#server ?? this.#serve();
    const loaded = this.#server === undefined ? await this.#ask(server) : {};
    this.#server = server;
    if (loaded.failure !== undefined) return loaded.failure;
    server.send(JSON.stringify({ call: name, json: args }));
    const { failure, value } = await this.#ask(server);
    if (failure !== undefined) return failure;
    const expected = parseJson(output);
    const inside = wrapped && Array.isArray(expected) && expected.length === 1 ? expected[0] : undefined;
    if (equalValues(value, expected) || (inside !== undefined && equalValues(value, inside))) return undefined;
    return {
      outcome: 'wrong',
      message: `${name} returns ${short(textOf(value))}, expected is ${short(output)}`,
    };
  }

  #serve(): SandboxProcess {
    // The CPU limit is for the whole life of the process; the time of one call is ours to watch.
    return this.sandbox.start({ mode: 'serve', code: this.code, outputBytes: channelBytes, cpuSeconds: 3600 });
  }

  /** The next line of the answer's process: the value in it, whoever wrote it, or how it failed. */
  async #ask(server: SandboxProcess): Promise<{ failure?: Failure; value?: unknown }> {
    const line = await this.#within(server.receive(), server);
    if (line === undefined) return { failure: this.#failureOf(await server.ended) };
    const { error, value } = objectOf(line) ?? {};
    return error === undefined ? { value } : { failure: raised(error) };
  }

  /** The test code's process asks, the answer's process replies; here the lines pass from one to the other. */
  async #asserts({ code, entryPoint }: AssertTest): Promise<Failure | undefined> {
    const server = this.#serve();
    const checker = this.sandbox.start({
      mode: 'check',
      code,
      entryPoint,
      outputBytes: channelBytes,
      cpuSeconds: this.#cpu + 1,
    });
    const clock = await this.#clock(server, checker);
    try {
      for (;;) {
        const reply = await server.receive();
        if (reply === undefined) return this.#failureOf(await server.ended);
        checker.send(reply);
        const line = await checker.receive();
        if (line === undefined) {
          const ended = await checker.ended;
          if (ended.stoppedFor === 'time') return this.#failureOf(ended);
          return { outcome: 'crash', message: `the test code ended itself: ${lastLine(ended.stderr)}` };
        }
        const said = objectOf(line) ?? {};
        if (said.passed === true) return undefined;
        if (said.failed !== undefined) return raised(said.failed);
        if (said.broken !== undefined) return { outcome: 'crash', message: String(said.broken) };
        server.send(line);
      }
    } finally {
      clock.stop();
      server.stop();
      checker.stop();
    }
  }

  get #cpu(): number {
    return Math.ceil(this.seconds);
  }

  async #within<T>(work: Promise<T>, process: SandboxProcess): Promise<T> {
    const clock = await this.#clock(process);
    try {
      return await work;
    } finally {
      clock.stop();
    }
  }

  /** Runs from when the answer begins. */
  async #clock(...processes: SandboxProcess[]): Promise<{ stop(): void }> {
    await Promise.all(processes.map(({ started }) => started));
    const pids = processes.map(({ pid }) => pid);
    const end = () => {
      for (const process of processes) process.stop('time');
    };
    return startClock(this.seconds, () => waitedSeconds(pids), end);
  }

  #failureOf({ status, signal, stoppedFor, stderr, seconds }: Ended): Failure {
    if (stoppedFor === 'time')
      return { outcome: 'timeout', detail: 'wall', message: `no end within ${this.seconds} s` };
    if (stoppedFor === 'start') return { outcome: 'crash', message: 'the sandbox did not start in a minute' };
    if (stoppedFor === 'output') return { outcome: 'crash', detail: 'output', message: 'it prints without end' };
    if (signal === 'SIGXCPU' || (signal === 'SIGKILL' && seconds >= this.#cpu - 0.5)) {
      return { outcome: 'timeout', detail: 'cpu', message: `more than ${this.#cpu} s of processor time` };
    }
    if (signal !== null) return { outcome: 'crash', detail: 'signal', message: `ended by ${signal}` };
    const last = lastLine(stderr);
    const match = /^([\w.]+)(?:: (.*))?$/s.exec(last);
    if (status === 1 && match !== null) return raised({ type: match[1] as string, message: match[2] ?? '' });
    return {
      outcome: 'wrong',
      detail: 'exit',
      message: `it ends itself with status ${status}${last === '' ? '' : `: ${last}`}`,
    };
  }
}

/** An exception of the answer is a verdict; one that says that a limit was reached is not. */
function raised(error: unknown): Failure {
  const type = String((error as { type?: unknown } | null)?.type);
  const message = String((error as { message?: unknown } | null)?.message);
  const text = `${type}: ${message}`.slice(0, 300);
  // A size above the address space is another exception in 32 bits.
  const tooLarge = type === 'OverflowError' && message.startsWith("cannot fit 'int' into an index-sized integer");
  if (type === 'MemoryError' || tooLarge) return { outcome: 'crash', detail: 'memory', message: 'out of memory' };
  if (type === 'BlockingIOError' || /^can't start new thread/.test(message)) {
    return { outcome: 'crash', detail: 'processes', message: text };
  }
  return { outcome: 'wrong', detail: type === 'AssertionError' ? undefined : 'exception', message: text };
}

function objectOf(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

function textOf(value: unknown): string | undefined {
  try {
    return JSON.stringify(value);
  } catch {
    return 'a value nested too deeply';
  }
}

const lastLine = (text: string) => text.trimEnd().split('\n').at(-1) ?? '';

const short = (text: string | undefined) =>
  JSON.stringify((text ?? '').length > 60 ? `${(text ?? '').slice(0, 60)}…` : (text ?? ''));
