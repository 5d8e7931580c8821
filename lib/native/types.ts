// The whole boundary between TypeScript and C++, in one file. Token ids, per-token floats and scalars cross it; tensors
// never do. Arrays are copied at the door. Legend: T tokens of all sequences laid end to end, N sequences, V vocabulary.
//
// "Packed" always means: ids Int32[T], offsets Int32[N+1] with offsets[0] = 0 and offsets[N] = T.

/** What a long job shares with JS: a cancel flag and a progress counter. One per call; see lib/native/job.ts. */
export interface NativeJobControl {
  /** Takes effect within one layer's work, one token or one loss chunk; the promise then rejects with ARCHER_E_ABORTED. */
  cancel(): void;
  /** Units of the job: generated tokens, or sequences. */
  progress(): { done: number; total: number };
  /** Tokens that a generation with streamTokens has made since the last call: (prompt, sample, id), laid flat. */
  takeTokens(): Int32Array;
}

export interface BuildInfo {
  archer: string;
  libtorch: string;
  compiler: string;
  openmp: boolean;
  /** libtorch's run-time dispatch: DEFAULT, AVX2, AVX512, … Part of what makes samples bit-equal. */
  cpuCapability: string;
  /** Of our own kernels; ARCHER_CPU_ISA lowers it. Part of what makes samples bit-equal, too. */
  cpuIsa: CpuIsa;
}

/** From narrow to wide. With avx512_bf16 and amx, bfloat16 runs in tiles of our own. */
export const cpuIsas = ['plain', 'avx2', 'avx512', 'avx512_bf16', 'amx'] as const;
export type CpuIsa = (typeof cpuIsas)[number];

export interface NativeModelConfig {
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  numLayers: number;
  numHeads: number;
  numKvHeads: number;
  headDim: number;
  maxPositionEmbeddings: number;
  rmsNormEps: number;
  ropeTheta: number;
  ropeScaling?: {
    factor: number;
    lowFreqFactor: number;
    highFreqFactor: number;
    originalMaxPositionEmbeddings: number;
  };
  qkvBias: boolean;
  outputBias: boolean;
  mlpBias: boolean;
  qkNorm: boolean;
  tieWordEmbeddings: boolean;
}

export type ComputeDtype = 'float32' | 'bfloat16' | 'float64';

/** One tensor of a safetensors file; begin and end are byte offsets from the start of the file. */
export interface TensorEntry {
  name: string;
  dtype: 'F64' | 'F32' | 'F16' | 'BF16';
  shape: number[];
  file: string;
  begin: number;
  end: number;
}

export interface LoadPolicyOptions {
  config: NativeModelConfig;
  tensors: TensorEntry[];
  dtype: ComputeDtype;
  /** Keeps float32 master weights beside a bfloat16 model. A reference model is not trainable. */
  trainable: boolean;
  /** Adapters; with them the model itself is frozen. */
  lora?: LoraOptions;
}

/** PEFT's r, lora_alpha and target_modules. */
export interface LoraOptions {
  rank: number;
  /** The adapters' product is scaled by alpha / rank. */
  alpha: number;
  /** q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj or down_proj, of every layer. */
  targetModules: string[];
  /** Of fresh adapters, which change nothing yet; without it `tensors` hold theirs, under PEFT's names. */
  seed?: number | undefined;
}

