// JSON lines by byte offsets: one pass finds the lines (split on 0x0A only: U+2028 and a lone CR are text), and a row
// is read and parsed when it is asked for, so that a large file costs 16 bytes a row and shuffling moves no text.

import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { ArcherError, messageOf } from '../errors.js';
import { closeWith } from './held-file.js';

const chunkBytes = 1 << 20;
const newline = 0x0a;
const utf8 = new TextDecoder('utf-8', { fatal: true }); // drops a byte order mark, refuses broken UTF-8

/** Where the non-empty lines of a JSONL file are. */
export interface JsonlIndex {
  file: string;
  /** Open for reading as long as this index is in use. */
  fd: number;
  size: number;
  modifiedMs: number;
  /** Byte offset of every non-empty line. */
  starts: Float64Array;
  /** Length in bytes, without the line end. */
  lengths: Float64Array;
  /** Line number in the file, from 1 (blank lines count). */
  lines: Float64Array;
}

/** Reads the whole file once; `onLine` gets every non-empty line, parsed, and `onChunk` the raw bytes (for a hash). */
export function indexJsonl(
  file: string,
  onLine: (value: unknown, line: number) => void,
  onChunk: (chunk: Uint8Array) => void,
): JsonlIndex {
  const starts: number[] = [];
  const lengths: number[] = [];
  const lines: number[] = [];
  let pending: Buffer[] = [];
  let lineStart = 0;
  let line = 1;

  const endLine = (last: Buffer, nextStart: number) => {
    const bytes = pending.length === 0 ? last : Buffer.concat([...pending, last]);
    pending = [];
    if (!isBlank(bytes)) {
      starts.push(lineStart);
      lengths.push(bytes.length);
      lines.push(line);
      onLine(parseLine(bytes, file, line), line);
    }
    lineStart = nextStart;
    line += 1;
  };

  const fd = openSync(file, 'r');
  try {
    const stat = fstatSync(fd);
    for (let offset = 0; ; ) {
      const chunk = Buffer.allocUnsafe(chunkBytes);
      const filled = readSync(fd, chunk, 0, chunkBytes, offset);
      if (filled === 0) break;
      const bytes = chunk.subarray(0, filled);
      onChunk(bytes);
      let from = 0;
      for (let at = bytes.indexOf(newline); at !== -1; at = bytes.indexOf(newline, from)) {
        endLine(bytes.subarray(from, at), offset + at + 1);
        from = at + 1;
      }
      if (from < filled) pending.push(bytes.subarray(from));
      offset += filled;
    }
    if (pending.length > 0) endLine(Buffer.alloc(0), 0);
    const index: JsonlIndex = {
      file,
      fd,
      size: stat.size,
      modifiedMs: stat.mtimeMs,
      starts: Float64Array.from(starts),
      lengths: Float64Array.from(lengths),
      lines: Float64Array.from(lines),
    };
    closeWith(index, fd);
    return index;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** The value of the i-th non-empty line. A file that changed since it was indexed is an error, not another row. */
export function readJsonlRow(index: JsonlIndex, i: number): unknown {
  const stat = fstatSync(index.fd);
  if (stat.size !== index.size || stat.mtimeMs !== index.modifiedMs) {
    throw new ArcherError(
      'ARCHER_E_DATA',
      `${index.file} changed while it was in use; leave data files alone during a run, and start again.`,
    );
  }
  const bytes = Buffer.alloc(index.lengths[i] as number);
  readSync(index.fd, bytes, 0, bytes.length, index.starts[i] as number);
  return parseLine(bytes, index.file, index.lines[i] as number);
}

function parseLine(bytes: Uint8Array, file: string, line: number): unknown {
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch {
    throw new ArcherError('ARCHER_E_DATA', `${file}, line ${line}: not UTF-8 text; convert the file to UTF-8.`);
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ArcherError(
      'ARCHER_E_DATA',
      `${file}, line ${line}: not a JSON value (${messageOf(error)}); a JSONL file has one JSON object on each line.`,
      { cause: error },
    );
  }
}

function isBlank(bytes: Uint8Array): boolean {
  for (const byte of bytes) {
    if (byte !== 0x20 && byte !== 0x09 && byte !== 0x0d) return false;
  }
  return true;
}
