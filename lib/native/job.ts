// One native call from JS: an AbortSignal in, progress out, and errors of the addon turned into ArcherError (objects made
// by the addon belong to Node's outer realm and fail instanceof in Jest and vm contexts, so they are made anew here).
import { ArcherError, type ErrorCode, errorCodes, isArcherError, messageOf } from '../errors.js';
import { loadNative } from './load.js';
import type { NativeJobControl } from './types.js';

export interface JobOptions {
  /** Stops the job within one layer's work; the call rejects with ARCHER_E_ABORTED. */
  signal?: AbortSignal | undefined;
  /** Called every 100 ms while the job runs. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

export interface StreamOptions extends JobOptions {
  /** Generated tokens as (prompt, sample, id), laid flat: what came since the last call, every 30 ms, and the rest at the end. */
  onTokens?: ((tokens: Int32Array) => void) | undefined;
}

const progressIntervalMs = 100;
const tokenIntervalMs = 30;

/** Runs one native call with a fresh job control. */
export async function runJob<Result>(
  options: StreamOptions,
  call: (control: NativeJobControl) => Promise<Result>,
): Promise<Result> {
  const { signal, onProgress, onTokens } = options;
  if (signal?.aborted) throw new ArcherError('ARCHER_E_ABORTED', 'aborted before the job began');
  const control = new (loadNative().JobControl)();
  const cancel = () => control.cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  const timer = onProgress
    ? setInterval(() => {
        const { done, total } = control.progress();
        onProgress(done, total);
      }, progressIntervalMs)
    : undefined;
  const handOut = () => {
    const tokens = int32(control.takeTokens());
    if (tokens.length > 0) onTokens?.(tokens);
  };
  const tokenTimer = onTokens ? setInterval(handOut, tokenIntervalMs) : undefined;
  try {
    const result = await call(control);
    if (onTokens) handOut();
    return result;
  } catch (error) {
    throw fromNative(error);
  } finally {
    clearInterval(timer);
    clearInterval(tokenTimer);
    signal?.removeEventListener('abort', cancel);
  }
}

/** An error of the addon as an ArcherError of this realm. */
export function fromNative(error: unknown): ArcherError {
  if (isArcherError(error)) return error;
  const { code, detail } = error as { code?: string; detail?: string };
  const known = errorCodes.find((one) => one === code) ?? ('ARCHER_E_INTERNAL' satisfies ErrorCode);
  return new ArcherError(known, messageOf(error), { cause: detail ?? error });
}

/** Calls a synchronous native function with the same treatment of errors. */
export function callNative<Result>(call: () => Result): Result {
  try {
    return call();
  } catch (error) {
    throw fromNative(error);
  }
}

// Arrays again as views of this realm, over the same memory.
export const float32 = (array: Float32Array) => new Float32Array(array.buffer, array.byteOffset, array.length);
export const float64 = (array: Float64Array) => new Float64Array(array.buffer, array.byteOffset, array.length);
export const int32 = (array: Int32Array) => new Int32Array(array.buffer, array.byteOffset, array.length);
export const uint8 = (array: Uint8Array) => new Uint8Array(array.buffer, array.byteOffset, array.length);
