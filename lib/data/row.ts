// One record of a file -> one Row. Three shapes are understood: verl's record, the short {"prompt", "answer"}, and
// GSM8K's {question, answer} with `#### n` at the end of the answer. Whatever does not fit is an error that names the
// file, the line and the field.

import { createHash } from 'node:crypto';
import { basename, dirname, extname } from 'node:path';
import { ArcherError } from '../errors.js';
import type { ChatMessage, DataColumns, Row } from './types.js';

/** Which of the understood shapes a record has. */
export type RowShape = 'verl' | 'short' | 'question-answer';

export interface RowContext {
  file: string;
  line: number;
  index: number;
  columns?: DataColumns;
}

type Fields = Record<string, unknown>;

const finalAnswer = /^####[ \t]*(\S.*?)[ \t\r]*$/m;

/** Reads one record. Throws ARCHER_E_DATA for anything malformed. */
export function parseRow(value: unknown, context: RowContext): { row: Row; shape: RowShape } {
  if (!isFields(value)) {
    throw rowError(context, '', `is ${describe(value)}, not an object with fields`);
  }
  const record = value;
  const columns = context.columns ?? {};
  const promptField = columns.prompt ?? (record.prompt === undefined && isQuestion(record) ? 'question' : 'prompt');
  const rewardModel = record.reward_model;
  const hasRewardModel = columns.answer === undefined && rewardModel !== undefined && rewardModel !== null;
  const answerField = columns.answer ?? (hasRewardModel ? 'reward_model.ground_truth' : 'answer');
  const sourceField = columns.source ?? 'data_source';

  const prompt = readPrompt(fieldOf(record, promptField), promptField, context);
  const truth = readTruth(fieldOf(record, answerField), answerField, context);
  const row: Row = {
    index: context.index,
    id: idOf(prompt),
    prompt,
    groundTruth: hasRewardModel ? truth : afterFourHashes(truth),
    dataSource: readSource(fieldOf(record, sourceField), sourceField, context, columns.source !== undefined),
    extraInfo: readExtraInfo(record, [promptField, answerField, sourceField], hasRewardModel, context),
    origin: { file: context.file, line: context.line },
  };
  const shape = hasRewardModel ? 'verl' : promptField === 'question' ? 'question-answer' : 'short';
  return { row, shape };
}

function idOf(prompt: ChatMessage[]): string {
  const text = JSON.stringify(prompt.map(({ role, content }) => [role, content]));
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

function isQuestion(record: Fields): boolean {
  return record.question !== undefined && record.answer !== undefined;
}

function readPrompt(value: unknown, field: string, context: RowContext): ChatMessage[] {
  if (value === undefined || value === null) {
    throw rowError(context, field, 'is missing; name the field that holds the prompt with data.columns.prompt');
  }
  if (typeof value === 'string') {
    if (value === '') throw rowError(context, field, 'is empty');
    return [{ role: 'user', content: value }];
  }
  if (!Array.isArray(value)) {
    throw rowError(context, field, `is ${describe(value)}, not a string or a list of {role, content}`);
  }
  if (value.length === 0) throw rowError(context, field, 'is an empty list of messages');
  return value.map((message: unknown, i) => {
    if (!isFields(message)) {
      throw rowError(context, `${field}[${i}]`, `is ${describe(message)}, not {role, content}`);
    }
    for (const key of ['role', 'content']) {
      if (typeof message[key] !== 'string') {
        throw rowError(context, `${field}[${i}].${key}`, `is ${describe(message[key])}, not a string`);
      }
    }
    return { role: message.role as string, content: message.content as string };
  });
}

function readTruth(value: unknown, field: string, context: RowContext): string | string[] {
  if (value === undefined || value === null) {
    throw rowError(context, field, 'is missing; name the field that holds the answer with data.columns.answer');
  }
  if (Array.isArray(value) && value.every((entry) => typeof entry === 'string' || typeof entry === 'number')) {
    return value.map((entry, i) => truthText(entry, `${field}[${i}]`, context));
  }
  return truthText(value, field, context);
}

function truthText(value: unknown, field: string, context: RowContext): string {
  if (typeof value === 'string') return value;
  if (typeof value === 'number') {
    // 12345678901234567890 has lost its last digits by now: no response could ever match it.
    if (Number.isInteger(value) && !Number.isSafeInteger(value)) {
      throw rowError(context, field, `is a number beyond 2^53 (${value}); write it as a string`);
    }
    return String(value);
  }
  // Code truths are objects or lists of objects ({inputs, outputs}): they travel as JSON text.
  if (typeof value === 'object' && value !== null) return JSON.stringify(value);
  throw rowError(context, field, `is ${describe(value)}, not a string, a number or a list of them`);
}

function afterFourHashes(truth: string | string[]): string | string[] {
  if (Array.isArray(truth)) return truth;
  return finalAnswer.exec(truth)?.[1] ?? truth;
}

function readSource(value: unknown, field: string, context: RowContext, wanted: boolean): string {
  if (typeof value === 'string' && value !== '') return value;
  if ((value === undefined || value === null || value === '') && !wanted) {
    const name = basename(context.file, extname(context.file));
    const folder = basename(dirname(context.file));
    return folder === '' || folder === '.' ? name : `${folder}/${name}`;
  }
  throw rowError(context, field, `is ${describe(value)}, not a name`);
}

function readExtraInfo(record: Fields, used: string[], isVerl: boolean, context: RowContext): Record<string, unknown> {
  const value = record.extra_info;
  if (isFields(value)) return value;
  if (value !== undefined && value !== null) {
    throw rowError(context, 'extra_info', `is ${describe(value)}, not an object`);
  }
  if (isVerl) return {};
  const rest = Object.entries(record).filter(([key]) => key !== 'extra_info' && !used.includes(key));
  return Object.fromEntries(rest);
}

/** A literal field name first (`a.b` may be a column of a parquet file), then a path through objects. */
function fieldOf(record: Fields, name: string): unknown {
  if (Object.hasOwn(record, name)) return record[name];
  let value: unknown = record;
  for (const key of name.split('.')) {
    if (!isFields(value) || !Object.hasOwn(value, key)) return undefined;
    value = value[key];
  }
  return value;
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function describe(value: unknown): string {
  if (value === undefined) return 'missing';
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'an object';
  const text = String(value);
  return `${JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}…` : text)} (${typeof value})`;
}

/** For messages: "train.jsonl, line 3" or "train.parquet, row 3". */
export function placeOf({ file, line }: { file: string; line: number }): string {
  return `${file}, ${extname(file).toLowerCase() === '.parquet' ? 'row' : 'line'} ${line}`;
}

function rowError(context: RowContext, field: string, problem: string): ArcherError {
  const where = field === '' ? 'the row' : `field "${field}"`;
  return new ArcherError('ARCHER_E_DATA', `${placeOf(context)}: ${where} ${problem}.`);
}
