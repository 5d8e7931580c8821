// What a rollout engine takes and gives: prompts in, groups of responses out. A group is the responses to one prompt.
import type { FinishReason } from '../native/types.js';
import type { TextPiece } from './text-stream.js';

/** A prompt ready for the model. */
export interface EncodedPrompt {
  /** Row of the data set; also the key of its random numbers. */
  promptKey: number;
  ids: Int32Array;
}

export interface Response {
  /** Includes the stop token where there is one. */
  ids: Int32Array;
  /** Nats, under the full softmax(logits / temperature) of the sampling weights. Float32[length] */
  logProbs: Float32Array;
  entropies: Float32Array;
  finish: FinishReason;
  /** Decoded without special tokens. */
  text: string;
}

export interface ResponseGroup<Prompt extends EncodedPrompt = EncodedPrompt> {
  prompt: Prompt;
  responses: Response[];
}

export interface SamplingOptions {
  /** Responses per prompt. */
  n: number;
  temperature: number;
  topP: number;
  topK: number;
  minP: number;
  maxNewTokens: number;
  stop: string[];
  /** Besides the model's own EOS ids. */
  stopTokenIds: number[];
}

export interface RolloutRequest<Prompt extends EncodedPrompt> extends SamplingOptions {
  prompts: Prompt[];
  seed: number;
  /** With seed, prompt key, sample index and position the only thing the samples depend on. */
  step: number;
  /** Mean length to expect of the responses to each prompt, NaN where unknown: who starts first, and nothing else. */
  expectedLengths?: Float64Array;
  /** Index of the first sample of every prompt; default 0. */
  sampleOffset?: number;
  signal?: AbortSignal | undefined;
  /** Generated tokens so far, and the most that can come. */
  onProgress?: ((done: number, total: number) => void) | undefined;
  /** Text as it is made; what it throws ends the generation. */
  onText?: ((piece: TextPiece) => void) | undefined;
}

/** Anything that can answer prompts with groups of responses. */
export interface RolloutEngine {
  generate<Prompt extends EncodedPrompt>(request: RolloutRequest<Prompt>): Promise<ResponseGroup<Prompt>[]>;
}
