// Errors to exit statuses: 0 done, 1 failed, 2 wrong usage, configuration, data, model or reward found before the first
// step, 130 interrupted (after saving).
import { type ErrorCode, isArcherError } from '../errors.js';

const usersInput: ErrorCode[] = [
  'ARCHER_E_CONFIG',
  'ARCHER_E_DATA',
  'ARCHER_E_MODEL',
  'ARCHER_E_OOM',
  'ARCHER_E_REWARD',
];

/** @param began whether the work itself had begun: from then on a fault is no wrong usage any more */
export function exitCodeOf(error: unknown, began: boolean): number {
  if (!isArcherError(error)) return 1;
  if (error.code === 'ARCHER_E_ABORTED') return 130;
  return !began && usersInput.includes(error.code) ? 2 : 1;
}
