// What everybody waits for while responses are judged, in words for the progress line.
import { basename } from 'node:path';
import type { ScoreProgress } from '../reward/types.js';
import type { Problem } from './types.js';

/**
 * "waiting 12 s for response 3 to tasks.jsonl line 17, test 4 of 16"
 *
 * @param problems the problem of every response that is judged.
 */
export function waitingFor(
  problems: readonly Problem[],
  { index, seconds, stage }: NonNullable<ScoreProgress['waiting']>,
): string {
  const problem = problems[index] as Problem;
  const { file, line } = problem.row.origin;
  const response = index - problems.indexOf(problem) + 1;
  const where = `response ${response} to ${basename(file)} line ${line}`;
  return `waiting ${Math.round(seconds)} s for ${where}${stage === '' ? '' : `, ${stage}`}`;
}
