// The cache folder as huggingface_hub lays it out:
//
//   models--owner--name/ (datasets--…)  blobs/<hash>                   a file's bytes, named by their hash
//                                       snapshots/<commit>/<path>      relative links into blobs/
//                                       refs/<branch or tag>           the commit it stood for when it was pulled
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readlink, rename, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';

export interface Repo {
  type: 'model' | 'dataset';
  /** owner/name */
  name: string;
}

/** What a repository's name looks like. */
export const repoNamePattern = /^(?!.*(--|\.\.))[\w-][\w.-]*\/[\w-][\w.-]*$/;
export const commitPattern = /^[0-9a-f]{40}$/;

/** The cached form of one repository. */
export class CachedRepo {
  readonly folder: string;

  constructor(cacheDir: string, { type, name }: Repo) {
    this.folder = join(cacheDir, `${type}s--${name.replace('/', '--')}`);
  }

  blob(hash: string): string {
    return join(this.folder, 'blobs', hash);
  }

  snapshot(commit: string): string {
    return join(this.folder, 'snapshots', commit);
  }

  /** The folder of a revision that is here, else undefined. */
  find(revision: string): string | undefined {
    const ref = join(this.folder, 'refs', revision);
    const commit = commitPattern.test(revision) ? revision : existsSync(ref) ? readFileSync(ref, 'utf8').trim() : '';
    const folder = this.snapshot(commit);
    return commit !== '' && existsSync(folder) ? folder : undefined;
  }

  /** Makes the snapshot's file `path` a link to a blob. */
  async link(commit: string, path: string, hash: string): Promise<void> {
    const place = join(this.snapshot(commit), path);
    const target = relative(dirname(place), this.blob(hash));
    if ((await readlink(place).catch(() => undefined)) === target) return;
    await mkdir(dirname(place), { recursive: true });
    const draft = `${place}.${process.pid}.tmp`;
    await symlink(target, draft);
    await rename(draft, place);
  }

  async writeRef(revision: string, commit: string): Promise<void> {
    if (revision === commit) return;
    const place = join(this.folder, 'refs', revision);
    await mkdir(dirname(place), { recursive: true });
    const draft = `${place}.${process.pid}.tmp`;
    await writeFile(draft, commit);
    await rename(draft, place);
  }
}
