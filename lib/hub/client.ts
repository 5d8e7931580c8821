// The hub's HTTP: which commit a revision is, which files it has, and their bytes. A status becomes a sentence with the
// remedy, or a fault that passes.
import { ArcherError } from '../errors.js';
import { commitPattern, type Repo } from './cache.js';
import { type RetryOptions, retrying, TransientError } from './retry.js';
import type { HubSettings } from './settings.js';

/** A file of a repository at one commit. */
export interface RemoteFile {
  path: string;
  bytes: number;
  /** Hex: SHA-256 of a large file (64 digits), git's SHA-1 of a small one (40 digits). The blob's name in the cache. */
  hash: string;
}

export interface ClientOptions extends Pick<RetryOptions, 'signal' | 'pauseMs' | 'onWait'> {
  /** A connection that says nothing for so long is given up. Default 30 s. */
  idleMs?: number;
}

// Compressed answers would have other lengths than the files.
const plain = { 'user-agent': 'archer-native', 'accept-encoding': 'identity' };

export class HubClient {
  constructor(
    readonly settings: Pick<HubSettings, 'endpoint' | 'token'>,
    readonly repo: Repo,
    readonly options: ClientOptions,
  ) {}

  /** @throws ArcherError ARCHER_E_HUB: no such repository or revision, no access, not reachable */
  async commitOf(revision: string): Promise<string> {
    const { body } = await this.#json(this.#api(`revision/${encodeURIComponent(revision)}`));
    const { sha } = (body ?? {}) as { sha?: unknown };
    if (typeof sha !== 'string' || !commitPattern.test(sha)) throw this.#nonsense(`the commit ${JSON.stringify(sha)}`);
    return sha;
  }