export interface GenerateRequest {
  /** The N distinct prompts, packed. Each is prefilled once. */
  promptIds: Int32Array;
  promptOffsets: Int32Array;
  /** Uint32[N]: with seed, step, sample index and position the only thing the random numbers depend on. */
  promptKeys: Uint32Array;
  numSamples: number;
  /**
   * Float64[N]: mean length to expect of the responses to each prompt, NaN where unknown (then its own length counts). Long
   * ones start first; nothing else depends on it.
   */
  expectedLengths?: Float64Array;
  /** Index of the first sample (default 0): asking for samples 4..7 later gives what samples 4..7 would have been. */
  sampleOffset?: number;
  seed: number;
  step: number;
  temperature: number;
  topP: number;
  /** −1: off */
  topK: number;
  minP: number;
  maxNewTokens: number;
  /** A response ends with, and includes, one of these. */
  stopTokenIds: Int32Array;
  /** A response ends with the token that completes one of these. Needs tokenBytes. */
  stopStrings?: string[];
  /** The bytes of every token, concatenated, and Int32[V+1] offsets into them. */
  tokenBytes?: { bytes: Uint8Array; offsets: Int32Array };
  /** Sequences decoded together; 0 = as many as kvBudgetBytes allows. */
  maxSlots: number;
  /** Of keys and values; 0 = no limit. Where it runs out, the youngest sequences wait and are prefilled again. */
  kvBudgetBytes: number;
  /** Default false; true: no arithmetic depends on what is decoded beside a response (docs/rollout.md). */
  batchInvariant?: boolean;
  /** Default false; true: tokens can be read from the job's control while they are made. */
  streamTokens?: boolean;
}

export const finishReasons = ['stop', 'stop_string', 'length'] as const;
export type FinishReason = (typeof finishReasons)[number];

export interface Generation {
  /** Packed responses, prompt-major: response of prompt i, sample j is sequence i·numSamples + j. */
  ids: Int32Array;
  offsets: Int32Array;
  /** Of the sampled tokens under the full softmax(logits / temperature); nats. Float32[T] */
  logProbs: Float32Array;
  entropies: Float32Array;
  /** Uint8[N]: index into finishReasons */
  finish: Uint8Array;
  /** Each prompt once, and again what was preempted. */
  prefillTokens: number;
  decodeSteps: number;
  /** Pages of 64 positions that held keys and values at once. */
  mostPages: number;
  /** How often a sequence gave its pages to older ones. */
  numPreemptions: number;
}

/** Responses and the prompts that they answer: M prompts, N responses, R response tokens. None of them is empty. */
export interface PackedResponses {
  promptIds: Int32Array;
  promptOffsets: Int32Array;
  /** Int32[R] */
  responseIds: Int32Array;
  responseOffsets: Int32Array;
  /** Int32[N], ascending: the prompt that each response answers. A prompt is computed once for all its responses. */
  promptOf: Int32Array;
}

/** Scored in one forward. */
export interface ScoreRequest extends PackedResponses {
  temperature: number;
}

export interface Scores {
  /** Float32[R], aligned with responseIds. */
  logProbs: Float32Array;
  entropies: Float32Array;
}

/** Options of the loss, in the words of the configuration (lib/config/schema.ts explains each). */
export interface NativeLossOptions {
  tokenEntropyQuantile: number;
  entropyTie: 'gt' | 'ge';
  entropySource: 'current' | 'rollout';
  entropyScope: 'response' | 'group' | 'batch';
  knowledgeClipLow: number;
  knowledgeClipHigh: number;
  reasoningClipLow: number;
  reasoningClipHigh: number;
  /** 0 = no dual clip */
  clipRatioC: number;
  knowledgeKlCoef: number;
  reasoningKlCoef: number;
  klLossType: 'k1' | 'k2' | 'k3' | 'abs' | 'k3+';
  lossAggMode: 'token-mean' | 'seq-mean-token-mean' | 'seq-mean-token-sum' | 'seq-mean-token-sum-norm' | 'token-sum';
  klNormalizer: 'shared' | 'per-class';
  /** The constant length of seq-mean-token-sum-norm. */
  lossNormLength: number;
  entropyCoeff: number;
  temperature: number;
  /** Rows of logits that exist at once; 0 = chosen from the vocabulary's size. */
  chunkTokens: number;
}

/** Those of the whole mini-batch, fixed before its first micro-batch runs. */
export interface Denominators {
  sequences: number;
  tokens: number;
  lossTokens: number;
}

