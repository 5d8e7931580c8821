// A repository of the hub into the cache: which files, the missing ones a few at a time, then the links, then the name
// of the revision. An interruption leaves what is downloaded and no snapshot that looks complete.
import { mkdir, statfs } from 'node:fs/promises';
import { ArcherError } from '../errors.js';
import { ioError } from '../io-error.js';
import { CachedRepo, commitPattern, type Repo, repoNamePattern } from './cache.js';
import { type ClientOptions, HubClient, type RemoteFile } from './client.js';
import { downloadBlob, sizeOf } from './download.js';
import { type FileFilter, fileFilter } from './filter.js';
import { throwIfAborted } from './retry.js';
import type { HubSettings } from './settings.js';

export interface PullOptions extends Repo, FileFilter, ClientOptions {
  settings: HubSettings;
  /** Branch, tag or commit. Default main. */
  revision?: string;
  onProgress?: (progress: PullProgress) => void;
  /** Called once for every file, when it is there. */
  onFile?: (file: PulledFile) => void;
}

export interface PullProgress {
  /** Bytes that are here, of those of all files. */
  bytes: number;
  totalBytes: number;
  /** Bytes that came over the network in this run. */
  received: number;
}

export interface PulledFile {
  path: string;
  bytes: number;
  /** It was in the cache before. */
  cached: boolean;
}

export interface PullResult {
  /** The snapshot's folder. */
  folder: string;
  commit: string;
  /** Empty where HF_HUB_OFFLINE left nothing to ask for. */
  files: PulledFile[];
}

const maxParallel = 4;

/**
 * @throws ArcherError ARCHER_E_CONFIG: no owner/name or no file fits; ARCHER_E_HUB: the hub refuses, is not reachable or
 *   sends wrong bytes, or HF_HUB_OFFLINE is set and nothing is cached; ARCHER_E_IO: the disk is full; ARCHER_E_ABORTED
 */
export async function pull(options: PullOptions): Promise<PullResult> {
  const { settings, revision = 'main', name, type } = options;
  checkNames(name, revision);
  const cache = new CachedRepo(settings.cacheDir, { name, type });
  if (settings.isOffline) {
    const folder = cache.find(revision);
    if (folder === undefined) {
      const what = `HF_HUB_OFFLINE is set and ${name} (${revision}) is not in the cache ${settings.cacheDir}`;
      throw new ArcherError('ARCHER_E_HUB', `${what}; unset it to download.`);
    }
    return { folder, commit: folder.slice(folder.lastIndexOf('/') + 1), files: [] };
  }
  const stop = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal;
  const client = new HubClient(settings, { name, type }, { ...options, signal });
  const commit = commitPattern.test(revision) ? revision : await client.commitOf(revision);
  const files = chosen(await client.listFiles(commit), options);
  await download(client, commit, files, cache, options, stop);
  try {
    for (const { path, hash } of files) await cache.link(commit, path, hash);
    await cache.writeRef(revision, commit);
  } catch (error) {
    throw ioError('write', cache.snapshot(commit), error, 'HF_HUB_CACHE');
  }
  return {
    folder: cache.snapshot(commit),
    commit,
    files: files.map(({ path, bytes, cached }) => ({ path, bytes, cached })),
  };
}

function checkNames(name: string, revision: string): void {
  const refuse = (what: string) => {
    throw new ArcherError('ARCHER_E_CONFIG', `${what}.`);
  };
  if (!repoNamePattern.test(name)) refuse(`${name} is no repository's name; it is written owner/name`);
  if (!/^[\w-][\w.-]*(\/[\w-][\w.-]*)*$/.test(revision)) refuse(`--revision ${revision} is no branch, tag or commit`);
}

interface Wanted extends RemoteFile {
  cached: boolean;
}

function chosen(files: readonly RemoteFile[], options: PullOptions): Wanted[] {
  const { name, type, include = [], exclude = [] } = options;
  const fits = fileFilter(type, options);
  const kept = files.filter(({ path }) => fits(path));
  const hasWeights = type === 'dataset' || include.length > 0 || kept.some(({ path }) => path.endsWith('.safetensors'));
  if (kept.length > 0 && (hasWeights || exclude.length > 0)) return kept.map((file) => ({ ...file, cached: false }));
  const there = files.slice(0, 8).map(({ path }) => path);
  const list = `${there.join(', ')}${files.length > there.length ? `, … (${files.length} files)` : ''}`;
  const what = kept.length === 0 ? 'no file that fits' : 'no model.safetensors';
  throw new ArcherError('ARCHER_E_CONFIG', `${name} has ${what}; it has ${list}. Choose with --include.`);
}

/** Fetches what is missing; marks what was there. Files of equal content are one blob. */
async function download(
  client: HubClient,
  commit: string,
  files: Wanted[],
  cache: CachedRepo,
  options: PullOptions,
  stop: AbortController,
): Promise<void> {
  const blobs = new Map<string, Wanted[]>();
  for (const file of files) blobs.set(file.hash, [...(blobs.get(file.hash) ?? []), file]);
  const progress: PullProgress = { bytes: 0, totalBytes: 0, received: 0 };
  let missingBytes = 0;
  const queue: Wanted[][] = [];
  for (const same of blobs.values()) {
    const [file] = same as [Wanted];
    const place = cache.blob(file.hash);
    const isCached = (await sizeOf(place)) === file.bytes;
    progress.totalBytes += file.bytes;
    if (isCached) {
      progress.bytes += file.bytes;
      report(same, true);
    } else {
      missingBytes += file.bytes - ((await sizeOf(`${place}.incomplete`)) ?? 0);
      queue.push(same);
    }
  }
  await checkRoom(cache.folder, missingBytes);
  let failure: unknown;
  const work = async () => {
    for (let same = queue.shift(); same && !client.options.signal?.aborted; same = queue.shift()) {
      const [file] = same as [Wanted];
      let before: number | undefined; // the first report counts what an earlier run left
      await downloadBlob(client, commit, file, cache.blob(file.hash), (bytes) => {
        progress.bytes += bytes - (before ?? 0);
        progress.received += Math.max(0, bytes - (before ?? bytes));
        before = bytes;
        options.onProgress?.({ ...progress });
      });
      report(same, false);
    }
  };
  const workers = Array.from({ length: maxParallel }, () =>
    work().catch((error: unknown) => {
      failure ??= error;
      stop.abort();
    }),
  );
  await Promise.all(workers);
  throwIfAborted(options.signal);
  if (failure !== undefined) throw failure;

  function report(same: Wanted[], cached: boolean): void {
    for (const file of same) {
      file.cached = cached;
      options.onFile?.({ path: file.path, bytes: file.bytes, cached });
    }
  }
}

async function checkRoom(folder: string, bytes: number): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
    const { bavail, bsize } = await statfs(folder);
    if (bytes <= bavail * bsize) return;
    const gb = (value: number) => `${(value / 1e9).toFixed(2)} GB`;
    throw new ArcherError(
      'ARCHER_E_IO',
      `${gb(bytes)} are missing and ${folder} has room for ${gb(bavail * bsize)}. Free space on that disk, or set HF_HUB_CACHE to another one.`,
    );
  } catch (error) {
    throw ioError('write', folder, error, 'HF_HUB_CACHE');
  }
}
