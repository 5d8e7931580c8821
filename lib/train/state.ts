// What a checkpoint holds besides the weights, so that k steps + resume + N−k steps equal N steps bit for bit.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { SamplerState } from '../data/sampler.js';
import { ArcherError, messageOf } from '../errors.js';

/** trainer/state.json of a checkpoint. */
export interface TrainerState {
  format: 1;
  /** Completed training steps. */
  step: number;
  sampler: SamplerState;
  /** Updates made: t of AdamW's bias correction. */
  optimizerSteps: number;
  /** Length of metrics.jsonl and timings.jsonl when the checkpoint was written. */
  metricsBytes: number;
  timingsBytes: number;
  /** The frozen initial model that KL is measured against: its folder and content hash. */
  reference: { path: string; hash: string };
  /** What the memory plan chose and a resumed run keeps; absent in checkpoints of older versions. */
  memory?: { microBatchTokens: number; kvBudgetBytes: number };
  /** Mean length of the last responses by prompt key; absent in checkpoints of older versions. */
  responseLengths?: Record<string, number>;
  /** actor.old_log_prob auto has found the rollout's log-probs too far from the training engine's. */
  rolloutDisagrees?: boolean | undefined;
  /** Metrics of the step `step`, where an interruption fell into its validation: the row is still to be written. */
  pending?: Record<string, number> | undefined;
}

export const stateFolder = 'trainer';
const stateName = 'state.json';
export const optimizerName = 'optimizer.safetensors';

export async function writeState(checkpointDir: string, state: TrainerState): Promise<void> {
  await writeFile(join(checkpointDir, stateFolder, stateName), `${JSON.stringify(state, null, 2)}\n`);
}

/** @throws ARCHER_E_CHECKPOINT for a folder that holds a model but no trainer state */
export async function readState(checkpointDir: string): Promise<TrainerState> {
  const path = join(checkpointDir, stateFolder, stateName);
  let state: TrainerState;
  try {
    state = JSON.parse(await readFile(path, 'utf8')) as TrainerState;
  } catch (error) {
    throw new ArcherError('ARCHER_E_CHECKPOINT', `${path} cannot be read (${messageOf(error)}); resume from another checkpoint.`, {
      cause: error,
    });
  }
  if (state.format !== 1) {
    throw new ArcherError('ARCHER_E_CHECKPOINT', `${path} has format ${state.format}; this version reads 1. Update it.`);
  }
  return state;
}