/** A micro-batch: whole responses with everything the objective needs. Those to one prompt are a group. */
export interface PackedBatch extends PackedResponses {
  /** Uint8[R]: 1 at the tokens of the loss. */
  lossMask: Uint8Array;
  /** Float32[R] each, aligned with responseIds. refLogProbs only where a KL coefficient is not 0. */
  oldLogProbs: Float32Array;
  oldEntropies?: Float32Array;
  refLogProbs?: Float32Array;
  /** Float32[N] */
  advantages: Float32Array;
  /** Float64[N]: entropy thresholds fixed beforehand (scopes group and batch); else they are the response's own. */
  thresholds?: Float64Array;
  denominators: Denominators;
}

/** Sums over the loss tokens of one class; they add up over micro-batches. */
export interface ClassSums {
  tokens: number;
  entropy: number;
  pgLoss: number;
  klLoss: number;
  ratio: number;
  clipped: number;
  clippedLower: number;
}

export interface LossSums {
  knowledge: ClassSums;
  reasoning: ClassSums;
  /** Σ (old log-prob − log-prob) over the loss tokens */
  ppoKl: number;
  /** Of the responses' thresholds. */
  thresholdSum: number;
  thresholdMin: number;
  thresholdMax: number;
  thresholdCount: number;
  emptyResponses: number;
}

export interface MicroBatchResult {
  /** This micro-batch's share: the shares of all micro-batches add up to the mini-batch's loss. */
  loss: number;
  /** The policy-gradient, KL (weighted by its coefficients) and entropy shares; loss = pg + kl − entropyCoeff·entropy. */
  pgLoss: number;
  klLoss: number;
  sums: LossSums;
  /** Aligned with responseIds. classes: 0 knowledge, 1 reasoning, 255 not in the loss. */
  logProbs: Float32Array;
  entropies: Float32Array;
  classes: Uint8Array;
}

/** A job as the engine sees it, for {@link MemoryParts}. */
export interface MemoryRequest {
  config: NativeModelConfig;
  lora?: LoraOptions | undefined;
  dtype: ComputeDtype;
  numThreads: number;
  /** Tokens that the largest micro-batch computes. */
  microBatchTokens: number;
  gradientCheckpointing: boolean;
  /** Of all prompts that are sampled together. */
  promptTokens: number;
  /** Prompt and response. */
  longestSequence: number;
  /** Sequences decoded together. */
  running: number;
}

/** What the engine's buffers take, in bytes; native/train/memory.h says what each one is. */
export interface MemoryParts {
  /** In the compute dtype, adapters included; a model that is not trained holds these alone. */
  weights: number;
  /** Of what is trained, as gradients and moments; 0 where the weights are the masters. */
  masters: number;
  gradients: number;
  moments: number;
  activations: number;
  /** What a micro-batch holds beside its activations. */
  microBatch: number;
  lossChunk: number;
  /** A forward pass for log-probs, its chunk of logits included. */
  scoring: number;
  /** What sampling holds beside the KV cache. */
  sampling: number;
  /** Of the KV cache, in every layer; it holds pagePositions positions of a sequence. */
  page: number;
  pagePositions: number;
}

export interface OptimizerOptions {
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  /** true: norms and biases decay too (the reference's way). */
  decayAll: boolean;
  /** true: layers keep their inputs alone and are computed again in the backward; the same bits, less memory. */
  gradientCheckpointing: boolean;
}

export interface NativePolicy {
  numParameters(): number;
  memoryBytes(): number;
  generate(request: GenerateRequest, control: NativeJobControl): Promise<Generation>;
  score(request: ScoreRequest, control: NativeJobControl): Promise<Scores>;
  /** Raw logits (temperature 1) of every token, Float32[T·V], row-major. For tests and small inputs. */
  logits(request: { ids: Int32Array; offsets: Int32Array }, control: NativeJobControl): Promise<Float32Array>;
  /** Writes every weight under its Hugging Face name, from the float32 masters where there are some; adapters merged. */
  saveWeights(options: { path: string; dtype: 'float32' | 'bfloat16' | 'float16' }): Promise<void>;
  /** Writes the adapters alone, in float32 under PEFT's names. */
  saveAdapters(path: string): Promise<void>;
  /** The same weights, shared, without the adapters. */
  base(): NativePolicy;
  dispose(): void;
}

