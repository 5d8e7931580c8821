// A resumed run's metrics.jsonl must be what the uninterrupted run's would be: the lines that were written after the
// checkpoint are cut off, at the byte offset that the trainer's state recorded.
import { copyFile, open, stat, truncate } from 'node:fs/promises';
import { resolve } from 'node:path';
import { ioError } from '../io-error.js';

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOENT') return 0;
    throw error;
  }
}

/** The length of the whole lines among the first `bytes` bytes. */
async function wholeLines(path: string, bytes: number): Promise<number> {
  const handle = await open(path, 'r');
  try {
    const chunk = Buffer.alloc(64 * 1024);
    for (let end = bytes; end > 0; ) {
      const begin = Math.max(0, end - chunk.length);
      const { bytesRead } = await handle.read(chunk, 0, end - begin, begin);
      const newline = chunk.subarray(0, bytesRead).lastIndexOf(0x0a);
      if (newline >= 0) return begin + newline + 1;
      end = begin;
    }
    return 0;
  } finally {
    await handle.close();
  }
}

/**
 * Cuts a JSON-lines file back to its first `bytes` bytes. A file that is shorter, or whose cut would fall inside a
 * line, keeps its whole lines and is reported: the run can go on, but its log has a gap.
 *
 * @returns a sentence for the user where the file was not what the checkpoint says, else undefined
 * @throws ARCHER_E_IO
 */
export async function truncateJsonl(path: string, bytes: number): Promise<string | undefined> {
  try {
    const size = await sizeOf(path);
    if (size === 0 && bytes === 0) return undefined;
    const keep = size === 0 ? 0 : await wholeLines(path, Math.min(size, bytes));
    if (keep < size) await truncate(path, keep);
    if (keep === bytes) return undefined;
    const fault = size < bytes ? `${size} of ${bytes} bytes` : 'altered';
    return (
      `${path} is not what the checkpoint was saved with (${fault}): ` +
      `its ${keep} bytes of whole lines are kept, and steps before the checkpoint may be missing from it.`
    );
  } catch (error) {
    throw ioError('cut back', path, error);
  }
}

/**
 * Makes `target` what `source` was at the checkpoint: in place where they are the same file, else as a copy, so that
 * a run that begins from another run's checkpoint has its history.
 *
 * @returns as {@link truncateJsonl}
 * @throws ARCHER_E_IO
 */
export async function restoreJsonl(options: {
  source: string;
  target: string;
  bytes: number;
}): Promise<string | undefined> {
  const { source, target, bytes } = options;
  if (resolve(source) !== resolve(target) && bytes > 0) {
    try {
      if ((await sizeOf(source)) > 0) await copyFile(source, target);
    } catch (error) {
      throw ioError('copy the metrics to', target, error);
    }
  }
  return truncateJsonl(target, bytes);
}
