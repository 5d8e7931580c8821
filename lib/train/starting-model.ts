// Which weights a run begins or goes on with: the initial model, a checkpoint's, or, with lora.rank, the initial model
// under fresh adapters or a checkpoint's.
import { isDeepStrictEqual } from 'node:util';
import { loraOptions, type ResolvedConfig } from '../config/index.js';
import { ArcherError } from '../errors.js';
import { readAdapter } from '../model/adapter.js';
import { type ModelFolder, readModelFolder } from '../model/folder.js';
import type { TrainerState } from './state.js';

/** The *initial* model of the run, also after a resume: named by path, checked by content. KL is measured against it. */
export async function initialModel(
  initial: ModelFolder,
  hash: string,
  state: TrainerState | undefined,
): Promise<ModelFolder> {
  if (!state || state.reference.hash === hash) return initial;
  const folder = await readModelFolder(state.reference.path);
  const found = await folder.hash();
  if (found !== state.reference.hash) {
    throw new ArcherError(
      'ARCHER_E_CHECKPOINT',
      `The run's initial model ${state.reference.path} has changed since the run began, and KL is measured against it. ` +
        'Put it back, or begin a new run with trainer.resume_mode=disable.',
    );
  }
  return folder;
}

/**
 * What is trained.
 *
 * @param initial of {@link initialModel}
 * @param checkpoint its folder, where the run goes on from one
 */
export async function startingModel(
  config: ResolvedConfig,
  initial: ModelFolder,
  checkpoint: string | undefined,
): Promise<ModelFolder> {
  if (initial.adapter) {
    throw new ArcherError(
      'ARCHER_E_CONFIG',
      `model.path ${config.model.path} is an adapter over ${initial.path}; a run begins with a whole model, such as archer-native ` +
        'export makes of it.',
    );
  }
  const lora = loraOptions(config);
  if (!lora) {
    const folder = checkpoint === undefined ? initial : await readModelFolder(checkpoint);
    if (folder.adapter) {
      throw new ArcherError(
        'ARCHER_E_CONFIG',
        `The checkpoint ${checkpoint} holds adapters of rank ${folder.adapter.lora.rank}; set lora.rank, or begin a new run with ` +
          'trainer.resume_mode=disable.',
      );
    }
    return folder;
  }
  if (checkpoint === undefined) return { ...initial, adapter: { lora, tensors: [] } };
  const { adapter } = await readAdapter(checkpoint, async () => initial);
  const { seed: _, ...wanted } = lora;
  if (!isDeepStrictEqual(adapter.lora, wanted)) {
    throw new ArcherError(
      'ARCHER_E_CONFIG',
      `The checkpoint ${checkpoint} has other adapters (${JSON.stringify(adapter.lora)}) than lora.rank, lora.alpha and ` +
        'lora.target_modules ask for; set these to its values, or begin a new run with trainer.resume_mode=disable.',
    );
  }
  return { ...initial, adapter };
}
