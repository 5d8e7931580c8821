// The atomic store: a run folder holds checkpoints global_step_N, each a Hugging Face model folder with trainer/ and
// manifest.json beside the weights. A checkpoint is written under a temporary name, hashed, fsynced, and renamed: at
// no moment does a reader see half of one, and no earlier one is touched before the new one is in place.
import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { ArcherError, isArcherError, messageOf } from '../errors.js';
import { hashFile, listTree, syncDirectory, writeFileSynced } from './files.js';
import { ioError } from '../io-error.js';
import { isProcessAlive } from './lock.js';
import {
  type JsonValue,
  type Manifest,
  type ManifestFile,
  manifestName,
  manifestText,
  verifyCheckpoint,
} from './manifest.js';

/** A checkpoint that has been verified. */
export interface Checkpoint {
  dir: string;
  step: number;
  manifest: Manifest;
}

export interface WriteCheckpointOptions {
  runDir: string;
  /** Completed training steps; the folder is called global_step_<step>. */
  step: number;
  /** Puts every file into the folder it is given (subfolders allowed, no links). manifest.json is ours. */
  write: (dir: string) => Promise<void>;
  /** How many checkpoints stay, this one included; 0, a negative number or none: all. */
  keep?: number;
  /** Name and version of the program, for the manifest. */
  createdBy: string;
  /** Build, instruction set, threads, slots, …: what bit-equality rests on. */
  facts?: { [key: string]: JsonValue };
}

const stepName = /^global_step_(\d+)$/;
// .old- is a checkpoint of the same step that is being replaced; see putInPlace.
const leftoverName = /^\.(tmp|old)-(global_step_\d+)-(\d+)$/;

/** The folder of a step's checkpoint. */
export function checkpointDir(runDir: string, step: number): string {
  return join(runDir, `global_step_${step}`);
}

/** The steps that have a folder, the newest first; a run folder that does not exist has none. Nothing is verified. */
export async function listCheckpoints(runDir: string): Promise<{ dir: string; step: number }[]> {
  let names: string[];
  try {
    names = await readdir(runDir);
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOENT') return [];
    throw ioError('read the run folder', runDir, error);
  }
  return names
    .flatMap((name) => {
      const step = stepName.exec(name)?.[1];
      return step === undefined ? [] : [{ dir: join(runDir, name), step: Number(step) }];
    })
    .sort((a, b) => b.step - a.step);
}

/**
 * Removes what writers that died left behind. To be called at the start of a run, before anything is written: what
 * carries this process's own id is then a leftover too (containers give the same id again and again).
 *
 * @returns the names that were removed or put back
 */
export async function cleanLeftovers(runDir: string): Promise<string[]> {
  const cleaned: string[] = [];
  try {
    for (const name of await readdir(runDir)) {
      const [, kind, target, pid] = leftoverName.exec(name) ?? [];
      if (target === undefined || pid === undefined) continue;
      if (Number(pid) !== process.pid && isProcessAlive(Number(pid))) continue;
      const path = join(runDir, name);
      // Died between the two renames: the old checkpoint is the only one of its step.
      if (kind === 'old' && !existsSync(join(runDir, target))) await rename(path, join(runDir, target));
      else await rm(path, { recursive: true, force: true });
      cleaned.push(name);
    }
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOENT' && !existsSync(runDir)) return cleaned;
    throw ioError('clean up in', runDir, error);
  }
  return cleaned;
}

async function describeFiles(dir: string): Promise<ManifestFile[]> {
  const { files, folders } = await listTree(dir);
  if (files.length === 0) {
    throw new ArcherError('ARCHER_E_INTERNAL', `Nothing was written into ${dir}: a checkpoint cannot be empty.`);
  }
  if (files.includes(manifestName)) {
    throw new ArcherError('ARCHER_E_INTERNAL', `${join(dir, manifestName)} is written by the store alone.`);
  }
  const described: ManifestFile[] = [];
  for (const path of files) described.push({ path, ...(await hashFile(join(dir, path), { sync: true })) });
  for (const folder of folders) await syncDirectory(join(dir, folder));
  return described;
}

