// A model behind an OpenAI-compatible server: one request per response, tried again while the fault may pass. A request
// that fails for good is an error: it never becomes an empty response, which a verifier would call wrong.
import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { text } from 'node:stream/consumers';
import type { ChatMessage } from '../data/types.js';
import { ArcherError, messageOf } from '../errors.js';
import { retrying, TransientError } from '../hub/retry.js';

export interface ServedModelOptions {
  /** Up to and with the version: http://host:port/v1. */
  url: string;
  model: string;
  apiKey?: string | undefined;
  /** For one response. */
  timeoutSeconds: number;
  /** Attempts after the first one. */
  maxRetries: number;
  /** Before the first retry; each next pause is twice as long. Default 1 s. */
  pauseMs?: number;
}

export interface ServedRequest {
  /** Messages go to /chat/completions, plain text to /completions. */
  prompt: ChatMessage[] | string;
  temperature: number;
  topP: number;
  maxNewTokens: number;
  stop: string[];
  /** Further variables of the server's chat template, where it knows chat_template_kwargs. */
  templateArguments?: Record<string, unknown>;
  /** Servers that honour it answer the same again. */
  seed: number;
  signal?: AbortSignal | undefined;
}

export interface ServedAnswer {
  /** A server that separates the thinking gives it back in <think>, where the model had put it. */
  text: string;
  /** null where the server does not say. */
  tokens: number | null;
  /** As the server says: stop, length, … */
  finish: string;
}

// Nobody listens at the address.
const unreachable = ['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH'];

export class ServedModel {
  private readonly base: URL;
  private hasAnswered = false;

  /** @throws ARCHER_E_CONFIG where the address is none */
  constructor(private readonly options: ServedModelOptions) {
    const { url } = options;
    if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
      throw new ArcherError('ARCHER_E_CONFIG', `val.served.url = ${url} is no address; write http://host:port/v1.`);
    }
    this.base = new URL(url.endsWith('/') ? url : `${url}/`);
  }

  /**
   * One response.
   *
   * @throws ARCHER_E_CONFIG where the server refuses the request (its words are in the message), ARCHER_E_IO where it
   *   cannot be reached or fails for good, ARCHER_E_ABORTED
   */
  async answer(request: ServedRequest): Promise<ServedAnswer> {
    const { maxRetries, pauseMs } = this.options;
    return retrying(() => this.attempt(request), {
      signal: request.signal,
      maxFailures: maxRetries + 1,
      code: 'ARCHER_E_IO',
      pauseMs,
    });
  }

  private async attempt(request: ServedRequest): Promise<ServedAnswer> {
    const { prompt, temperature, topP, maxNewTokens, stop, seed, templateArguments = {}, signal } = request;
    const isChat = typeof prompt !== 'string';
    const reply = await this.post(isChat ? 'chat/completions' : 'completions', signal, {
      model: this.options.model,
      ...(isChat ? { messages: prompt } : { prompt }),
      temperature,
      top_p: topP,
      max_tokens: maxNewTokens,
      seed,
      stream: false,
      ...(stop.length > 0 ? { stop } : {}),
      ...(isChat && Object.keys(templateArguments).length > 0 ? { chat_template_kwargs: templateArguments } : {}),
    });
    this.hasAnswered = true;
    if (reply.status !== 200) throw refusal(reply, this.base);
    return readAnswer(reply.body, this.base);
  }

  private async post(path: string, signal: AbortSignal | undefined, body: object): Promise<Reply> {
    const { apiKey, timeoutSeconds } = this.options;
    // node:http rather than fetch: fetch gives up after 300 s without headers, which one long response exceeds.
    const url = new URL(path, this.base);
    const send = url.protocol === 'https:' ? requestHttps : requestHttp;
    const late = AbortSignal.timeout(timeoutSeconds * 1000);
    const data = JSON.stringify(body);
    const headers = {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(data),
      ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
    };
    try {
      return await new Promise<Reply>((resolve, reject) => {
        const request = send(url, {
          method: 'POST',
          headers,
          signal: AbortSignal.any(signal ? [late, signal] : [late]),
        });
        request.on('error', reject);
        request.on('response', (response) => {
          const retryAfter = Number(response.headers['retry-after']);
          text(response).then((body) => resolve({ status: response.statusCode ?? 0, body, retryAfter }), reject);
        });
        request.end(data);
      });
    } catch (error) {
      const what = late.aborted
        ? `no answer within ${timeoutSeconds} s (val.served.timeout_seconds)`
        : messageOf(error) || String((error as NodeJS.ErrnoException).code);
      // A wrong address is told at once; a server that goes away for a while is waited for.
      if (!this.hasAnswered && unreachable.includes((error as NodeJS.ErrnoException).code ?? '')) {
        throw new ArcherError('ARCHER_E_IO', `${this.base.href} cannot be reached: ${what}; check --url.`);
      }
      throw new TransientError(`${this.base.href}: ${what}`);
    }
  }
}

interface Reply {
  status: number;
  body: string;
  /** Seconds; NaN where the server names none. */
  retryAfter: number;
}

function refusal({ status, body, retryAfter }: Reply, base: URL): Error {
  const said = `HTTP ${status}: ${excerpt(body)}`;
  if (status === 408 || status === 409 || status === 429 || status >= 500) {
    return new TransientError(`${base.href}: ${said}`, Number.isFinite(retryAfter) ? retryAfter * 1000 : undefined);
  }
  const remedy =
    status === 401 || status === 403
      ? 'put the key into the variable that val.served.api_key_env names'
      : 'check --url and --served-model';
  return new ArcherError('ARCHER_E_CONFIG', `${base.href} refuses the request (${said}); ${remedy}.`);
}

interface Completion {
  choices?: {
    text?: string | null;
    message?: { content?: string | null; reasoning_content?: string | null; reasoning?: string | null };
    finish_reason?: string | null;
  }[];
  usage?: { completion_tokens?: number } | null;
}

function readAnswer(body: string, base: URL): ServedAnswer {
  let reply: Completion | null;
  try {
    reply = JSON.parse(body);
  } catch {
    throw new TransientError(`${base.href}: the reply is no JSON: ${excerpt(body)}`);
  }
  const choice = reply?.choices?.[0];
  if (choice === undefined || typeof choice.finish_reason !== 'string') {
    throw new TransientError(`${base.href}: the reply holds no finished choice: ${excerpt(body)}`);
  }
  const content = choice.message?.content ?? choice.text ?? '';
  const thinking = choice.message?.reasoning_content ?? choice.message?.reasoning;
  return {
    text: thinking ? `<think>\n${thinking}${content === '' ? '' : `\n</think>\n${content}`}` : content,
    tokens: reply?.usage?.completion_tokens ?? null,
    finish: choice.finish_reason,
  };
}

function excerpt(body: string): string {
  return body.replace(/\s+/g, ' ').slice(0, 300);
}
