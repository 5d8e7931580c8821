// A served model behind a server that fails in every way a server can: what is tried again, what is told, what is sent.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterEach, describe, expect, test } from '@jest/globals';
import { loadConfig } from '../../lib/config/index.js';
import { askServed } from '../../lib/evaluation/ask-served.js';
import { benchmarksOf } from '../../lib/evaluation/benchmarks.js';
import { ServedModel, type ServedRequest } from '../../lib/rollout/served-model.js';

let server: Server | undefined;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

interface Seen {
  path: string | undefined;
  authorization: string | undefined;
  body: Record<string, unknown>;
}

/** Answers request number i with replies[i], the last one for ever. */
async function serve(...replies: ((response: ServerResponse, request: IncomingMessage) => unknown)[]) {
  const seen: Seen[] = [];
  server = createServer(async (request, response) => {
    const body = JSON.parse(await text(request));
    seen.push({ path: request.url, authorization: request.headers.authorization, body });
    (replies[seen.length - 1] ?? replies.at(-1)!)(response, request);
  });
  await new Promise<void>((resolve) => server?.listen(0, '127.0.0.1', resolve));
  return { seen, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1` };
}

const says =
  (content: string, extra: object = {}) =>
  (response: ServerResponse) =>
    response.end(
      JSON.stringify({
        choices: [{ message: { content, ...extra }, finish_reason: 'stop' }],
        usage: { completion_tokens: 7 },
      }),
    );
const fails =
  (status: number, headers: Record<string, string> = {}) =>
  (response: ServerResponse) =>
    response.writeHead(status, headers).end(`{"error":"status ${status}"}`);
const cutsTheBody = (response: ServerResponse) => {
  response.writeHead(200, { 'content-length': '1000' });
  response.write('{"choices":[{"message":{"content":"half');
  setTimeout(() => response.destroy(), 5);
};

const connect = (url: string, options: object = {}) =>
  new ServedModel({ url, model: 'm', timeoutSeconds: 5, maxRetries: 3, pauseMs: 1, ...options });

const request: ServedRequest = {
  prompt: [{ role: 'user', content: 'Q' }],
  temperature: 0.8,
  topP: 0.9,
  maxNewTokens: 16,
  stop: [],
  seed: 5,
};

describe('a request', () => {
  test('is one choice of /chat/completions with our sampling, our seed and the key', async () => {
    const { seen, url } = await serve(says('4'));
    const asked = { ...request, templateArguments: { enable_thinking: false } };
    expect(await connect(url, { apiKey: 'secret' }).answer(asked)).toEqual({ text: '4', tokens: 7, finish: 'stop' });
    expect(seen).toEqual([
      {
        path: '/v1/chat/completions',
        authorization: 'Bearer secret',
        body: {
          model: 'm',
          messages: [{ role: 'user', content: 'Q' }],
          temperature: 0.8,
          top_p: 0.9,
          max_tokens: 16,
          seed: 5,
          stream: false,
          chat_template_kwargs: { enable_thinking: false },
        },
      },
    ]);
  });

  test('with a raw prompt goes to /completions; a missing count of tokens is null', async () => {
    const { seen, url } = await serve((response) =>
      response.end('{"choices":[{"text":" 4","finish_reason":"length"}]}'),
    );
    const answer = await connect(`${url}/`).answer({ ...request, prompt: '2+2=', stop: ['\n'] });
    expect(answer).toEqual({ text: ' 4', tokens: null, finish: 'length' });
    expect(seen[0]).toMatchObject({
      path: '/v1/completions',
      authorization: undefined,
      body: { prompt: '2+2=', stop: ['\n'] },
    });
  });

  test('thinking that the server took out is put back', async () => {
    const { url } = await serve(says('4', { reasoning_content: 'hm' }));
    expect((await connect(url).answer(request)).text).toBe('<think>\nhm\n</think>\n4');
    server?.close();
    const cut = await serve(says('', { reasoning_content: 'hm' }));
    expect((await connect(cut.url).answer(request)).text).toBe('<think>\nhm');
  });
});

describe('what may pass is tried again', () => {
  test.each([
    ['429 with Retry-After', fails(429, { 'retry-after': '0.01' })],
    ['503', fails(503)],
    ['a cut connection', cutsTheBody],
    ['a connection that is closed at once', (response: ServerResponse) => response.destroy()],
    ['a reply that is no JSON', (response: ServerResponse) => response.end('<html>')],
    ['a reply without a finished choice', (response: ServerResponse) => response.end('{"choices":[]}')],
  ])('%s', async (_, fault) => {
    const { seen, url } = await serve(fault, fault, says('4'));
    expect((await connect(url).answer(request)).text).toBe('4');
    expect(seen).toHaveLength(3);
  });

  test('a server that is silent beyond the time', async () => {
    const { url } = await serve(() => {}, says('4'));
    expect((await connect(url, { timeoutSeconds: 0.05 }).answer(request)).text).toBe('4');
  });

  test('until max_retries is used up: an error that says what is kept, never an empty response', async () => {
    const { seen, url } = await serve(fails(500));
    await expect(connect(url).answer(request)).rejects.toMatchObject({
      code: 'ARCHER_E_IO',
      message: expect.stringMatching(/HTTP 500.*tried 4 times.*the same command goes on where this one stopped/),
    });
    expect(seen).toHaveLength(4);
  });
});

describe('what cannot pass is told at once', () => {
  test.each([
    [400, 'check --url and --served-model'],
    [401, 'val.served.api_key_env'],
    [404, 'check --url and --served-model'],
  ])('HTTP %i', async (status, remedy) => {
    const { seen, url } = await serve(fails(status));
    await expect(connect(url).answer(request)).rejects.toMatchObject({
      code: 'ARCHER_E_CONFIG',
      message: expect.stringContaining(remedy),
    });
    expect(seen).toHaveLength(1);
  });

  test('an address where nobody listens, and one that is none', async () => {
    const { url } = await serve(says('4'));
    await new Promise((resolve) => server?.close(resolve));
    await expect(connect(url).answer(request)).rejects.toMatchObject({ code: 'ARCHER_E_IO' });
    expect(() => connect('localhost:80')).toThrow(expect.objectContaining({ code: 'ARCHER_E_CONFIG' }));
  });

  test('an interruption', async () => {
    const { url } = await serve(() => {});
    const abort = new AbortController();
    const answer = connect(url).answer({ ...request, signal: abort.signal });
    setTimeout(() => abort.abort(), 20);
    await expect(answer).rejects.toMatchObject({ code: 'ARCHER_E_ABORTED' });
  });
});

describe('all responses to some problems', () => {
  const ask = (url: string) => {
    const { config } = loadConfig({
      object: { data: { system_prompt: 'Be brief.' }, val: { n: 3 } },
    });
    const [benchmark] = benchmarksOf(config);
    return askServed({ model: connect(url), benchmark: benchmark!, seed: 1, concurrency: 4 });
  };
  const problems = [0, 1, 2].map((index) => {
    const text = `Q${index}`;
    const row = { index, id: text, prompt: [{ role: 'user', content: text }], groundTruth: '', dataSource: '' };
    return { promptKey: index, text, row: { ...row, extraInfo: {}, origin: { file: '', line: 1 } } };
  });

  test('stand in order, with a seed for each, so many requests at a time', async () => {
    let underWay = 0;
    let most = 0;
    const { seen, url } = await serve(async (response) => {
      most = Math.max(most, ++underWay);
      const { messages } = seen[seen.length - 1]!.body as { messages: { content: string }[] };
      await new Promise((resolve) => setTimeout(resolve, 5 + Math.random() * 10));
      underWay -= 1;
      says(messages.map(({ content }) => content).join(' '))(response);
    });
    const answers = await ask(url)(problems, {});
    expect(answers.map((own) => own.map(({ text }) => text))).toEqual(
      [0, 1, 2].map((index) => Array.from({ length: 3 }, () => `Be brief. Q${index}`)),
    );
    expect(most).toBe(4);
    const seeds = seen.map(({ body }) => body.seed);
    expect(new Set(seeds).size).toBe(9);
    expect(seeds.every((seed) => Number.isInteger(seed) && (seed as number) < 2 ** 31)).toBe(true);
    seen.length = 0;
    await ask(url)(problems, {});
    expect(seen.map(({ body }) => body.seed).sort()).toEqual(seeds.sort());
  });

  test('one that fails for good fails all: nothing is counted as wrong', async () => {
    const { seen, url } = await serve(says('4'), fails(400), says('4'));
    await expect(ask(url)(problems, {})).rejects.toMatchObject({ code: 'ARCHER_E_CONFIG' });
    expect(seen.length).toBeLessThan(9);
  });
});
