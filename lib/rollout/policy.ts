// Policy: a Hugging Face folder as an object of this process: text in and text out, and the numbers behind given ids.
import { renderPrompt } from '../data/chat-template.js';
import { loadTokenizer, type Tokenizer } from '../data/tokenizer.js';
import type { ChatMessage } from '../data/types.js';
import { resolveModelPath } from '../hub/resolve.js';
import { type ModelFolder, readModelFolder } from '../model/folder.js';
import type { JobOptions } from '../native/job.js';
import { Weights } from '../native/policy.js';
import type { ComputeDtype } from '../native/types.js';
import { LocalEngine, packIds } from './local-engine.js';
import type { TextPiece } from './text-stream.js';
import type { Response } from './types.js';

export interface PolicyOptions extends JobOptions {
  /** Default float32. */
  dtype?: ComputeDtype;
  /** Threads of the native engine; default: one per core. */
  numThreads?: number;
}

export interface GenerateOptions extends JobOptions {
  /** Responses per prompt. Default 1. */
  n?: number;
  /** 0 is greedy. Default 1. */
  temperature?: number;
  topP?: number;
  topK?: number;
  minP?: number;
  /** Default 256. */
  maxNewTokens?: number;
  stop?: string[];
  stopTokenIds?: number[];
  /** Same seed, same responses. Default 0. */
  seed?: number;
  /** Default: the tokenizer's template where it has one. */
  applyChatTemplate?: boolean;
  systemPrompt?: string;
  /**
   * Text as it is made, some 30 times a second. Pieces of one response come in order and add up to its `text`; none ends
   * within a character, and a stop string comes whole, with the end of its response. What it throws ends the generation.
   */
  onText?: (piece: TextPiece) => void;
}

/** Reads the folder and its tokenizer, and checks that they fit each other. */
export async function loadModelAndTokenizer(path: string): Promise<{ folder: ModelFolder; tokenizer: Tokenizer }> {
  const folder = await readModelFolder(resolveModelPath(path));
  const tokenizer = await loadTokenizer(folder.path, { vocabSize: folder.nativeConfig.vocabSize });
  return { folder, tokenizer };
}

/**
 * A loaded model.
 *
 * @example
 * await using policy = await Policy.load('bundled');
 * const [[response]] = await policy.generate(['What is 2 + 3 * 4?'], { temperature: 0 });
 * console.log(response.text);
 */
export class Policy implements Disposable, AsyncDisposable {
  private constructor(
    readonly weights: Weights,
    readonly tokenizer: Tokenizer,
  ) {}

  /**
   * @param path a Hugging Face folder (Llama, Qwen2, Qwen3), owner/name of a pulled model, or `bundled`
   * @throws ARCHER_E_MODEL naming what is wrong with the folder
   */
  static async load(path = 'bundled', options: PolicyOptions = {}): Promise<Policy> {
    const { folder, tokenizer } = await loadModelAndTokenizer(path);
    return new Policy(await Weights.load(folder, options), tokenizer);
  }

  get vocabSize(): number {
    return this.weights.folder.nativeConfig.vocabSize;
  }

  /** Responses to prompts: result[i][j] is response j to prompt i. A string is one user message. */
  async generate(prompts: (string | ChatMessage[])[], options: GenerateOptions = {}): Promise<Response[][]> {
    const { applyChatTemplate = true, systemPrompt, signal, onProgress } = options;
    const usesTemplate = applyChatTemplate && this.tokenizer.chatTemplate !== undefined;
    const texts = prompts.map((prompt) => {
      const messages = typeof prompt === 'string' ? [{ role: 'user', content: prompt }] : prompt;
      return renderPrompt(messages, this.tokenizer, { applyChatTemplate, systemPrompt });
    });
    const ids = await this.tokenizer.encodeBatch(texts, { addSpecial: !usesTemplate });
    const engine = new LocalEngine({ weights: this.weights, tokenizer: this.tokenizer, maxSlots: 0, kvBudgetBytes: 0 });
    const groups = await engine.generate({
      prompts: ids.map((one, promptKey) => ({ promptKey, ids: one })),
      n: options.n ?? 1,
      temperature: options.temperature ?? 1,
      topP: options.topP ?? 1,
      topK: options.topK ?? -1,
      minP: options.minP ?? 0,
      maxNewTokens: options.maxNewTokens ?? 256,
      stop: options.stop ?? [],
      stopTokenIds: options.stopTokenIds ?? [],
      seed: options.seed ?? 0,
      step: 0,
      signal,
      onProgress,
      onText: options.onText,
    });
    return groups.map((group) => group.responses);
  }

  /** Raw logits of every position, Float32[T · vocabSize] row-major: row t predicts token t + 1. */
  async logits(ids: ArrayLike<number>, options: JobOptions = {}): Promise<Float32Array> {
    const packed = packIds([Int32Array.from(ids)]);
    return this.weights.logits(packed.ids, packed.offsets, options);
  }

  /**
   * Log-probs and entropies in nats, Float32[T] aligned with ids: entry t is that of ids[t] given the ones before it,
   * under softmax(logits / temperature). Entries before `promptLength` (default 1: all that have a predecessor) are 0.
   */
  async score(
    ids: ArrayLike<number>,
    options: JobOptions & { temperature?: number; promptLength?: number } = {},
  ): Promise<{ logProbs: Float32Array; entropies: Float32Array }> {
    const { temperature = 1, promptLength = 1 } = options;
    const all = Int32Array.from(ids);
    const [prompt, response] = [packIds([all.subarray(0, promptLength)]), packIds([all.subarray(promptLength)])];
    const scores = await this.weights.score(
      {
        promptIds: prompt.ids,
        promptOffsets: prompt.offsets,
        responseIds: response.ids,
        responseOffsets: response.offsets,
        promptOf: Int32Array.of(0),
        temperature,
      },
      options,
    );
    const aligned = (values: Float32Array) => {
      const result = new Float32Array(all.length);
      result.set(values, promptLength);
      return result;
    };
    return { logProbs: aligned(scores.logProbs), entropies: aligned(scores.entropies) };
  }

  dispose(): void {
    this.weights.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.dispose();
  }
}
