// Faults that pass: a cut connection, an overloaded server. They are tried again with growing pauses; whatever brought
// new bytes counts as a fresh start.
import { setTimeout as sleep } from 'node:timers/promises';
import { ArcherError, type ErrorCode } from '../errors.js';

/** A failure that may be gone at the next attempt. */
export class TransientError extends Error {
  /** @param waitMs how long the server asks to wait */
  constructor(
    message: string,
    readonly waitMs?: number,
  ) {
    super(message);
  }
}

export interface RetryOptions {
  signal?: AbortSignal | undefined;
  /** Failures in a row that are one too many. Default 6. */
  maxFailures?: number;
  /** Of the error that then ends it. Default ARCHER_E_HUB. */
  code?: ErrorCode;
  /** The first pause; each next one is twice as long. Default 1 s. */
  pauseMs?: number;
  /** Called before every pause. */
  onWait?: (reason: string, waitMs: number) => void;
  /** Grows as long as things go forward: bytes received. */
  progress?: () => number;
}

const maxWaitMs = 600_000;

/** @throws ArcherError `code` after maxFailures failures in a row, ARCHER_E_ABORTED */
export async function retrying<T>(
  attempt: () => Promise<T>,
  { signal, maxFailures = 6, code = 'ARCHER_E_HUB', pauseMs = 1000, onWait, progress = () => 0 }: RetryOptions,
): Promise<T> {
  let reached = progress();
  for (let failures = 1; ; failures += 1) {
    try {
      return await attempt();
    } catch (error) {
      throwIfAborted(signal);
      if (!(error instanceof TransientError)) throw error;
      if (progress() > reached) {
        reached = progress();
        failures = 1;
      }
      const { waitMs = pauseMs * 2 ** (failures - 1) } = error;
      if (failures === maxFailures || waitMs > maxWaitMs) {
        const advice =
          waitMs > maxWaitMs
            ? `the server asks to wait ${Math.ceil(waitMs / 60_000)} minutes`
            : `tried ${failures} times`;
        const remedy = 'the same command goes on where this one stopped';
        throw new ArcherError(code, `${error.message} (${advice}); ${remedy}.`, { cause: error });
      }
      onWait?.(error.message, waitMs);
      await sleep(waitMs, undefined, { signal }).catch(() => throwIfAborted(signal));
    }
  }
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new ArcherError('ARCHER_E_ABORTED', 'Interrupted: what is downloaded is kept.');
}
