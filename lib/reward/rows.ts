// Rows that hold a response already: {id, prompt, response, ground_truth}, with data_source and extra_info as wanted.
import { ArcherError } from '../errors.js';
import type { RewardInput } from './types.js';

export interface RewardRow {
  id: string | number;
  input: RewardInput;
}

type Fields = Record<string, unknown>;

/**
 * The prompt may be empty, text or a list of messages, of which the user's last one counts. A ground truth is text, a
 * number, a list of these, or an object (the tests of a program), which travels as JSON.
 *
 * @throws ARCHER_E_DATA naming file, line and field
 */
export function parseRewardRow(value: unknown, { file, line }: { file: string; line: number }): RewardRow {
  const fail = (field: string, problem: string) =>
    new ArcherError(
      'ARCHER_E_DATA',
      `${file}, line ${line}: ${field === '' ? 'the row' : `field "${field}"`} ${problem}.`,
    );
  if (!isFields(value)) throw fail('', 'is not an object with fields');
  const { id, response, ground_truth: truth, data_source: source = '', extra_info: extraInfo } = value;
  if (typeof id !== 'string' && typeof id !== 'number') throw fail('id', 'is neither text nor a number');
  if (typeof response !== 'string') throw fail('response', 'is not text');
  const prompt = promptText(value.prompt);
  if (prompt === undefined) throw fail('prompt', 'is neither text nor a list of {role, content}');
  if (truth === undefined || truth === null) throw fail('ground_truth', 'is missing');
  if (typeof source !== 'string') throw fail('data_source', 'is not text');
  if (extraInfo !== undefined && extraInfo !== null && !isFields(extraInfo))
    throw fail('extra_info', 'is not an object');
  const isList = Array.isArray(truth) && truth.every((entry) => typeof entry === 'string' || typeof entry === 'number');
  const groundTruth = isList ? truth.map(String) : truthText(truth);
  return { id, input: { prompt, response, groundTruth, dataSource: source, extraInfo: extraInfo ?? {} } };
}

function promptText(prompt: unknown): string | undefined {
  if (typeof prompt === 'string') return prompt;
  if (!Array.isArray(prompt) || !prompt.every(isFields)) return undefined;
  const { content } = prompt.findLast(({ role }) => role === 'user') ?? { content: '' };
  return typeof content === 'string' ? content : undefined;
}

function truthText(truth: unknown): string {
  return typeof truth === 'object' ? JSON.stringify(truth) : String(truth);
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