  async listFiles(commit: string): Promise<RemoteFile[]> {
    const files: RemoteFile[] = [];
    let next: string | undefined = this.#api(`tree/${commit}?recursive=true`);
    while (next !== undefined) {
      const { body, headers }: { body: unknown; headers: Headers } = await this.#json(next);
      if (!Array.isArray(body)) throw this.#nonsense('no list of files');
      for (const entry of body) if (entry?.type === 'file') files.push(this.#toFile(entry));
      const link = /<([^>]+)>\s*;\s*rel="?next"?/.exec(headers.get('link') ?? '');
      next = link ? new URL(link[1]!, next).href : undefined;
    }
    return files;
  }

  /**
   * Opens a file's bytes from `from` on. A server without ranges begins at 0.
   *
   * @param received is called with every piece and its place in the file
   * @throws TransientError where the connection breaks
   */
  async read(
    commit: string,
    { path }: RemoteFile,
    from: number,
    received: (piece: Uint8Array, at: number) => Promise<void>,
  ): Promise<void> {
    const prefix = this.repo.type === 'dataset' ? 'datasets/' : '';
    const place = path.split('/').map(encodeURIComponent).join('/');
    const url = `${this.settings.endpoint}/${prefix}${this.repo.name}/resolve/${commit}/${place}`;
    await this.#request(url, from > 0 ? { range: `bytes=${from}-` } : {}, async ({ status, headers, body }, touch) => {
      let at = status === 206 ? Number(/^bytes (\d+)-/.exec(headers.get('content-range') ?? '')?.[1]) : 0;
      if (at !== 0 && at !== from) throw this.#nonsense(`another range of ${path} than it was asked for`);
      for await (const piece of body ?? []) {
        touch();
        await received(piece, at);
        at += piece.length;
      }
    });
  }

  #api(what: string): string {
    return `${this.settings.endpoint}/api/${this.repo.type}s/${this.repo.name}/${what}`;
  }

  #json(url: string): Promise<{ body: unknown; headers: Headers }> {
    const attempt = () =>
      this.#request(url, {}, async (response) => {
        const text = await response.text();
        try {
          return { body: JSON.parse(text) as unknown, headers: response.headers };
        } catch {
          throw this.#nonsense(`no JSON for ${url}`);
        }
      });
    return retrying(attempt, this.options);
  }

  /** fetch() itself follows redirects, and leaves the token behind when one leads to another host. */
  async #request<T>(
    url: string,
    headers: Record<string, string>,
    use: (response: Response, touch: () => void) => Promise<T>,
  ): Promise<T> {
    const { endpoint, token } = this.settings;
    const { signal, idleMs = 30_000 } = this.options;
    const isHub = new URL(url).origin === new URL(endpoint).origin;
    const authorization: Record<string, string> = token && isHub ? { authorization: `Bearer ${token}` } : {};
    const idle = new AbortController();
    const timer = setTimeout(() => idle.abort(), idleMs);
    try {
      const response = await fetch(url, {
        headers: { ...plain, ...headers, ...authorization },
        signal: signal ? AbortSignal.any([signal, idle.signal]) : idle.signal,
      });
      if (!response.ok) {
        await response.body?.cancel();
        throw this.#refusal(response);
      }
      return await use(response, () => timer.refresh());
    } catch (error) {
      if (idle.signal.aborted) throw new TransientError(`${new URL(url).host} says nothing for ${idleMs / 1000} s`);
      throw this.#networkError(url, error);
    } finally {
      clearTimeout(timer);
    }
  }

  /** What fetch() and its body throw are TypeErrors with the socket's error as their cause; the rest goes through. */
  #networkError(url: string, error: unknown): unknown {
    if ((error as Error).name !== 'TypeError') return error;
    const { code, message } = ((error as Error).cause ?? error) as { code?: string; message: string };
    const what = `${new URL(url).host} cannot be reached: ${message || code}`;
    if (code !== 'ENOTFOUND' && code !== 'ECONNREFUSED') return new TransientError(what);
    const remedy = 'check the network and HF_ENDPOINT; HF_HUB_OFFLINE=1 uses what is in the cache';
    return new ArcherError('ARCHER_E_HUB', `${what}; ${remedy}.`, { cause: error });
  }

  #refusal({ status, headers, url }: Response): Error {
    const { endpoint, token } = this.settings;
    const { name, type } = this.repo;
    const page = `${endpoint}/${type === 'dataset' ? 'datasets/' : ''}${name}`;
    const code = headers.get('x-error-code');
    const { origin, host, pathname } = new URL(url);
    // Another host was reached by a signed link, which may have run out; the next attempt gets a new one.
    const isElsewhere = origin !== new URL(endpoint).origin;
    if (status === 408 || status === 429 || status >= 500 || (isElsewhere && status === 403)) {
      return new TransientError(`${host} answers ${status}`, waitOf(headers));
    }
    const fail = (what: string) => new ArcherError('ARCHER_E_HUB', `${what}.`);
    if (isElsewhere) return fail(`${host} answers ${status} for a file of ${name}`);
    const another = type === 'dataset' ? 'a model is pulled without --dataset' : 'a data set needs --dataset';
    const account = `set HF_TOKEN to a token of your account (${endpoint}/settings/tokens)`;
    if (code === 'GatedRepo' || status === 403) {
      const whose = token ? 'the account of your token has no access' : 'you are not signed in';
      return fail(`${name} is gated, and ${whose}: accept its licence at ${page} and ${account}`);
    }
    if (code === 'RevisionNotFound') return fail(`${name} has no such revision (${pathname}); see ${page}/tree/main`);
    if (status === 401) {
      const cause = token
        ? 'it does not exist, or your token (HF_TOKEN) may not see it'
        : 'it does not exist, or it is private';
      return fail(`${name} cannot be read: ${cause}. Check the name (${another}); if it is private, ${account}`);
    }
    if (status === 404) return fail(`${endpoint} has no ${name} (${pathname}): check the name; ${another}`);
    return fail(`${host}${pathname} answers ${status}`);
  }

  #toFile(entry: Record<string, unknown>): RemoteFile {
    const lfs = entry.lfs as { oid?: unknown; size?: unknown } | undefined;
    const [path, bytes, hash] = [entry.path, lfs?.size ?? entry.size, lfs?.oid ?? entry.oid];
    const isPlace = typeof path === 'string' && path.split('/').every((part) => !/^(|\.|\.\.)$|[\\\0]/.test(part));
    const isHash = typeof hash === 'string' && (lfs ? /^[0-9a-f]{64}$/ : commitPattern).test(hash);
    if (!isPlace || !isHash || !Number.isSafeInteger(bytes)) throw this.#nonsense(`the file ${JSON.stringify(entry)}`);
    return { path, bytes: bytes as number, hash };
  }

  #nonsense(what: string): ArcherError {
    const remedy = 'check that HF_ENDPOINT is a Hugging Face hub';
    return new ArcherError('ARCHER_E_HUB', `${this.settings.endpoint} answers with ${what}; ${remedy}.`);
  }
}

/** Milliseconds, from Retry-After (seconds or a date) or from the hub's `ratelimit: "api";r=0;t=55` (seconds). */
function waitOf(headers: Headers): number | undefined {
  const header = headers.get('retry-after') ?? /;\s*t=(\d+)/.exec(headers.get('ratelimit') ?? '')?.[1];
  if (header === undefined) return undefined;
  const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - Date.now();
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}
