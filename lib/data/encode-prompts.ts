// Data set + tokenizer -> token ids, and what happens to prompts that are too long. The key of a prompt is its row
// index: random numbers, samplers and groups all name a prompt by it, so dropping a row moves no other.

import { ArcherError, isArcherError } from '../errors.js';
import { type RenderPromptOptions, renderPrompt } from './chat-template.js';
import type { Dataset } from './dataset.js';
import { placeOf } from './row.js';
import type { Tokenizer } from './tokenizer.js';
import type { Row } from './types.js';

export type OverlongPrompts = 'error' | 'drop' | 'truncate_left';

export interface EncodePromptsOptions extends RenderPromptOptions {
  /** Longest prompt, in tokens (data.max_prompt_length). */
  maxPromptLength: number;
  /** data.overlong_prompts. Default error. `truncate_left` keeps the last maxPromptLength tokens. */
  overlongPrompts?: OverlongPrompts;
  /** false: the row is left out, before anything is rendered. */
  keep?: (row: Row) => boolean;
  /** Stops between batches of rows. */
  signal?: AbortSignal;
}

export interface EncodedPrompt {
  /** Row of the data set. */
  index: number;
  /** Token ids, at most maxPromptLength. */
  ids: Int32Array;
  /** uint32, unique: the row index. */
  promptKey: number;
}

export interface OverlongPrompt {
  file: string;
  line: number;
  /** In tokens, before anything was done about it. */
  length: number;
}

export interface EncodedPrompts {
  /** In the order of the data set. */
  prompts: EncodedPrompt[];
  report: {
    rows: number;
    kept: number;
    dropped: OverlongPrompt[];
    truncated: OverlongPrompt[];
    /** Over the kept prompts, in tokens. */
    lengths: { min: number; mean: number; max: number };
  };
}

const batchRows = 256;

/**
 * Encodes every prompt of a data set.
 *
 * @throws ArcherError ARCHER_E_DATA: a prompt longer than maxPromptLength with overlong_prompts error, an empty
 * prompt, or a data set of which nothing is left.
 */
export async function encodePrompts(
  dataset: Dataset,
  tokenizer: Tokenizer,
  options: EncodePromptsOptions,
): Promise<EncodedPrompts> {
  const { maxPromptLength, overlongPrompts = 'error', keep = () => true, signal } = options;
  const usesTemplate = (options.applyChatTemplate ?? true) && tokenizer.chatTemplate !== undefined;
  const prompts: EncodedPrompt[] = [];
  const dropped: OverlongPrompt[] = [];
  const truncated: OverlongPrompt[] = [];

  for (let start = 0; start < dataset.rows; start += batchRows) {
    if (signal?.aborted) throw new ArcherError('ARCHER_E_ABORTED', 'Encoding the prompts was interrupted.');
    const size = Math.min(batchRows, dataset.rows - start);
    const rows = Array.from({ length: size }, (_, i) => dataset.get(start + i)).filter(keep);
    const texts = rows.map((row) => {
      try {
        return renderPrompt(row.prompt, tokenizer, options);
      } catch (error) {
        if (!isArcherError(error) || error.code !== 'ARCHER_E_DATA') throw error;
        throw new ArcherError('ARCHER_E_DATA', `${placeOf(row.origin)}: ${error.message}`, {
          cause: error,
        });
      }
    });
    // A template writes its own special tokens; plain text gets the tokenizer's (a begin token, where it has one).
    const encoded = await tokenizer.encodeBatch(texts, { addSpecial: !usesTemplate });
    rows.forEach((row, i) => {
      let ids = encoded[i] as Int32Array;
      if (ids.length === 0) {
        throw new ArcherError('ARCHER_E_DATA', `${placeOf(row.origin)}: the prompt has no tokens.`);
      }
      if (ids.length > maxPromptLength) {
        const overlong = { ...row.origin, length: ids.length };
        if (overlongPrompts === 'error') throw overlongError(overlong, maxPromptLength);
        if (overlongPrompts === 'drop') {
          dropped.push(overlong);
          return;
        }
        truncated.push(overlong);
        ids = ids.slice(ids.length - maxPromptLength);
      }
      prompts.push({ index: row.index, ids, promptKey: row.index });
    });
  }
  if (prompts.length === 0) {
    throw new ArcherError('ARCHER_E_DATA', nothingLeft(dataset.rows, dropped, maxPromptLength));
  }
  const lengths = prompts.map((prompt) => prompt.ids.length);
  return {
    prompts,
    report: {
      rows: dataset.rows,
      kept: prompts.length,
      dropped,
      truncated,
      lengths: {
        min: lengths.reduce((a, b) => Math.min(a, b)),
        mean: lengths.reduce((a, b) => a + b, 0) / lengths.length,
        max: lengths.reduce((a, b) => Math.max(a, b)),
      },
    },
  };
}

function nothingLeft(rows: number, dropped: OverlongPrompt[], limit: number): string {
  if (dropped.length === 0)
    return `None of the ${rows} rows is kept by its pass rate; widen data.pass_rates.above and below.`;
  const shortest = dropped.reduce((least, { length }) => Math.min(least, length), Infinity);
  const others = rows > dropped.length ? `; the other ${rows - dropped.length} were left out by their pass rate` : '';
  return (
    `All ${dropped.length} prompts are longer than data.max_prompt_length ${limit} (the shortest has ${shortest} tokens) ` +
    `and were dropped; raise it${others}.`
  );
}

function overlongError(prompt: OverlongPrompt, limit: number): ArcherError {
  return new ArcherError(
    'ARCHER_E_DATA',
    `${placeOf(prompt)}: the prompt has ${prompt.length} tokens, data.max_prompt_length is ${limit}; raise it, or set data.overlong_prompts to drop or truncate_left.`,
  );
}
