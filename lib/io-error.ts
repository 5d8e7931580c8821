// A failed system call becomes one sentence: what was being done, the path, the errno's text, the remedy.
import { ArcherError, isArcherError, messageOf } from './errors.js';

// PLACE: the option that says where files go.
const remedies: Record<string, string> = {
  ENOSPC: 'Free space on that disk, or set PLACE to another one.',
  EDQUOT: 'Your quota on that disk is used up: free space, or set PLACE to another disk.',
  EFBIG: 'The file system or `ulimit -f` limits the size of a file: use another one.',
  EACCES: 'Check the permissions of the folder, or set PLACE to one that you may write.',
  EPERM: 'Check the permissions of the folder, or set PLACE to one that you may write.',
  EROFS: 'That file system is read-only: set PLACE to one that can be written.',
  ENOENT: 'The file or its folder is gone: check that nothing removes files while a run is going on.',
  ENOTDIR: 'A part of that path is a file, not a folder: rename it, or set PLACE.',
  EIO: 'The disk reports a hardware or network fault: see `dmesg`, or use another disk.',
  EMFILE: 'Too many open files: raise `ulimit -n`.',
  ENAMETOOLONG: 'Choose a shorter trainer.project_name or trainer.experiment_name.',
};

interface SystemError extends Error {
  code: string;
  path?: string;
  dest?: string;
}

/** True for what Node throws when a system call fails (it has an errno's name as its code). */
export function isSystemError(error: unknown): error is SystemError {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' && /^E[A-Z0-9]+$/.test(code);
}

/**
 * The ArcherError (ARCHER_E_IO) of a failed system call. Anything else (an ArcherError, a fault in the program) is
 * returned as it is, so that a catch block can always `throw ioError(...)`.
 *
 * @param action what failed, as the object of "cannot": "write the checkpoint"
 * @param place the option that would send the file elsewhere
 */
export function ioError(action: string, path: string, error: unknown, place = 'trainer.default_local_dir'): unknown {
  if (isArcherError(error) || !isSystemError(error)) return error;
  const where = error.path !== undefined && error.path !== path ? `${path} (at ${error.path})` : path;
  const remedy = (remedies[error.code] ?? 'Check the disk and the folder.').replace('PLACE', place);
  return new ArcherError('ARCHER_E_IO', `Cannot ${action} ${where}: ${messageOf(error)}. ${remedy}`, { cause: error });
}
