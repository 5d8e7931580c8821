// A server that speaks the hub's protocol on the loopback device: revisions, paged trees, resolve with ETags, large files
// by a redirect to a second origin (the CDN). Faults are made by a hook on the bytes' requests.
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export const commit = 'c0ffee0000000000000000000000000000000000';

export interface FakeFile {
  path: string;
  content: Buffer;
  /** Stored as LFS: named by its SHA-256 and served by the CDN. */
  large?: boolean;
  /** The size that lists give, where it is not the content's. */
  claims?: number;
}

/** May answer a request for bytes itself; `cut` ends the connection after so many bytes. */
export type Fault = (request: {
  path: string;
  count: number;
  headers: IncomingMessage['headers'];
  response: ServerResponse;
}) => { cut: number } | { body: Buffer } | 'answered' | undefined;

export const hashOf = ({ content, large }: FakeFile) =>
  large
    ? createHash('sha256').update(content).digest('hex')
    : createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex');

export class FakeHub {
  readonly requests: { url: string; headers: IncomingMessage['headers']; isCdn: boolean }[] = [];
  fault: Fault = () => undefined;
  /** Answers before anything else: an access rule. */
  guard: (request: IncomingMessage, response: ServerResponse) => boolean = () => false;
  ignoresRanges = false;
  endpoint = '';
  #cdn = '';
  #servers: Server[] = [];
  #counts = new Map<string, number>();

  constructor(
    readonly files: FakeFile[],
    readonly prefix: { api: string; path: string } = { api: '/api/models/owner/name', path: '/owner/name' },
  ) {}

  async start(): Promise<this> {
    this.endpoint = await this.#listen((request, response) => this.#hub(request, response), '127.0.0.1');
    this.#cdn = await this.#listen((request, response) => this.#bytesOf(request, response, true), 'localhost');
    return this;
  }

  async stop(): Promise<void> {
    for (const server of this.#servers) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  /** Requests for bytes of a file, in order. */
  reads(path: string) {
    return this.requests.filter(({ url, isCdn }) =>
      isCdn ? url === `/${path}` : url.endsWith(`/resolve/${commit}/${path}`),
    );
  }

  async #listen(handler: (request: IncomingMessage, response: ServerResponse) => void, host: string): Promise<string> {
    const server = createServer(handler);
    this.#servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return `http://${host}:${(server.address() as AddressInfo).port}`;
  }

  #hub(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url!, this.endpoint);
    this.requests.push({ url: url.pathname + url.search, headers: request.headers, isCdn: false });
    if (this.guard(request, response)) return;
    const { api, path } = this.prefix;
    const refuse = (code: string) => response.writeHead(404, { 'x-error-code': code }).end('{}');
    const revisions = [commit, 'main', 'v1.0', encodeURIComponent('refs/pr/1')];
    if (url.pathname.startsWith(`${api}/revision/`) || url.pathname === api) {
      const revision = url.pathname.slice(`${api}/revision/`.length) || 'main';
      if (!revisions.includes(revision)) return void refuse('RevisionNotFound');
      const siblings = this.files.map(({ path: rfilename }) => ({ rfilename }));
      return void this.#json(response, {
        id: path.slice(1),
        sha: commit,
        siblings,
        tags: [],
        downloads: 0,
        private: false,
      });
    }
    if (url.pathname === `${api}/tree/${commit}`) return void this.#tree(url, response);
    const resolvePrefix = revisions.map((one) => `${path}/resolve/${one}/`).find((one) => url.pathname.startsWith(one));
    const file = resolvePrefix && this.#find(url.pathname.slice(resolvePrefix.length));
    if (!file) return void refuse(url.pathname.includes(path) ? 'EntryNotFound' : 'RepoNotFound');
    const headers = { 'x-repo-commit': commit, etag: `"${hashOf(file)}"`, 'accept-ranges': 'bytes' };
    if (file.large) {
      const linked = { 'x-linked-etag': `"${hashOf(file)}"`, 'x-linked-size': String(file.content.length) };
      return void response.writeHead(302, { ...headers, ...linked, location: `${this.#cdn}/${file.path}` }).end();
    }
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    this.#send(request, response, file);
  }

  #tree(url: URL, response: ServerResponse): void {
    const from = Number(url.searchParams.get('cursor') ?? 0);
    const page = this.files.slice(from, from + 2).map((file) => ({
      type: 'file',
      path: file.path,
      size: file.content.length,
      oid: hashOf({ ...file, large: false }),
      ...(file.large ? { lfs: { oid: hashOf(file), size: file.claims ?? file.content.length, pointerSize: 134 } } : {}),
    }));
    if (from + 2 < this.files.length) {
      response.setHeader('link', `<${this.endpoint}${url.pathname}?recursive=true&cursor=${from + 2}>; rel="next"`);
    }
    this.#json(
      response,
      from === 0 ? [{ type: 'directory', path: 'folder', oid: '0'.repeat(40), size: 0 }, ...page] : page,
    );
  }

  #bytesOf(request: IncomingMessage, response: ServerResponse, isCdn: boolean): void {
    this.requests.push({ url: request.url!, headers: request.headers, isCdn });
    const file = this.#find(request.url!.slice(1));
    if (file) this.#send(request, response, file);
    else response.writeHead(404).end();
  }

  #send(request: IncomingMessage, response: ServerResponse, { path, content }: FakeFile): void {
    const count = (this.#counts.get(path) ?? 0) + 1;
    if (request.method === 'GET') this.#counts.set(path, count);
    const fault =
      request.method === 'GET' ? this.fault({ path, count, headers: request.headers, response }) : undefined;
    if (fault === 'answered') return;
    const whole = fault && 'body' in fault ? fault.body : content;
    const [, start] = /^bytes=(\d+)-/.exec(request.headers.range ?? '') ?? [];
    const from = start === undefined || this.ignoresRanges ? 0 : Number(start);
    const bytes = whole.subarray(from);
    const range = from > 0 ? { 'content-range': `bytes ${from}-${whole.length - 1}/${whole.length}` } : {};
    response.writeHead(from > 0 ? 206 : 200, { 'content-length': bytes.length, ...range });
    if (request.method === 'HEAD') return void response.end();
    if (!fault || !('cut' in fault)) return void response.end(bytes);
    response.write(bytes.subarray(0, fault.cut), () => setTimeout(() => response.destroy(), 20));
  }

  #find(path: string): FakeFile | undefined {
    return this.files.find((file) => file.path === decodeURIComponent(path));
  }

  #json(response: ServerResponse, value: unknown): void {
    response.setHeader('content-type', 'application/json').end(JSON.stringify(value));
  }
}
