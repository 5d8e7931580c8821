// Text of responses that are still being sampled. Tokens arrive in batches; a piece of text is handed out once later
// tokens cannot change it: not in the middle of a character, and not inside what may become a stop string.
import type { Tokenizer } from '../data/tokenizer.js';

/** What has become certain of one response's text; the pieces of a response add up to its `text`. */
export interface TextPiece {
  /** Index of the prompt, and of the response to it. */
  prompt: number;
  sample: number;
  text: string;
}

interface Open {
  prompt: number;
  sample: number;
  ids: number[];
  /** Ids up to here have been turned into text … */
  read: number;
  /** … and decoding begins here: how a token reads may depend on the ones before it. */
  context: number;
  /** Decoded, and held back. */
  pending: string;
  emitted: string;
}

export interface TextStreamOptions {
  tokenizer: Pick<Tokenizer, 'decodeBatch'>;
  stop: string[];
  onText: (piece: TextPiece) => void;
  /** Called once when decoding or onText has failed; finish() then throws the same. */
  onFailure: () => void;
}

export class TextStream {
  readonly #options: TextStreamOptions;
  readonly #open = new Map<string, Open>();
  #decoding: Promise<void> | undefined;
  #isDecoding = false;
  #failure: { error: unknown } | undefined;
  #isStopped = false;

  constructor(options: TextStreamOptions) {
    this.#options = options;
  }

  /** Takes new tokens as (prompt, sample, id), laid flat, and returns at once; what becomes certain follows by onText. */
  push(tokens: Int32Array): void {
    for (let i = 0; i < tokens.length; i += 3) {
      this.#response(tokens[i] as number, tokens[i + 1] as number).ids.push(tokens[i + 2] as number);
    }
    if (!this.#isDecoding) this.#decoding = this.#decode();
  }

  /**
   * Hands out what is left of every response, `texts[prompt][sample]`.
   * @throws what decoding or onText threw
   */
  async finish(texts: string[][]): Promise<void> {
    await this.#decoding;
    this.stop();
    for (const [prompt, samples] of texts.entries()) {
      for (const [sample, text] of samples.entries()) {
        const { emitted } = this.#response(prompt, sample);
        if (text.length > emitted.length) this.#options.onText({ prompt, sample, text: text.slice(emitted.length) });
      }
    }
  }

  /** Hands out nothing any more. @throws what decoding or onText threw */
  stop(): void {
    this.#isStopped = true;
    if (this.#failure) throw this.#failure.error;
  }

  #response(prompt: number, sample: number): Open {
    const key = `${prompt} ${sample}`;
    let open = this.#open.get(key);
    if (!open) {
      open = { prompt, sample, ids: [], read: 0, context: 0, pending: '', emitted: '' };
      this.#open.set(key, open);
    }
    return open;
  }

  // One batch at a time: what arrives meanwhile waits for the next turn.
  async #decode(): Promise<void> {
    this.#isDecoding = true;
    try {
      for (;;) {
        const grown = [...this.#open.values()].filter(({ ids, read }) => ids.length > read);
        if (grown.length === 0 || this.#failure) return;
        const ends = grown.map(({ ids }) => ids.length);
        const windows = grown.flatMap(({ ids, context, read }) => [ids.slice(context, read), ids.slice(context)]);
        const texts = await this.#options.tokenizer.decodeBatch(windows, { skipSpecial: true });
        const before = grown.map(({ read }) => read);
        for (const [i, open] of grown.entries()) {
          const [known = '', longer = ''] = texts.slice(2 * i);
          this.#advance(open, known, longer, ends[i] as number);
        }
        // All of them in the middle of a character: the next tokens decide.
        if (grown.every(({ read }, i) => read === before[i] && ends[i] === grown[i]?.ids.length)) return;
      }
    } catch (error) {
      this.#failure = { error };
      this.#options.onFailure();
    } finally {
      this.#isDecoding = false;
    }
  }

  #advance(open: Open, known: string, longer: string, end: number): void {
    if (this.#isStopped || longer.endsWith('\uFFFD')) return;
    open.context = open.read;
    open.read = end;
    open.pending += longer.slice(known.length);
    const certain = certainLength(open.pending, this.#options.stop);
    if (certain === 0) return;
    const text = open.pending.slice(0, certain);
    open.pending = open.pending.slice(certain);
    open.emitted += text;
    this.#options.onText({ prompt: open.prompt, sample: open.sample, text });
  }
}

/** Characters of `text` before the first place where a stop string stands or may be beginning. */
export function certainLength(text: string, stop: string[]): number {
  let certain = text.length;
  for (const string of stop) {
    const whole = text.indexOf(string);
    if (whole >= 0) certain = Math.min(certain, whole);
    for (let length = Math.min(string.length - 1, text.length); length > 0; length -= 1) {
      if (!text.endsWith(string.slice(0, length))) continue;
      certain = Math.min(certain, text.length - length);
      break;
    }
  }
  return certain;
}
