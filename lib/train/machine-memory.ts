// How much memory this machine has for a run, and what this process holds of it.
import { freemem, totalmem } from 'node:os';
import type { ResolvedConfig } from '../config/index.js';
import type { ModelFolder } from '../model/folder.js';
import { memoryParts, memoryStats, resolveThreads } from '../native/engine.js';
import type { EncodedPrompt } from '../rollout/types.js';
import type { MemoryJob } from './memory-plan.js';

/** What a container may hold; all there is outside of one. */
function limitBytes(): number {
  const constrained = process.constrainedMemory();
  return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
}

/** memory_budget in bytes. Without one: what is free now and what the process holds already. */
function budgetOf({ memory_budget: given }: ResolvedConfig, processBytes: number): number {
  if (given > 1) return Math.floor(given);
  if (given > 0) return Math.floor(given * limitBytes());
  return Math.min(limitBytes(), freemem() + processBytes);
}

/** A job on this machine, in this process; call it before anything large is loaded. */
export function memoryJob(options: {
  config: ResolvedConfig;
  folder: ModelFolder;
  prompts: EncodedPrompt[];
  validation: EncodedPrompt[];
}): MemoryJob {
  const { config, folder } = options;
  const lengths = (prompts: EncodedPrompt[]) => prompts.map(({ ids }) => ids.length).sort((a, b) => b - a);
  const { rssBytes: processBytes } = memoryStats();
  return {
    config,
    model: folder.nativeConfig,
    numThreads: resolveThreads(config.num_threads),
    promptLengths: lengths(options.prompts),
    validationLengths: lengths(options.validation),
    processBytes,
    budgetBytes: budgetOf(config, processBytes),
    partsOf: memoryParts,
  };
}
