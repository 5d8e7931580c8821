// Every failure that a user can meet is an ArcherError: a stable code, one sentence that names the value, the remedy.
// The command line alone maps codes to exit statuses (lib/cli/exit.ts).

export const errorCodes = [
  'ARCHER_E_CONFIG', // a configuration key, value or combination
  'ARCHER_E_DATA', // a data file or a row of it
  'ARCHER_E_MODEL', // a model folder: config, weights, tokenizer
  'ARCHER_E_IO', // reading or writing failed (full disk, permissions)
  'ARCHER_E_HUB', // the model hub: not reachable, no access, not there, wrong bytes
  'ARCHER_E_SETUP', // libtorch, compiler or build tools
  'ARCHER_E_NATIVE_LOAD', // the addon is missing or cannot be loaded
  'ARCHER_E_SHAPE', // an array of the wrong length at the native door
  'ARCHER_E_NUMERIC', // NaN or infinity where a number is needed
  'ARCHER_E_OOM', // does not fit the memory budget
  'ARCHER_E_DEVICE', // a device that is not there
  'ARCHER_E_CHECKPOINT', // a damaged or foreign checkpoint
  'ARCHER_E_REWARD', // a reward function or verifier
  'ARCHER_E_DISPOSED', // use after dispose
  'ARCHER_E_ABORTED', // an AbortSignal or Ctrl-C
  'ARCHER_E_INTERNAL', // a fault of ours
] as const;

export type ErrorCode = (typeof errorCodes)[number];

/** The one error class of the package. `message` is a sentence for people, `code` is for programs. */
export class ArcherError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'ArcherError';
    this.code = code;
  }
}

/** True for an ArcherError of any realm (Jest and worker threads have classes of their own). */
export function isArcherError(error: unknown): error is ArcherError {
  return typeof error === 'object' && error !== null && (error as { name?: unknown }).name === 'ArcherError';
}

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String((error as { message?: unknown })?.message ?? error);
}
