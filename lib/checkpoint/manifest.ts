// manifest.json of a checkpoint: which files it has, how long each is and its SHA-256; the step; who wrote it; and the
// facts on which bit-equality rests (build, instruction set, threads, slots). The manifest carries a digest of itself.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ArcherError, messageOf } from '../errors.js';
import { hashFile } from './files.js';
import { ioError } from '../io-error.js';

export const manifestName = 'manifest.json';

export type JsonValue = null | boolean | number | string | JsonValue[] | { [key: string]: JsonValue };

export interface ManifestFile {
  /** Relative to the checkpoint's folder, with forward slashes. */
  path: string;
  bytes: number;
  sha256: string;
}

export interface Manifest {
  format: 1;
  step: number;
  /** Name and version of the program. */
  createdBy: string;
  facts: { [key: string]: JsonValue };
  files: ManifestFile[];
}

function digestOf(manifest: Manifest): string {
  const { format, step, createdBy, facts, files } = manifest;
  return createHash('sha256').update(JSON.stringify({ format, step, createdBy, facts, files })).digest('hex');
}

/** The text of manifest.json. */
export function manifestText(manifest: Manifest): string {
  return `${JSON.stringify({ ...manifest, digest: digestOf(manifest) }, null, 2)}\n`;
}

function damaged(path: string, what: string): ArcherError {
  return new ArcherError(
    'ARCHER_E_CHECKPOINT',
    `Damaged checkpoint: ${path} ${what}. Restore that file, or resume from another checkpoint.`,
  );
}

function isManifest(value: unknown): value is Manifest & { digest: unknown } {
  const m = value as Partial<Manifest> | null;
  return (
    typeof m === 'object' &&
    m !== null &&
    Number.isInteger(m.step) &&
    typeof m.createdBy === 'string' &&
    typeof m.facts === 'object' &&
    Array.isArray(m.files) &&
    m.files.every((f) => typeof f?.path === 'string' && typeof f.bytes === 'number' && typeof f.sha256 === 'string')
  );
}

/**
 * Reads manifest.json and checks its own digest, not the files (see {@link verifyCheckpoint}).
 *
 * @throws ARCHER_E_CHECKPOINT where it is missing, cut off, altered or of a later format
 */
export async function readManifest(dir: string): Promise<Manifest> {
  const path = join(dir, manifestName);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOENT') throw damaged(path, 'is missing');
    throw ioError('read', path, error);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw damaged(path, `is no JSON (${messageOf(error)})`);
  }
  const format = (value as { format?: unknown } | null)?.format;
  if (typeof format === 'number' && format > 1) {
    throw new ArcherError('ARCHER_E_CHECKPOINT', `${path} has format ${format}; this version reads 1. Update it.`);
  }
  if (!isManifest(value)) throw damaged(path, 'is no manifest');
  const { digest, ...rest } = value;
  const manifest: Manifest = rest;
  if (digestOf(manifest) !== digest) throw damaged(path, 'was altered (its digest does not fit)');
  return manifest;
}

/**
 * Checks every file of a checkpoint against the manifest: presence, size, SHA-256. Files that the manifest does not
 * name are ignored.
 *
 * @returns the manifest
 * @throws ARCHER_E_CHECKPOINT naming the first damaged file and what is wrong with it
 */
export async function verifyCheckpoint(dir: string): Promise<Manifest> {
  const manifest = await readManifest(dir);
  for (const file of manifest.files) {
    const path = join(dir, file.path);
    let found: { bytes: number; sha256: string };
    try {
      found = await hashFile(path);
    } catch (error) {
      const code = (error as { code?: string }).code;
      if (code === 'ENOENT' || code === 'ENOTDIR') throw damaged(path, 'is missing');
      if (code === 'EISDIR') throw damaged(path, 'is a folder');
      throw ioError('read', path, error);
    }
    if (found.bytes !== file.bytes) throw damaged(path, `has ${found.bytes} bytes instead of ${file.bytes}`);
    if (found.sha256 !== file.sha256) {
      throw damaged(path, `has other content than was written (SHA-256 ${found.sha256}, not ${file.sha256})`);
    }
  }
  return manifest;
}
