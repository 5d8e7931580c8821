// File primitives of the checkpoint store: hash, durable write, durable rename. What is renamed into place has been
// fsynced before, so that a power cut leaves either the whole new thing or the old one.
import { createHash } from 'node:crypto';
import { type FileHandle, open, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ArcherError } from '../errors.js';

const chunkBytes = 4 * 1024 * 1024;

async function hashHandle(handle: FileHandle): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash('sha256');
  const chunk = Buffer.allocUnsafe(chunkBytes);
  let bytes = 0;
  for (;;) {
    const { bytesRead } = await handle.read(chunk, 0, chunkBytes, bytes);
    if (bytesRead === 0) break;
    hash.update(chunk.subarray(0, bytesRead));
    bytes += bytesRead;
  }
  return { bytes, sha256: hash.digest('hex') };
}

/** Size in bytes and SHA-256 (hex) of a file, read in pieces of 4 MiB. `sync` also forces it to the disk. */
export async function hashFile(path: string, options: { sync?: boolean } = {}) {
  const handle = await open(path, 'r');
  try {
    if (options.sync) await handle.sync();
    return await hashHandle(handle);
  } finally {
    await handle.close();
  }
}

/** Forces a folder's entries to the disk; a file system that cannot (some network ones) is left to itself. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } catch (error) {
    if (!['EINVAL', 'ENOTSUP'].includes((error as { code?: string }).code ?? '')) throw error;
  } finally {
    await handle.close();
  }
}

/** Writes a new file and forces it to the disk. */
export async function writeFileSynced(path: string, text: string): Promise<void> {
  const handle = await open(path, 'w');
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Replaces a file as a whole: readers see the old text or the new one, also after a power cut. */
export async function replaceFile(path: string, text: string): Promise<void> {
  const temporary = `${path}.tmp-${process.pid}`;
  try {
    await writeFileSynced(temporary, text);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {});
    throw error;
  }
  await syncDirectory(dirname(path));
}

/** All plain files below a folder, relative and sorted, and its folders, the deepest first. */
export async function listTree(root: string): Promise<{ files: string[]; folders: string[] }> {
  const files: string[] = [];
  const folders: string[] = [];
  async function walk(relative: string): Promise<void> {
    for (const entry of await readdir(join(root, relative), { withFileTypes: true })) {
      const path = relative === '' ? entry.name : `${relative}/${entry.name}`;
      if (entry.isDirectory()) await walk(path);
      else if (entry.isFile()) files.push(path);
      else
        throw new ArcherError('ARCHER_E_INTERNAL', `${join(root, path)} is not a plain file: a checkpoint must copy.`);
    }
    folders.push(relative);
  }
  await walk('');
  files.sort();
  return { files, folders };
}
