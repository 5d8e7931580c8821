// Which folder a run writes to, and from which checkpoint it goes on. run.json in every run folder says what the run
// is: its status, the hashes of its resolved configuration and its data, and the configuration itself. Folders are
// <default_local_dir>/<project_name>/<experiment_name>, then <experiment_name>-2, -3, …; none is ever written twice.
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, realpath } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { ArcherError, isArcherError } from '../errors.js';
import { replaceFile } from './files.js';
import { ioError } from '../io-error.js';
import { lockRunFolder, type RunLock } from './lock.js';
import { type JsonValue, manifestName, verifyCheckpoint } from './manifest.js';
import { type Checkpoint, cleanLeftovers, latestValid, listCheckpoints } from './store.js';

export const runRecordName = 'run.json';

/** run.json. It holds no clock. */
export interface RunRecord {
  format: 1;
  status: 'running' | 'finished';
  /** Of the resolved configuration without the keys that do not change the result (the caller decides). */
  configHash: string;
  dataHash: string;
  /** Name and version of the program that began the run. */
  createdBy: string;
  config: JsonValue;
  /** The checkpoint in another run's folder that this run began from. */
  resumedFrom?: string;
}

export interface OpenRunOptions {
  /** trainer.default_local_dir */
  localDir: string;
  /** trainer.project_name, trainer.experiment_name */
  projectName: string;
  experimentName: string;
  /**
   * auto: goes on with an unfinished run of the same configuration and data, else begins a new folder. disable:
   * always a new folder. Else the path of a checkpoint (global_step_N) or of a run folder (its newest valid one).
   */
  resumeMode: string;
  configHash: string;
  dataHash: string;
  createdBy: string;
  config: JsonValue;
}

/** A run folder that is ours (locked) until `finish` or `release`. */
export interface RunFolder {
  dir: string;
  /** Where to go on; undefined: from the start. Its run folder may be another one than `dir`. */
  resumeFrom?: Checkpoint;
  /** The folder existed before: its metrics have to be cut back to the checkpoint (see {@link restoreJsonl}). */
  continued: boolean;
  /** Damaged checkpoints that were passed over, unreadable run.json files. */
  warnings: string[];
  /** Marks the run finished and gives the folder free. */
  finish(): Promise<void>;
  /** Gives the folder free; the run stays unfinished and `auto` goes on with it. */
  release(): Promise<void>;
}

/** Reads run.json; undefined where there is none. @throws ARCHER_E_CHECKPOINT where it cannot be understood */
export async function readRunRecord(dir: string): Promise<RunRecord | undefined> {
  const path = join(dir, runRecordName);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as { code?: string }).code ?? '')) return undefined;
    throw ioError('read', path, error);
  }
  let record: Partial<RunRecord> | null = null;
  try {
    record = JSON.parse(text);
  } catch {
    // Said below.
  }
  if (record?.format !== 1 || !['running', 'finished'].includes(record.status ?? '')) {
    throw new ArcherError(
      'ARCHER_E_CHECKPOINT',
      `${path} is damaged or of another version. To go on with that run, name one of its checkpoints in ` +
        'trainer.resume_mode.',
    );
  }
  return record as RunRecord;
}

async function readRecordOrWarn(dir: string, warnings: string[]): Promise<RunRecord | undefined> {
  try {
    return await readRunRecord(dir);
  } catch (error) {
    if (!isArcherError(error) || error.code !== 'ARCHER_E_CHECKPOINT') throw error;
    warnings.push(`${error.message} Nothing is written into that folder.`);
    return undefined;
  }
}

async function writeRunRecord(dir: string, record: RunRecord): Promise<void> {
  const path = join(dir, runRecordName);
  try {
    await replaceFile(path, `${JSON.stringify(record, null, 2)}\n`);
  } catch (error) {
    throw ioError('write', path, error);
  }
}

function baseFolder(options: OpenRunOptions): string {
  for (const [key, name] of [
    ['project_name', options.projectName],
    ['experiment_name', options.experimentName],
  ] as const) {
    if (name === '' || name === '.' || name === '..' || /[/\0]/.test(name)) {
      throw new ArcherError(
        'ARCHER_E_CONFIG',
        `trainer.${key}: ${JSON.stringify(name)} cannot name a folder. Use letters, digits, "-", "_" or ".".`,
      );
    }
  }
  return resolve(options.localDir, options.projectName, options.experimentName);
}

/** The base folder (number 1) and its numbered siblings that exist, the highest number first. */
async function listSiblings(base: string): Promise<{ dir: string; number: number }[]> {
  const parent = dirname(base);
  const name = basename(base);
  let entries: string[];
  try {
    entries = await readdir(parent);
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOENT') return [];
    throw ioError('read', parent, error);
  }
  return entries
    .flatMap((entry) => {
      if (entry === name) return [{ dir: base, number: 1 }];
      const number = entry.startsWith(`${name}-`) ? entry.slice(name.length + 1) : '';
      return /^[1-9]\d*$/.test(number) && number !== '1' ? [{ dir: join(parent, entry), number: Number(number) }] : [];
    })
    .sort((a, b) => b.number - a.number);
}

async function makeNewFolder(base: string): Promise<{ dir: string; lock: RunLock }> {
  try {
    await mkdir(dirname(base), { recursive: true });
    for (;;) {
      const highest = (await listSiblings(base))[0]?.number ?? 0;
      const dir = highest === 0 ? base : `${base}-${highest + 1}`;
      try {
        await mkdir(dir);
      } catch (error) {
        if ((error as { code?: string }).code === 'EEXIST') continue;
        throw error;
      }
      return { dir, lock: await lockRunFolder(dir) };
    }
  } catch (error) {
    throw ioError('make the run folder', base, error);
  }
}

