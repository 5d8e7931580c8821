// A model's weights in the addon, by token ids: load, generate, score, logits, save. Text is lib/rollout/policy.ts's.
import { ArcherError } from '../errors.js';
import type { ModelFolder } from '../model/folder.js';
import { getEngine } from './engine.js';
import { callNative, float32, int32, type JobOptions, runJob, type StreamOptions, uint8 } from './job.js';
import type {
  ComputeDtype,
  Generation,
  GenerateRequest,
  NativeEngine,
  NativePolicy,
  ScoreRequest,
  Scores,
} from './types.js';

export interface WeightsOptions extends JobOptions {
  dtype?: ComputeDtype;
  /** Keeps float32 master weights beside a bfloat16 model; with adapters, theirs alone. Default false. */
  trainable?: boolean;
  numThreads?: number;
}

/** Use after dispose() is ARCHER_E_DISPOSED; a second dispose() does nothing. */
export class Weights {
  private constructor(
    readonly folder: ModelFolder,
    readonly dtype: ComputeDtype,
    /** @internal */ readonly engine: NativeEngine,
    private handle: NativePolicy | undefined,
  ) {}

  static async load(folder: ModelFolder, options: WeightsOptions = {}): Promise<Weights> {
    const { dtype = 'float32', trainable = false } = options;
    const engine = getEngine(options.numThreads);
    const { adapter } = folder;
    const tensors = [...folder.tensors, ...(adapter?.tensors ?? [])];
    const request = { config: folder.nativeConfig, tensors, dtype, trainable, ...(adapter && { lora: adapter.lora }) };
    const handle = await runJob(options, (control) => engine.loadPolicy(request, control));
    return new Weights(folder, dtype, engine, handle);
  }

  /** @internal the native object, for Trainer */
  get native(): NativePolicy {
    if (!this.handle) throw new ArcherError('ARCHER_E_DISPOSED', `the model of ${this.folder.path} was disposed`);
    return this.handle;
  }

  get numParameters(): number {
    return callNative(() => this.native.numParameters());
  }

  get memoryBytes(): number {
    return callNative(() => this.native.memoryBytes());
  }

  async generate(request: GenerateRequest, options: StreamOptions = {}): Promise<Generation> {
    const native = this.native;
    const streamTokens = options.onTokens !== undefined;
    const result = await runJob(options, (control) => native.generate({ ...request, streamTokens }, control));
    return {
      ...result,
      ids: int32(result.ids),
      offsets: int32(result.offsets),
      logProbs: float32(result.logProbs),
      entropies: float32(result.entropies),
      finish: uint8(result.finish),
    };
  }

  /** Log-probs and entropies of given tokens under softmax(logits / temperature). */
  async score(request: ScoreRequest, options: JobOptions = {}): Promise<Scores> {
    const native = this.native;
    const result = await runJob(options, (control) => native.score(request, control));
    return { logProbs: float32(result.logProbs), entropies: float32(result.entropies) };
  }

  /** Raw logits [T, V] of packed ids, row-major. */
  async logits(ids: Int32Array, offsets: Int32Array, options: JobOptions = {}): Promise<Float32Array> {
    const native = this.native;
    return float32(await runJob(options, (control) => native.logits({ ids, offsets }, control)));
  }

  /** The model without its adapters, for as long as both live in one copy of the weights. */
  base(): Weights {
    const { adapter: _, ...folder } = this.folder;
    return new Weights(
      folder,
      this.dtype,
      this.engine,
      callNative(() => this.native.base()),
    );
  }

  /** Writes every weight into one safetensors file under its Hugging Face name; adapters are merged. */
  async saveWeights(path: string, dtype: 'float32' | 'bfloat16' | 'float16'): Promise<void> {
    const native = this.native;
    await runJob({}, () => native.saveWeights({ path, dtype }));
  }

  /** Writes the adapters alone, in float32 under PEFT's names. */
  async saveAdapters(path: string): Promise<void> {
    const native = this.native;
    await runJob({}, () => native.saveAdapters(path));
  }

  dispose(): void {
    this.handle?.dispose();
    this.handle = undefined;
  }
}
