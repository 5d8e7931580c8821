// Gradients and AdamW state of one policy: forwardBackward for each micro-batch, then optimizerStep.
import { ArcherError } from '../errors.js';
import { callNative, float32, type JobOptions, runJob, uint8 } from './job.js';
import type { Weights } from './policy.js';
import type {
  MicroBatchResult,
  NativeLossOptions,
  NativeTrainer,
  OptimizerOptions,
  PackedBatch,
  TensorEntry,
} from './types.js';

export class Optimizer {
  private constructor(private handle: NativeTrainer | undefined) {}

  /** `weights` must have been loaded with trainable: true. */
  static async create(weights: Weights, options: OptimizerOptions): Promise<Optimizer> {
    return new Optimizer(await runJob({}, () => weights.engine.createTrainer(weights.native, options)));
  }

  private get native(): NativeTrainer {
    if (!this.handle) throw new ArcherError('ARCHER_E_DISPOSED', 'the trainer was disposed');
    return this.handle;
  }

  /** Forward, fused loss and backward of one micro-batch; its gradients are added to the accumulated ones. */
  async forwardBackward(
    batch: PackedBatch,
    loss: NativeLossOptions,
    options: JobOptions = {},
  ): Promise<MicroBatchResult> {
    const native = this.native;
    const result = await runJob(options, (control) => native.forwardBackward(batch, loss, control));
    return {
      ...result,
      logProbs: float32(result.logProbs),
      entropies: float32(result.entropies),
      classes: uint8(result.classes),
    };
  }

  /** Clips the global norm, updates, zeroes the gradients. A non-finite norm skips the update. */
  async step(options: { lr: number; gradClip: number }): Promise<{ gradNorm: number; skipped: boolean }> {
    const native = this.native;
    return { ...(await runJob({}, () => native.optimizerStep(options))) };
  }

  async gradient(name: string): Promise<Float32Array> {
    const native = this.native;
    return float32(await runJob({}, () => native.gradient(name)));
  }

  async zeroGrad(): Promise<void> {
    const native = this.native;
    await runJob({}, () => native.zeroGrad());
  }

  /** Gives back to the system what only forwardBackward uses, until its next call, and what earlier jobs have freed. */
  async releaseMemory(): Promise<void> {
    const native = this.native;
    await runJob({}, () => native.releaseMemory());
  }

  async saveState(path: string): Promise<void> {
    const native = this.native;
    await runJob({}, () => native.saveState(path));
  }

  async loadState(tensors: TensorEntry[], optimizerSteps: number): Promise<void> {
    const native = this.native;
    await runJob({}, () => native.loadState({ tensors, optimizerSteps }));
  }

  /** Updates made so far: t of AdamW's bias correction. */
  get steps(): number {
    return callNative(() => this.native.optimizerSteps());
  }

  get memoryBytes(): number {
    return callNative(() => this.native.memoryBytes());
  }

  dispose(): void {
    this.handle?.dispose();
    this.handle = undefined;
  }
}
