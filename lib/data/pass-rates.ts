// Pass rates: how often a model solves each prompt. `eval` writes them, and training leaves out the prompts that teach
// nothing because they are always or never solved. A line of the file, whose further fields do not matter here:
//
//   {"prompt_id": "9c56cc51b374c3ba", "index": 17, "source": "gsm8k/train", "pass_rate": 0.25, "n": 8}
//
// prompt_id (Row.id) names the prompt by its content, in whatever file and order it stands. Without it `index` is the
// row over all data files, so that the file has to come from the very same data.train_files.

import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { ArcherError } from '../errors.js';
import { indexJsonl } from './jsonl.js';
import type { Row } from './types.js';

export interface PassRates {
  /** The share of right responses, 0 to 1; undefined for a row that the file does not have. */
  of(row: Row): number | undefined;
  /** SHA-256 (hex) of the file. */
  hash: string;
}

interface Rate {
  solved: number;
  responses: number;
  source: unknown;
}

/** @throws ArcherError ARCHER_E_DATA: no such file, a line without prompt_id and index, a pass_rate not of 0 … 1. */
export function readPassRates(file: string): PassRates {
  if (!existsSync(file)) {
    throw new ArcherError('ARCHER_E_DATA', `The file ${file} does not exist; check data.pass_rates.file.`);
  }
  const rates = new Map<string | number, Rate>();
  const hash = createHash('sha256');
  indexJsonl(
    file,
    (value, line) => {
      const { key, rate, responses, source } = parseLine(value, `${file}, line ${line}`);
      const known = rates.get(key) ?? { solved: 0, responses: 0, source };
      known.solved += rate * responses;
      known.responses += responses;
      rates.set(key, known);
    },
    (chunk) => hash.update(chunk),
  );
  return {
    hash: hash.digest('hex'),
    of(row) {
      const byId = rates.get(row.id);
      const rate = byId ?? rates.get(row.index);
      if (rate === undefined) return undefined;
      if (byId === undefined && rate.source !== undefined && rate.source !== row.dataSource) {
        throw new ArcherError(
          'ARCHER_E_DATA',
          `${file} says that row ${row.index} is of ${String(rate.source)}, but in data.train_files it is of ${row.dataSource}: it was measured on other files.`,
        );
      }
      return rate.solved / rate.responses;
    },
  };
}

function parseLine(
  value: unknown,
  place: string,
): { key: string | number; rate: number; responses: number; source: unknown } {
  const { prompt_id: id, index, pass_rate: rate, n = 1, source } = (value ?? {}) as Record<string, unknown>;
  const key = id ?? index;
  if (typeof key !== 'string' && !Number.isInteger(key)) {
    throw new ArcherError('ARCHER_E_DATA', `${place}: neither "prompt_id" nor "index" names a prompt.`);
  }
  if (typeof rate !== 'number' || !(rate >= 0 && rate <= 1)) {
    throw new ArcherError(
      'ARCHER_E_DATA',
      `${place}: field "pass_rate" is ${JSON.stringify(rate)}, not a number from 0 to 1.`,
    );
  }
  if (typeof n !== 'number' || !(n > 0)) {
    throw new ArcherError('ARCHER_E_DATA', `${place}: field "n" is ${JSON.stringify(n)}, not a number of responses.`);
  }
  return { key: key as string | number, rate, responses: n, source };
}

export interface RowWithRate {
  file: string;
  line: number;
  passRate: number;
}

/** Keeps what the model solves sometimes: above < pass rate < below. Rows without a rate are kept, and counted. */
export class PassRateFilter {
  readonly dropped: RowWithRate[] = [];
  withoutRate = 0;

  constructor(
    readonly rates: PassRates,
    readonly bounds: { above: number; below: number },
  ) {}

  keep(row: Row): boolean {
    const passRate = this.rates.of(row);
    if (passRate === undefined) {
      this.withoutRate += 1;
      return true;
    }
    const keeps = passRate > this.bounds.above && passRate < this.bounds.below;
    if (!keeps) this.dropped.push({ ...row.origin, passRate });
    return keeps;
  }
}
