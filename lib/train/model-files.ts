// A trained policy on disk. Whole: a Hugging Face folder with config.json, model.safetensors, generation_config.json and the
// tokenizer's files, so that transformers, vLLM and llama.cpp's converter open it as it is; adapters are merged. Its adapters
// alone: a folder that PEFT opens.
import { copyFile, readdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { ArcherError } from '../errors.js';
import { adapterConfigName, adapterConfigText, adapterWeightsName } from '../model/adapter.js';
import type { Weights } from '../native/policy.js';

// What belongs to a model folder besides weights and config.json.
const companions =
  /^(generation_config\.json|tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt|chat_template.*|LICENSE.*)$/;

/**
 * Writes the folder's files into an existing empty folder.
 *
 * @param dtype of the weights on disk; default: the dtype that the policy computes in
 */
export async function writeModelFiles(dir: string, weights: Weights, dtype = diskDtype(weights)): Promise<void> {
  const { folder } = weights;
  // transformers 5 reads dtype, older versions torch_dtype
  const { torch_dtype: _, dtype: __, ...config } = folder.config;
  const written = { ...config, dtype, torch_dtype: dtype };
  await writeFile(join(dir, 'config.json'), `${JSON.stringify(written, null, 2)}\n`);
  for (const name of await readdir(folder.path)) {
    if (companions.test(name)) await copyFile(join(folder.path, name), join(dir, name));
  }
  await weights.saveWeights(join(dir, 'model.safetensors'), dtype);
}

/** Writes the adapters' files into an existing empty folder; the base is named there, not copied. */
export async function writeAdapterFiles(dir: string, weights: Weights): Promise<void> {
  const { adapter, path } = weights.folder;
  if (!adapter) throw new ArcherError('ARCHER_E_INTERNAL', `The model of ${path} has no adapters to write.`);
  await writeFile(join(dir, adapterConfigName), adapterConfigText(adapter.lora, resolve(path)));
  await weights.saveAdapters(join(dir, adapterWeightsName));
}

function diskDtype(weights: Weights): 'float32' | 'bfloat16' {
  return weights.dtype === 'bfloat16' ? 'bfloat16' : 'float32';
}
