// What a configuration amounts to: sizes per step and in all, memory by part, disk. Computed from shapes alone.
import { freemem } from 'node:os';
import { type LoadedConfig, lossOptions, needsReference } from '../config/index.js';
import { expectedTensors } from '../model/safetensors.js';
import type { ModelFolder } from '../model/folder.js';
import { totalTrainingSteps } from './run.js';
import type { LoadedData } from './setup.js';

export interface Plan {
  /** Section -> what -> value with its unit. */
  sections: Record<string, Record<string, string>>;
  notes: string[];
  /** The same numbers for programs; bytes and counts. */
  numbers: Record<string, number>;
}

/** Rows of float32 logits that the fused loss holds at once: 64 MiB, at most 512 rows (native/loss/options.h). */
const lossChunkBytes = (vocabSize: number) => Math.min(512 * vocabSize * 4, 64 * 2 ** 20);

export function makePlan(loaded: LoadedConfig, folder: ModelFolder, data: LoadedData): Plan {
  const { config } = loaded;
  const model = folder.nativeConfig;
  const parameters = [...expectedTensors(model).values()].reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
  const computeBytes = config.model.dtype === 'bfloat16' ? 2 : 4;
  const prompts = config.data.train_batch_size;
  const responses = prompts * config.rollout.n;
  const miniBatches = Math.ceil(prompts / config.actor.ppo_mini_batch_size);
  const updates = miniBatches * config.actor.ppo_epochs;
  const steps = totalTrainingSteps(loaded, data.prompts.length);
  const longestPrompt = data.prompts.reduce((longest, { ids }) => Math.max(longest, ids.length), 0);
  const slotTokens = longestPrompt + config.data.max_response_length;
  const kvPerToken = 2 * model.numLayers * model.numKvHeads * model.headDim * computeBytes;
  const slots = config.rollout.max_slots || responses;
  const kvWanted = Math.min(slots, responses) * slotTokens * kvPerToken;
  const kv = config.rollout.kv_budget_bytes > 0 ? Math.min(kvWanted, config.rollout.kv_budget_bytes) : kvWanted;
  const microTokens = Math.max(config.actor.ppo_max_token_len, slotTokens);
  // What autograd keeps per token and layer: inputs of the norms, of qkv, attention, o, gate/up and down, in compute dtype.
  const perLayer = 8 * model.hiddenSize + 2 * (model.numHeads + model.numKvHeads) * model.headDim + 4 * model.intermediateSize;
  const memory: Record<string, number> = {
    weights: parameters * computeBytes,
    'master weights': config.model.dtype === 'bfloat16' ? parameters * 4 : 0,
    gradients: parameters * 4,
    'optimizer moments': parameters * 8,
    'reference model': needsReference(config) ? parameters * computeBytes : 0,
    'KV cache (generation)': kv,
    'activations (update)': microTokens * model.numLayers * perLayer * computeBytes,
    'loss chunk': lossChunkBytes(model.vocabSize),
  };
  const fixed = memory.weights! + memory['master weights']! + memory.gradients! + memory['optimizer moments']! + memory['reference model']!;
  // generation and update do not overlap
  const peak = fixed + Math.max(kv, memory['activations (update)']! + memory['loss chunk']!);
  const checkpoint = parameters * (computeBytes + 8 + (config.model.dtype === 'bfloat16' ? 4 : 0));
  const kept = config.trainer.max_ckpt_to_keep;
  const loss = lossOptions(config);
  const notes: string[] = [...loaded.warnings];
  if (loss.entropyScope !== 'response' && loss.entropySource === 'current') {
    notes.push(`actor.entropy_scope ${loss.entropyScope} with the current policy's entropies costs one more forward of every mini-batch.`);
  }
  if (peak > freemem()) notes.push(`The estimated peak of ${bytes(peak)} exceeds the ${bytes(freemem())} that are free now.`);
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
        'tokens per forward/backward': `at most ${count(microTokens)}`,
      },
      'Memory (estimated)': Object.fromEntries([
        ...Object.entries(memory)
          .filter(([, value]) => value > 0)
          .map(([name, value]) => [name, bytes(value)]),
        ['peak', bytes(peak)],
      ]),
      Disk: {
        checkpoint: bytes(checkpoint),
        'checkpoints in all': kept === null ? 'every one is kept' : bytes(checkpoint * kept),
      },
    },
    notes,
    numbers: { parameters, steps, prompts, responses, updates, peakBytes: peak, checkpointBytes: checkpoint, ...memory },
  };
}

function bytes(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = value < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(value) / 10));
  return `${(value / 2 ** (10 * power)).toFixed(power === 0 ? 0 : 1)} ${units[power]}`;
}

const count = (value: number) => value.toLocaleString('en');
