// What may stand for a file or folder: `bundled`, a hub's name of what has been pulled, or a path.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { ArcherError } from '../errors.js';
import { bundledModel } from '../model/bundled.js';
import { CachedRepo, repoNamePattern } from './cache.js';
import { hubSettings } from './settings.js';

/**
 * The folder of a model: `bundled`, a folder's path, or owner/name of one in the hub's cache.
 *
 * @throws ArcherError ARCHER_E_MODEL: neither a folder nor in the cache
 */
export function resolveModelPath(path: string): string {
  if (path === 'bundled') return bundledModel;
  if (existsSync(path) || !repoNamePattern.test(path)) return path;
  const { cacheDir } = hubSettings();
  const found = new CachedRepo(cacheDir, { type: 'model', name: path }).find('main');
  if (found !== undefined) return found;
  const what = `${path} is neither a folder nor a model in the cache ${cacheDir}`;
  throw new ArcherError('ARCHER_E_MODEL', `${what}; fetch it: archer-native pull ${path}`);
}

/**
 * A data file: a path, or hf://datasets/owner/name/file of a data set in the hub's cache.
 *
 * @throws ArcherError ARCHER_E_DATA: it is not in the cache
 */
export function resolveDataPath(path: string): string {
  const [, name, file] = /^hf:\/\/datasets\/([^/]+\/[^/]+)\/(.+)$/.exec(path) ?? [];
  if (name === undefined || file === undefined) return path;
  const { cacheDir } = hubSettings();
  const folder = new CachedRepo(cacheDir, { type: 'dataset', name }).find('main');
  const found = folder && join(folder, file);
  if (found && existsSync(found)) return found;
  const remedy = `fetch it: archer-native pull ${name} --dataset --include '${file}'`;
  throw new ArcherError('ARCHER_E_DATA', `${path} is not in the cache ${cacheDir}; ${remedy}`);
}