// rename() does not replace a folder that has files, so an earlier checkpoint of the same step (a damaged one, met
// again after a resume before it) steps aside first; cleanLeftovers puts it back if we die in between.
async function putInPlace(temporary: string, final: string, old: string): Promise<void> {
  const replaces = existsSync(final);
  if (replaces) await rename(final, old);
  try {
    await rename(temporary, final);
  } catch (error) {
    if (replaces) await rename(old, final).catch(() => {});
    throw error;
  }
  if (replaces) await rm(old, { recursive: true, force: true });
}

/**
 * Writes one checkpoint, then removes older ones beyond `keep`. Whatever fails, the temporary folder is removed and
 * every earlier checkpoint is still there.
 *
 * @returns the new checkpoint's folder and the older ones that were removed
 * @throws ARCHER_E_IO (full disk, permissions, read-only); errors of `write` that are no system errors pass unchanged
 */
export async function writeCheckpoint(options: WriteCheckpointOptions): Promise<{ dir: string; removed: string[] }> {
  const { runDir, step, createdBy } = options;
  if (!Number.isInteger(step) || step < 0) {
    throw new ArcherError('ARCHER_E_INTERNAL', `A checkpoint's step is a whole number, not ${step}.`);
  }
  const final = checkpointDir(runDir, step);
  const temporary = join(runDir, `.tmp-${basename(final)}-${process.pid}`);
  const old = join(runDir, `.old-${basename(final)}-${process.pid}`);
  try {
    await mkdir(runDir, { recursive: true });
    await rm(temporary, { recursive: true, force: true });
    await mkdir(temporary);
    await options.write(temporary);
    const files = await describeFiles(temporary);
    const manifest: Manifest = { format: 1, step, createdBy, facts: options.facts ?? {}, files };
    await writeFileSynced(join(temporary, manifestName), manifestText(manifest));
    await syncDirectory(temporary);
    await putInPlace(temporary, final, old);
    await syncDirectory(runDir);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => {});
    throw ioError('write the checkpoint', final, error);
  }
  return { dir: final, removed: await prune(runDir, step, options.keep ?? 0) };
}

// Only what is older than the checkpoint just written may go: that one is the newest valid. Later steps can only be
// damaged ones that a resume went back behind; they are replaced when their step comes again.
async function prune(runDir: string, newest: number, keep: number): Promise<string[]> {
  if (keep <= 0) return [];
  const older = (await listCheckpoints(runDir)).filter((checkpoint) => checkpoint.step < newest);
  const removed = older.slice(keep - 1).map((checkpoint) => checkpoint.dir);
  for (const dir of removed) {
    try {
      // The manifest goes first: a removal that is cut short leaves no folder that could pass for a checkpoint.
      await rm(join(dir, manifestName), { force: true });
      await rm(dir, { recursive: true, force: true });
    } catch (error) {
      throw ioError('remove the old checkpoint', dir, error);
    }
  }
  return removed;
}

/**
 * The newest checkpoint of a run folder whose every file verifies.
 *
 * @returns the checkpoint (undefined where there is none) and one sentence for every damaged one that was passed over
 */
export async function latestValid(runDir: string): Promise<{ checkpoint?: Checkpoint; warnings: string[] }> {
  const warnings: string[] = [];
  for (const { dir, step } of await listCheckpoints(runDir)) {
    try {
      return { checkpoint: { dir, step, manifest: await verifyCheckpoint(dir) }, warnings };
    } catch (error) {
      if (!isArcherError(error) || error.code !== 'ARCHER_E_CHECKPOINT') throw error;
      warnings.push(messageOf(error));
    }
  }
  return { warnings };
}