function asFolder(
  place: { dir: string; lock: RunLock; record: RunRecord },
  rest: Pick<RunFolder, 'resumeFrom' | 'continued' | 'warnings'>,
): RunFolder {
  return {
    dir: place.dir,
    ...rest,
    async finish() {
      await writeRunRecord(place.dir, { ...place.record, status: 'finished' });
      await place.lock.release();
    },
    release: () => place.lock.release(),
  };
}

async function beginNew(options: OpenRunOptions, warnings: string[], resumeFrom?: Checkpoint): Promise<RunFolder> {
  const { configHash, dataHash, createdBy, config } = options;
  const record: RunRecord = { format: 1, status: 'running', configHash, dataHash, createdBy, config };
  if (resumeFrom !== undefined) record.resumedFrom = resumeFrom.dir;
  const place = await makeNewFolder(baseFolder(options));
  try {
    await writeRunRecord(place.dir, record);
  } catch (error) {
    await place.lock.release();
    throw error;
  }
  return asFolder({ ...place, record }, { ...(resumeFrom && { resumeFrom }), continued: false, warnings });
}

/** The checkpoint with which an unfinished run goes on; undefined: it had written none, so it starts again. */
async function checkpointOf(dir: string, record: RunRecord | undefined, warnings: string[]) {
  const { checkpoint, warnings: damaged } = await latestValid(dir);
  warnings.push(...damaged);
  if (checkpoint !== undefined) return checkpoint;
  if (damaged.length > 0) {
    throw new ArcherError(
      'ARCHER_E_CHECKPOINT',
      `No checkpoint in ${dir} is valid. ${damaged.join(' ')} Set trainer.resume_mode to disable to begin anew.`,
    );
  }
  const origin = record?.resumedFrom;
  if (origin === undefined) return undefined;
  const manifest = await verifyCheckpoint(origin);
  return { dir: origin, step: manifest.step, manifest };
}

async function continueRun(
  dir: string,
  record: RunRecord,
  warnings: string[],
  verified?: Checkpoint,
): Promise<RunFolder> {
  const lock = await lockRunFolder(dir);
  try {
    await cleanLeftovers(dir);
    const resumeFrom = verified ?? (await checkpointOf(dir, record, warnings));
    return asFolder({ dir, lock, record }, { ...(resumeFrom && { resumeFrom }), continued: true, warnings });
  } catch (error) {
    await lock.release();
    throw error;
  }
}

function isSameRun(record: RunRecord, options: OpenRunOptions): boolean {
  return (
    record.status === 'running' && record.configHash === options.configHash && record.dataHash === options.dataHash
  );
}

async function openAuto(options: OpenRunOptions): Promise<RunFolder> {
  const warnings: string[] = [];
  for (const { dir } of await listSiblings(baseFolder(options))) {
    const record = await readRecordOrWarn(dir, warnings);
    if (record !== undefined && isSameRun(record, options)) return continueRun(dir, record, warnings);
  }
  return beginNew(options, warnings);
}

async function isSamePath(a: string, b: string): Promise<boolean> {
  return (await realpath(a)) === (await realpath(b));
}

async function openPath(options: OpenRunOptions): Promise<RunFolder> {
  const path = resolve(options.resumeMode);
  const isCheckpoint = existsSync(join(path, manifestName));
  if (!isCheckpoint && !existsSync(join(path, runRecordName)) && (await listCheckpoints(path)).length === 0) {
    throw new ArcherError(
      'ARCHER_E_CONFIG',
      `trainer.resume_mode: ${options.resumeMode} is no checkpoint (a folder with ${manifestName}) and no run folder ` +
        '(global_step_N folders). Give one of these, auto or disable.',
    );
  }
  const warnings: string[] = [];
  const sourceRun = isCheckpoint ? dirname(await realpath(path)) : path;
  const record = await readRecordOrWarn(sourceRun, warnings);
  let checkpoint: Checkpoint | undefined;
  if (isCheckpoint) {
    const manifest = await verifyCheckpoint(path);
    checkpoint = { dir: path, step: manifest.step, manifest };
  } else {
    checkpoint = await checkpointOf(path, record, warnings);
  }
  if (checkpoint === undefined) {
    throw new ArcherError(
      'ARCHER_E_CHECKPOINT',
      `trainer.resume_mode: ${options.resumeMode} holds no checkpoint yet. Set it to auto or disable.`,
    );
  }
  // In place only where nothing newer that is valid would be left beside what we are going to write.
  const newest = (await listCheckpoints(sourceRun))[0];
  const isNewest = !isCheckpoint || (newest !== undefined && (await isSamePath(newest.dir, checkpoint.dir)));
  if (record !== undefined && isSameRun(record, options) && isNewest) {
    return continueRun(sourceRun, record, warnings, checkpoint);
  }
  return beginNew(options, warnings, checkpoint);
}

/**
 * Chooses, makes and locks the run folder, and finds the checkpoint to go on from. With a path, the named run is gone
 * on with in place if it is this one (same hashes, unfinished) and the checkpoint its newest; else the run begins in
 * a new numbered folder from that checkpoint, and the old folder is left alone.
 *
 * @throws ARCHER_E_CONFIG (names, a path that is nothing to resume from), ARCHER_E_CHECKPOINT (no valid checkpoint),
 *   ARCHER_E_IO (permissions; the folder is locked by a living process)
 */
export async function openRunFolder(options: OpenRunOptions): Promise<RunFolder> {
  if (options.resumeMode === 'auto') return openAuto(options);
  if (options.resumeMode === 'disable') return beginNew(options, []);
  return openPath(options);
}