export interface NativeTrainer {
  /** Adds this micro-batch's gradients to the accumulated ones. */
  forwardBackward(batch: PackedBatch, options: NativeLossOptions, control: NativeJobControl): Promise<MicroBatchResult>;
  /** Clips, updates, zeroes the gradients. A non-finite norm skips the update. */
  optimizerStep(options: { lr: number; gradClip: number }): Promise<{ gradNorm: number; skipped: boolean }>;
  /** The accumulated gradient of one parameter, by name, Float32. For tests. */
  gradient(name: string): Promise<Float32Array>;
  zeroGrad(): Promise<void>;
  /** Gives back to the system what only forwardBackward uses, until its next call, and what earlier jobs have freed. */
  releaseMemory(): Promise<void>;
  /** Master weights and both moments, float32, in one safetensors file. */
  saveState(path: string): Promise<void>;
  loadState(options: { tensors: TensorEntry[]; optimizerSteps: number }): Promise<void>;
  optimizerSteps(): number;
  memoryBytes(): number;
  dispose(): void;
}

/** Arrays over response tokens alone, packed; see docs/native-api.md. */
export interface LossArrays {
  ids: Int32Array;
  lengths: Int32Array;
  groupIds: Int32Array;
  lossMask: Uint8Array;
  oldLogProbs: Float64Array;
  oldEntropies?: Float64Array;
  refLogProbs?: Float64Array;
  advantages: Float64Array;
  thresholds?: Float64Array;
  denominators: Denominators;
}

export interface LossResult {
  loss: number;
  pgLoss: number;
  klLoss: number;
  logProbs: Float64Array;
  entropies: Float64Array;
  classes: Uint8Array;
  thresholds: Float64Array;
  sums: LossSums;
}

export interface NativeEngine {
  loadPolicy(options: LoadPolicyOptions, control: NativeJobControl): Promise<NativePolicy>;
  createTrainer(policy: NativePolicy, options: OptimizerOptions): Promise<NativeTrainer>;
  fusedLoss(
    options: LossArrays & {
      hidden: Float64Array;
      headWeight: Float64Array;
      hiddenSize: number;
      dtype: ComputeDtype;
      loss: NativeLossOptions;
    },
    control: NativeJobControl,
  ): Promise<LossResult & { gradHidden: Float64Array; gradHead: Float64Array }>;
  tokenLoss(
    options: LossArrays & {
      logProbs: Float64Array;
      entropies: Float64Array;
      dtype: 'float32' | 'float64';
      loss: NativeLossOptions;
    },
  ): Promise<LossResult & { gradLogProbs: Float64Array; gradEntropies: Float64Array }>;
  /** Float64[N]: the class threshold of each response over a whole mini-batch. */
  classThresholds(options: {
    entropies: Float32Array;
    lengths: Int32Array;
    groupIds: Int32Array;
    lossMask: Uint8Array;
    quantile: number;
    scope: 'response' | 'group' | 'batch';
  }): Promise<Float64Array>;
  /** Jobs waiting or running. */
  pending(): number;
  /** Cancels what runs and joins the thread. The wrapper calls it in process.on('exit'). */
  shutdown(): void;
}

/** Stretches of the engine thread's time in the order of their ends; microseconds of CLOCK_MONOTONIC, as process.hrtime has it. */
export interface EngineSpans {
  names: string[];
  beginUs: Float64Array;
  endUs: Float64Array;
  /** So many more than the engine keeps between two calls. */
  lost: number;
}

export interface NativeModule {
  buildInfo(): BuildInfo;
  memoryStats(): { rssBytes: number; peakRssBytes: number };
  /** Computed from shapes alone: nothing is allocated. */
  memoryParts(request: MemoryRequest): MemoryParts;
  /** Spans of the engine's work are kept from now on, or no longer. */
  switchProfile(on: boolean): void;
  /** Those that have ended since the last call. */
  takeSpans(): EngineSpans;
  JobControl: new () => NativeJobControl;
  Engine: new (options: { numThreads: number }) => NativeEngine;
}
