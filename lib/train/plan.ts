// What a configuration amounts to: sizes per step and in all, memory by part, disk. Computed from shapes alone.
import { type LoadedConfig, loraOptions, lossOptions } from '../config/index.js';
import { adapterTensors } from '../model/adapter.js';
import { expectedTensors } from '../model/safetensors.js';
import type { ModelFolder } from '../model/folder.js';
import { memoryJob } from './machine-memory.js';
import { type MemoryPlan, planMemory } from './memory-plan.js';
import { whyItDoesNotFit } from './memory-remedies.js';
import { bytesText, choiceRows, memoryRows } from './memory-report.js';
import { totalTrainingSteps } from './run.js';
import type { LoadedData } from './setup.js';
import type { TrainPrompt } from './types.js';

export interface Plan {
  /** Section -> what -> value with its unit. */
  sections: Record<string, Record<string, string>>;
  notes: string[];
  /** The same numbers for programs; bytes and counts. */
  numbers: Record<string, number>;
  memory: MemoryPlan;
}

export function makePlan(loaded: LoadedConfig, folder: ModelFolder, data: LoadedData, validation: TrainPrompt[]): Plan {
  const { config } = loaded;
  const model = folder.nativeConfig;
  const elements = (tensors: Map<string, number[]>) =>
    [...tensors.values()].reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
  const parameters = elements(expectedTensors(model));
  const lora = loraOptions(config);
  const trained = lora ? elements(adapterTensors(model, lora)) : parameters;
  const computeBytes = config.model.dtype === 'bfloat16' ? 2 : 4;
  const prompts = config.data.train_batch_size;
  const responses = prompts * config.rollout.n;
  const miniBatches = Math.ceil(prompts / config.actor.ppo_mini_batch_size);
  const updates = miniBatches * config.actor.ppo_epochs;
  const steps = totalTrainingSteps(loaded, data.prompts.length);
  const longestPrompt = data.prompts.reduce((longest, { ids }) => Math.max(longest, ids.length), 0);
  const slotTokens = longestPrompt + config.data.max_response_length;
  const job = memoryJob({ config, folder, prompts: data.prompts, validation });
  const memory = planMemory(job);
  const checkpoint = trained * ((lora ? 4 : computeBytes) + 8 + (config.model.dtype === 'bfloat16' ? 4 : 0));
  const kept = config.trainer.max_ckpt_to_keep;
  const loss = lossOptions(config);
  const notes: string[] = [...loaded.warnings];
  if (loss.entropyScope !== 'response' && loss.entropySource === 'current') {
    notes.push(
      `actor.entropy_scope ${loss.entropyScope} with the current policy's entropies costs one more forward of every mini-batch.`,
    );
  }
  const refusal = whyItDoesNotFit(job, memory);
  if (refusal) notes.push(refusal);
  return {
    sections: {
      Run: {
        algorithm: `${config.algorithm.name}${config.algorithm.name === 'archer' ? ` (${config.algorithm.fidelity})` : ''}`,
        'training steps': String(steps),
        'training prompts': `${data.prompts.length} (${((steps * prompts) / data.prompts.length).toFixed(2)} epochs)`,
        'longest prompt': `${longestPrompt} tokens`,
      },
      'Each step': {
        prompts: String(prompts),
        responses: `${responses} (${config.rollout.n} per prompt)`,
        'generated tokens': `at most ${count(responses * config.data.max_response_length)}`,
        updates: `${updates} (${miniBatches} mini-batches of ${Math.ceil(prompts / miniBatches)} prompts, ${config.actor.ppo_epochs} inner epochs)`,
        'tokens per forward/backward': `at most ${count(Math.max(memory.choices.microBatchTokens, slotTokens))}`,
      },
      Memory: memoryRows(memory),
      Chosen: choiceRows(memory),
      Disk: {
        checkpoint: bytesText(checkpoint),
        'checkpoints in all': kept === null ? 'every one is kept' : bytesText(checkpoint * kept),
      },
    },
    notes,
    numbers: {
      parameters,
      steps,
      prompts,
      responses,
      updates,
      peakBytes: memory.peakBytes,
      checkpointBytes: checkpoint,
    },
    memory,
  };
}

const count = (value: number) => value.toLocaleString('en');
