// The native engine as a RolloutEngine: samples from the weights that are being trained, in place.
import type { Tokenizer } from '../data/tokenizer.js';
import { ArcherError } from '../errors.js';
import type { ModelFolder } from '../model/folder.js';
import type { Weights } from '../native/policy.js';
import { finishReasons } from '../native/types.js';
import { TextStream } from './text-stream.js';
import type { EncodedPrompt, Response, ResponseGroup, RolloutEngine, RolloutRequest } from './types.js';

export interface LocalEngineOptions {
  weights: Weights;
  tokenizer: Tokenizer;
  /** Sequences decoded together; 0 = as many as kvBudgetBytes allows. */
  maxSlots: number;
  /** Bytes of keys and values; 0 = no limit. */
  kvBudgetBytes: number;
  /** Bits that depend on nothing decoded beside a response. Default false. */
  batchInvariant?: boolean;
}

export class LocalEngine implements RolloutEngine {
  constructor(private readonly options: LocalEngineOptions) {}

  async generate<Prompt extends EncodedPrompt>(request: RolloutRequest<Prompt>): Promise<ResponseGroup<Prompt>[]> {
    const { weights, tokenizer, maxSlots, kvBudgetBytes, batchInvariant = false } = this.options;
    const { prompts, n } = request;
    if (prompts.length === 0) return [];
    checkContext(weights.folder, prompts, request.maxNewTokens);
    const packed = packIds(prompts.map((prompt) => prompt.ids));
    const failed = new AbortController();
    const stream =
      request.onText &&
      new TextStream({ tokenizer, stop: request.stop, onText: request.onText, onFailure: () => failed.abort() });
    const job = weights.generate(
      {
        promptIds: packed.ids,
        promptOffsets: packed.offsets,
        promptKeys: Uint32Array.from(prompts, (prompt) => prompt.promptKey),
        numSamples: n,
        expectedLengths: request.expectedLengths,
        sampleOffset: request.sampleOffset ?? 0,
        seed: request.seed,
        step: request.step,
        temperature: request.temperature,
        topP: request.topP,
        topK: request.topK > 0 ? request.topK : -1,
        minP: request.minP,
        maxNewTokens: request.maxNewTokens,
        stopTokenIds: Int32Array.from(new Set([...weights.folder.eosTokenIds, ...request.stopTokenIds])),
        ...(request.stop.length > 0 ? { stopStrings: request.stop, tokenBytes: tokenizer.tokenBytes() } : {}),
        maxSlots,
        kvBudgetBytes,
        batchInvariant,
      },
      {
        signal: stream ? AbortSignal.any([failed.signal, ...(request.signal ? [request.signal] : [])]) : request.signal,
        onProgress: request.onProgress,
        onTokens: stream && ((tokens) => stream.push(tokens)),
      },
    );
    const generation = await job.catch((error) => {
      stream?.stop();
      throw error;
    });
    const { offsets } = generation;
    const sliceOf = <A extends Int32Array | Float32Array>(array: A, i: number) =>
      array.slice(offsets[i], offsets[i + 1]) as A;
    const ids = Array.from({ length: prompts.length * n }, (_, i) => sliceOf(generation.ids, i));
    const texts = await tokenizer.decodeBatch(ids, { skipSpecial: true });
    const responses = ids.map(
      (one, i): Response => ({
        ids: one,
        logProbs: sliceOf(generation.logProbs, i),
        entropies: sliceOf(generation.entropies, i),
        finish: finishReasons[generation.finish[i] as number] ?? 'length',
        text: texts[i] ?? '',
      }),
    );
    const groups = prompts.map((prompt, i) => ({ prompt, responses: responses.slice(i * n, (i + 1) * n) }));
    await stream?.finish(groups.map((group) => group.responses.map(({ text }) => text)));
    return groups;
  }
}

/** @throws ARCHER_E_CONFIG where prompt and response can grow beyond the positions that the model was made for */
export function checkContext(folder: ModelFolder, prompts: EncodedPrompt[], maxNewTokens: number): void {
  const { maxPositionEmbeddings } = folder.nativeConfig;
  const longest = prompts.reduce((length, { ids }) => Math.max(length, ids.length), 0);
  if (longest + maxNewTokens <= maxPositionEmbeddings) return;
  throw new ArcherError(
    'ARCHER_E_CONFIG',
    `A prompt of ${longest} tokens and ${maxNewTokens} new ones (data.max_response_length) exceed the model's ` +
      `${maxPositionEmbeddings} positions (max_position_embeddings); allow at most ${Math.max(0, maxPositionEmbeddings - longest)}.`,
  );
}

/** Sequences laid end to end: ids [T] and offsets [N+1]. */
export function packIds(sequences: Int32Array[]): { ids: Int32Array; offsets: Int32Array } {
  const offsets = new Int32Array(sequences.length + 1);
  sequences.forEach((sequence, i) => {
    offsets[i + 1] = (offsets[i] as number) + sequence.length;
  });
  const ids = new Int32Array(offsets[sequences.length] as number);
  sequences.forEach((sequence, i) => {
    ids.set(sequence, offsets[i]);
  });
  return { ids, offsets };
}
