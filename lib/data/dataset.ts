// Data files -> rows. Every row is read and checked when the set is loaded, so that a malformed one stops the run
// before anything is spent; later a row is parsed again when it is asked for.

import { createHash, type Hash } from 'node:crypto';
import { createReadStream, statSync } from 'node:fs';
import { extname } from 'node:path';
import { ArcherError } from '../errors.js';
import { indexJsonl, readJsonlRow } from './jsonl.js';
import { readParquet } from './parquet.js';
import { parseRow, type RowShape } from './row.js';
import type { DataColumns, Row } from './types.js';

export interface LoadDatasetOptions {
  /** JSONL (.jsonl, .ndjson, .json) and parquet files; their rows follow each other in this order. */
  files: readonly string[];
  /** Which fields hold prompt, answer and source. Default: verl's record, {prompt, answer}, or {question, answer}. */
  columns?: DataColumns;
}

export interface DatasetReport {
  rows: number;
  files: { file: string; rows: number; shapes: Partial<Record<RowShape, number>> }[];
  /** Rows per data source. */
  sources: Record<string, number>;
  /** Rows whose ground truth is empty: no built-in verifier can ever reward them. */
  emptyGroundTruth: { file: string; line: number }[];
}

/** A loaded data set. */
export interface Dataset {
  /** Number of rows. */
  readonly rows: number;
  /** Row `i` of 0 … rows−1, parsed on demand. */
  get(i: number): Row;
  readonly report: DatasetReport;
  /** SHA-256 (hex) over the files' bytes in order and the columns: the same hash, the same rows. */
  readonly hash: string;
}

interface Source {
  file: string;
  rows: number;
  read(i: number): { value: unknown; line: number };
}

/**
 * Loads and checks data files.
 *
 * @throws ArcherError ARCHER_E_DATA: a missing file, an unknown file type, no rows at all, or a malformed row (the
 * message names file, line and field).
 */
export async function loadDataset(options: LoadDatasetOptions): Promise<Dataset> {
  const { files, columns } = options;
  if (files.length === 0) {
    throw new ArcherError('ARCHER_E_DATA', 'No data files are named; set data.train_files to JSONL or parquet files.');
  }
  const hash = createHash('sha256');
  const report: DatasetReport = { rows: 0, files: [], sources: {}, emptyGroundTruth: [] };
  const sources: Source[] = [];
  for (const file of files) {
    const shapes: Partial<Record<RowShape, number>> = {};
    const first = report.rows;
    const check = (value: unknown, line: number) => {
      const { row, shape } = parseRow(value, { file, line, index: report.rows, columns });
      shapes[shape] = (shapes[shape] ?? 0) + 1;
      report.sources[row.dataSource] = (report.sources[row.dataSource] ?? 0) + 1;
      if (isEmptyTruth(row.groundTruth)) report.emptyGroundTruth.push(row.origin);
      report.rows += 1;
    };
    sources.push(await openSource(file, check, hash));
    report.files.push({ file, rows: report.rows - first, shapes });
  }
  if (report.rows === 0) {
    throw new ArcherError('ARCHER_E_DATA', `There is no row in ${files.join(', ')}; a run needs at least one prompt.`);
  }
  hash.update(JSON.stringify([columns?.prompt ?? null, columns?.answer ?? null, columns?.source ?? null]));

  const offsets = [0];
  for (const source of sources) offsets.push((offsets.at(-1) as number) + source.rows);
  return {
    rows: report.rows,
    report,
    hash: hash.digest('hex'),
    get(i) {
      if (!Number.isInteger(i) || i < 0 || i >= report.rows) {
        throw new ArcherError('ARCHER_E_INTERNAL', `Row ${i} was asked for; the data set has ${report.rows} rows.`);
      }
      const at = offsets.findLastIndex((offset) => offset <= i);
      const source = sources[at] as Source;
      const { value, line } = source.read(i - (offsets[at] as number));
      return parseRow(value, { file: source.file, line, index: i, columns }).row;
    },
  };
}

async function openSource(file: string, check: (value: unknown, line: number) => void, hash: Hash): Promise<Source> {
  const stat = statSync(file, { throwIfNoEntry: false });
  if (stat === undefined) {
    throw new ArcherError(
      'ARCHER_E_DATA',
      `The data file ${file} does not exist; check data.train_files and val_files.`,
    );
  }
  if (!stat.isFile()) {
    throw new ArcherError('ARCHER_E_DATA', `${file} is not a file; name the JSONL or parquet files one by one.`);
  }
  hash.update(`${stat.size}\n`);
  switch (extname(file).toLowerCase()) {
    case '.jsonl':
    case '.ndjson':
    case '.json': {
      const index = indexJsonl(file, check, (chunk) => hash.update(chunk));
      return {
        file,
        rows: index.starts.length,
        read: (i) => ({ value: readJsonlRow(index, i), line: index.lines[i] as number }),
      };
    }
    case '.parquet': {
      for await (const chunk of createReadStream(file)) hash.update(chunk);
      const { rows, read } = await readParquet(file, check);
      return { file, rows, read: (i) => ({ value: read(i), line: i + 1 }) };
    }
    default:
      throw new ArcherError(
        'ARCHER_E_DATA',
        `${file} has the unknown extension "${extname(file)}"; data files are .jsonl or .json (one JSON object a line) or .parquet.`,
      );
  }
}

function isEmptyTruth(truth: string | string[]): boolean {
  return Array.isArray(truth) ? truth.every((entry) => entry.trim() === '') : truth.trim() === '';
}
