// The door to the rewards: one Scorer, whatever judges behind it.
//
// Built-in verifiers and modules of the user's run in one pool of worker processes: only a process can be killed, and the
// trainer's own, large and full of weights, is a bad place to start programs from. A function runs in this process.

import { ArcherError, messageOf } from '../errors.js';
import type { CodeOptions } from './code.js';
import type { MathOptions } from './math.js';
import type { RewardFunction, RewardInput, Scorer, Verdict } from './types.js';
import { crash, timeout, toVerdict } from './verdict.js';
import { verifierForSource, type VerifierName, verifierNames } from './verifiers.js';
import { createWorkerPool } from './worker-pool.js';

export interface CreateScorerOptions {
  /** A built-in verifier for every row. Without name, path and fn each row's data source chooses (verifiers.ts). */
  name?: VerifierName;
  /** A module whose default export is a RewardFunction. */
  path?: string;
  /** A function in this process (library use). A promise that does not settle is a timeout; a synchronous endless loop
   * cannot be stopped: use `path` for code that may hang. */
  fn?: RewardFunction;
  /** For one response. Default 10. */
  timeoutSeconds?: number;
  /** Worker processes. Default: the number of cores. */
  workers?: number;
  /** Silence after which progress names the response that everybody waits for. Default 5. */
  heartbeatSeconds?: number;
  /** How the verifier `math` judges: its own rules (the default), or the reference's grader. */
  math?: Pick<MathOptions, 'mode'>;
  /** Limits of the verifier `code`. */
  code?: Partial<CodeOptions>;
}

/**
 * Makes the scorer that the options name. A verifier or module is loaded, in a worker, before this returns.
 *
 * @throws ArcherError ARCHER_E_REWARD: more than one of name, path and fn, an unknown name, a module that is missing,
 * cannot be loaded or has no default function, or a verifier that does not work on this machine.
 */
export async function createScorer(options: CreateScorerOptions = {}): Promise<Scorer> {
  const { name, path, fn, timeoutSeconds = 10, workers, heartbeatSeconds, math, code } = options;
  const given = [name, path, fn].filter((entry) => entry !== undefined);
  if (given.length > 1) {
    throw new ArcherError('ARCHER_E_REWARD', 'Give one of reward.name, reward.path and a function, not several.');
  }
  if (!(timeoutSeconds > 0)) {
    throw new ArcherError('ARCHER_E_REWARD', `reward.timeout_seconds is ${timeoutSeconds}; it must be above 0.`);
  }
  if (fn !== undefined) return functionScorer(fn, timeoutSeconds);
  if (name !== undefined && !verifierNames.includes(name)) {
    throw new ArcherError(
      'ARCHER_E_REWARD',
      `There is no built-in verifier "${name}"; there are ${verifierNames.join(', ')}. For others set reward.path to a module.`,
    );
  }
  const judge = path === undefined ? { builtin: { name, math, code } } : { path };
  const pool = await createWorkerPool({ judge, timeoutSeconds, workers, heartbeatSeconds });
  return {
    description: path ?? name ?? 'by data_source',
    verifierFor: (dataSource) => (path === undefined ? (name ?? verifierForSource(dataSource)) : undefined),
    score: (inputs, opts) => pool.scoreAll(inputs, opts),
    dispose: () => pool.dispose(),
  };
}

function functionScorer(fn: RewardFunction, timeoutSeconds: number): Scorer {
  return {
    description: fn.name === '' ? 'a function' : `the function ${fn.name}`,
    verifierFor: () => undefined,
    async score(inputs, options = {}) {
      throwIfAborted(options.signal);
      let done = 0;
      const all = Promise.all(
        inputs.map(async (input) => {
          const verdict = await callFunction(fn, input, timeoutSeconds, options.signal);
          done += 1;
          options.onProgress?.({ done, total: inputs.length });
          return verdict;
        }),
      );
      return untilAborted(all, options.signal);
    },
    async dispose() {},
  };
}

async function callFunction(
  fn: RewardFunction,
  input: RewardInput,
  timeoutSeconds: number,
  signal: AbortSignal | undefined,
): Promise<Verdict> {
  let timer: NodeJS.Timeout | undefined;
  const stopTimer = () => clearTimeout(timer);
  const late = new Promise<Verdict>((resolve) => {
    timer = setTimeout(() => resolve(timeout(timeoutSeconds)), timeoutSeconds * 1000);
  });
  signal?.addEventListener('abort', stopTimer, { once: true });
  const called = (async () => toVerdict(await fn(withVerlNames(input))))();
  try {
    return await Promise.race([called, late]);
  } catch (error) {
    return crash(messageOf(error));
  } finally {
    stopTimer();
    signal?.removeEventListener('abort', stopTimer);
  }
}

/** verl's spelling beside ours: a function that reads ground_truth must not silently see undefined. */
function withVerlNames(input: RewardInput): RewardInput {
  const verl = { ground_truth: input.groundTruth, extra_info: input.extraInfo, data_source: input.dataSource };
  return { ...input, ...verl };
}

async function untilAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<never>((_resolve, reject) => {
    onAbort = () => reject(abortedError());
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    if (onAbort !== undefined) signal.removeEventListener('abort', onAbort);
  }
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortedError();
}

function abortedError(): ArcherError {
  return new ArcherError('ARCHER_E_ABORTED', 'Scoring was interrupted.');
}
