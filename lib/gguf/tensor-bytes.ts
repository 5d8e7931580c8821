// Byte ranges of a GGUF file.
import { type FileHandle, open } from 'node:fs/promises';
import { ArcherError } from '../errors.js';
import type { GgufTensor } from './reader.js';

/** Fills `into` from the file's byte `begin` on. */
export async function readRange(file: FileHandle, into: Uint8Array, begin: number): Promise<void> {
  for (let done = 0; done < into.length; ) {
    const { bytesRead } = await file.read(into, done, into.length - done, begin + done);
    if (bytesRead === 0) throw new ArcherError('ARCHER_E_MODEL', 'The GGUF file became shorter while it was read.');
    done += bytesRead;
  }
}

/** All bytes of one small tensor. */
export async function readTensorBytes(path: string, { begin, end }: GgufTensor): Promise<Uint8Array> {
  const file = await open(path);
  try {
    const bytes = new Uint8Array(end - begin);
    await readRange(file, bytes, begin);
    return bytes;
  } finally {
    await file.close();
  }
}
