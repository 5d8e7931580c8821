// Parquet by row groups: one at a time is decoded, and its rows go as JSON to a temporary file, from which any row is
// read in microseconds. So a large file costs disk space and 8 bytes a row, and a shuffled epoch decodes nothing twice.

import { mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ArcherError, messageOf } from '../errors.js';
import { closeWith } from './held-file.js';

const writeBytes = 1 << 24;

export interface ParquetRows {
  rows: number;
  /** The i-th row, from 0. */
  read(i: number): unknown;
}

/** Reads the whole file once; `onRow` gets every row with its number, from 1. */
export async function readParquet(file: string, onRow: (value: unknown, row: number) => void): Promise<ParquetRows> {
  const [{ asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects }, { compressors }] = await Promise.all([
    import('hyparquet'),
    import('hyparquet-compressors'),
  ]);
  const damaged = (error: unknown) =>
    new ArcherError('ARCHER_E_DATA', `${file} is not a readable parquet file: ${messageOf(error)}.`, { cause: error });
  const buffer = await asyncBufferFromFile(file);
  const metadata = await parquetMetadataAsync(buffer).catch((error) => {
    throw damaged(error);
  });
  const fd = openNameless();
  const ends: number[] = [];
  const read = (i: number): unknown => {
    const start = i === 0 ? 0 : (ends[i - 1] as number);
    const bytes = Buffer.alloc((ends[i] as number) - start);
    readSync(fd, bytes, 0, bytes.length, start);
    return JSON.parse(bytes.toString('utf8'));
  };
  closeWith(read, fd);
  for (const group of metadata.row_groups) {
    const rowStart = ends.length;
    const rowEnd = rowStart + Number(group.num_rows);
    const records = await parquetReadObjects({ file: buffer, metadata, rowStart, rowEnd, compressors }).catch(
      (error) => {
        throw damaged(error);
      },
    );
    let lines: Buffer[] = [];
    let written = ends.at(-1) ?? 0;
    for (const record of records) {
      const line = Buffer.from(JSON.stringify(record, plain));
      onRow(JSON.parse(line.toString('utf8')), ends.length + 1);
      lines.push(line);
      const end = (ends.at(-1) ?? 0) + line.length;
      ends.push(end);
      if (end - written < writeBytes && ends.length < rowEnd) continue;
      append(fd, Buffer.concat(lines), file);
      lines = [];
      written = end;
    }
  }
  return { rows: ends.length, read };
}

/** A temporary file without a name: closing it frees its space. */
function openNameless(): number {
  const folder = mkdtempSync(join(tmpdir(), 'archer-parquet-'));
  try {
    return openSync(join(folder, 'rows'), 'wx+');
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function append(fd: number, bytes: Buffer, file: string): void {
  try {
    for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
  } catch (error) {
    throw new ArcherError(
      'ARCHER_E_IO',
      `The rows of ${file} cannot be unpacked into ${tmpdir()}: ${messageOf(error)}. Free space there, or set TMPDIR to a folder on another disk.`,
      { cause: error },
    );
  }
}

/** An int64 is a number where that is exact, else its digits; binary columns become base64. */
function plain(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : value.toString();
  }
  if (ArrayBuffer.isView(value))
    return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64');
  return value;
}
