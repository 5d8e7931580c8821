// One blob: downloaded beside its place, gone on with after a break or in the next run, hashed, and put in its place.
// Pieces are written where they belong, never appended: two processes that fetch the same blob write the same bytes.
import { createHash, type Hash } from 'node:crypto';
import { constants, createReadStream } from 'node:fs';
import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { ArcherError } from '../errors.js';
import { ioError } from '../io-error.js';
import type { HubClient, RemoteFile } from './client.js';
import { retrying, throwIfAborted, TransientError } from './retry.js';

/**
 * @param place of the blob
 * @param onBytes bytes of the file that are here by now, what an earlier run left included
 * @throws ArcherError ARCHER_E_HUB: the bytes do not have the hub's hash, the connection keeps breaking; ARCHER_E_IO;
 *   ARCHER_E_ABORTED
 */
export async function downloadBlob(
  client: HubClient,
  commit: string,
  file: RemoteFile,
  place: string,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const partial = `${place}.incomplete`;
  try {
    await mkdir(dirname(place), { recursive: true });
    const isResumed = ((await sizeOf(partial)) ?? 0) > 0;
    await complete(client, commit, file, partial, onBytes);
    let found = await hashOf(partial, file, client.options.signal);
    if (found !== file.hash && isResumed) {
      // What an earlier run left may be of another making: once more from the beginning.
      await rm(partial);
      await complete(client, commit, file, partial, onBytes);
      found = await hashOf(partial, file, client.options.signal);
    }
    if (found !== file.hash) {
      await rm(partial);
      const remedy = 'nothing of it was kept; try again, and if it stays so, check HF_ENDPOINT or proxies on the way';
      throw new ArcherError(
        'ARCHER_E_HUB',
        `${file.path} has the hash ${found}, the hub says ${file.hash}; ${remedy}.`,
      );
    }
    await rename(partial, place);
  } catch (error) {
    if ((await sizeOf(place)) === file.bytes) return; // another process was faster
    throw ioError('write', place, error, 'HF_HUB_CACHE');
  }
}

async function complete(
  client: HubClient,
  commit: string,
  file: RemoteFile,
  partial: string,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const handle = await open(partial, constants.O_RDWR | constants.O_CREAT, 0o644);
  try {
    let here = (await handle.stat()).size;
    if (here > file.bytes) {
      await handle.truncate();
      here = 0;
    }
    onBytes(here);
    let most = here;
    const receive = async (piece: Uint8Array, at: number) => {
      here = at + piece.length;
      if (here > file.bytes) {
        throw new ArcherError('ARCHER_E_HUB', `${file.path} is longer than the ${file.bytes} bytes that the hub says.`);
      }
      for (let done = 0; done < piece.length; ) {
        done += (await handle.write(piece, done, piece.length - done, at + done)).bytesWritten;
      }
      most = Math.max(most, here);
      onBytes(here);
    };
    const attempt = async () => {
      if (here < file.bytes) await client.read(commit, file, here, receive);
      if (here < file.bytes) throw new TransientError(`the connection for ${file.path} ended early`);
    };
    await retrying(attempt, { ...client.options, progress: () => most });
    await handle.datasync();
  } finally {
    await handle.close();
  }
}

/** undefined where there is no such file */
export async function sizeOf(path: string): Promise<number | undefined> {
  return (await stat(path).catch(() => undefined))?.size;
}

async function hashOf(path: string, { hash, bytes }: RemoteFile, signal?: AbortSignal): Promise<string> {
  const digest: Hash = hash.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${bytes}\0`);
  for await (const piece of createReadStream(path, { highWaterMark: 1 << 20 })) {
    throwIfAborted(signal);
    digest.update(piece as Buffer);
  }
  return digest.digest('hex');
}
