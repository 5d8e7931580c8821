// A Hugging Face model folder: what the engine, the tokenizer and the checkpoints need to know of it, read and
// validated before anything large is loaded.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { ArcherError, messageOf } from '../errors.js';
import type { NativeModelConfig, TensorEntry } from '../native/types.js';
import { type Adapter, adapterConfigName, readAdapter } from './adapter.js';
import { type JsonObject, parseModelConfig, readTokenIds } from './config.js';
import { readModelTensors } from './safetensors.js';

const tokenizerFileNames =
  /^(tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt|chat_template.*)$/;

/** Whether a file of a model folder belongs to its tokenizer. */
export const isTokenizerFile = (name: string): boolean => tokenizerFileNames.test(name);

export interface ModelFolder {
  readonly path: string;
  /** config.json as it is. */
  readonly config: JsonObject;
  readonly nativeConfig: NativeModelConfig;
  /** Exactly the tensors that the model has. */
  readonly tensors: TensorEntry[];
  /** generation_config.json, or an empty object. */
  readonly generationConfig: JsonObject;
  /** From generation_config.json, else from config.json; empty where neither names one. */
  readonly eosTokenIds: number[];
  readonly padTokenId?: number;
  /** What lies over the weights; undefined for a model without adapters. */
  readonly adapter?: Adapter;
  /** File names of everything that belongs to the tokenizer; tokenizer.json is among them. */
  readonly tokenizerFiles: string[];
  /** SHA-256 (hex) of config.json and the weights, without adapters; reads every byte of them. */
  hash(): Promise<string>;
}

/**
 * Reads a model folder without loading its weights. An adapter folder, as PEFT writes it, is its base model with an
 * adapter.
 *
 * @throws ArcherError ARCHER_E_MODEL: no such folder, config.json missing or unsupported ({@link parseModelConfig}),
 *   weights incomplete or damaged, tokenizer.json missing
 */
export async function readModelFolder(path: string): Promise<ModelFolder> {
  let names: string[];
  try {
    names = (await readdir(path)).sort();
  } catch (error) {
    const remedy = 'give the path of a Hugging Face model folder (config.json, model.safetensors, tokenizer.json)';
    throw new ArcherError(
      'ARCHER_E_MODEL',
      `the model folder ${path} cannot be read (${messageOf(error)}); ${remedy}`,
      { cause: error },
    );
  }
  if (names.includes(adapterConfigName) && !names.includes('config.json')) {
    const { base, adapter } = await readAdapter(path, readModelFolder);
    return { ...base, adapter };
  }
  const configPath = join(path, 'config.json');
  const generationPath = join(path, 'generation_config.json');
  if (!names.includes('config.json')) {
    throw new ArcherError('ARCHER_E_MODEL', `${configPath} is missing; a Hugging Face model folder is needed`);
  }
  const config = await readJson(configPath);
  const nativeConfig = parseModelConfig(config, configPath);
  if (!names.includes('tokenizer.json')) {
    const remedy =
      'put it beside config.json (transformers: AutoTokenizer.from_pretrained(...).save_pretrained(folder))';
    throw new ArcherError('ARCHER_E_MODEL', `${join(path, 'tokenizer.json')} is missing; ${remedy}`);
  }
  const tensors = await readModelTensors(path, nativeConfig);
  const generationConfig = names.includes('generation_config.json') ? await readJson(generationPath) : {};
  const sources = [
    { path: generationPath, json: generationConfig },
    { path: configPath, json: config },
  ];
  return {
    path,
    config,
    nativeConfig,
    tensors,
    generationConfig,
    eosTokenIds: readTokenIds('eos_token_id', sources),
    padTokenId: readTokenIds('pad_token_id', sources)[0],
    tokenizerFiles: names.filter(isTokenizerFile),
    hash: () => hashFiles(path, ['config.json', ...weightFiles(tensors)]),
  };
}

function weightFiles(tensors: readonly TensorEntry[]): string[] {
  return [...new Set(tensors.map((tensor) => basename(tensor.file)))].sort();
}

// A hash of names and hashes: bytes cannot move from one file to the next unseen.
async function hashFiles(folder: string, names: readonly string[]): Promise<string> {
  const hash = createHash('sha256');
  for (const name of names) {
    const content = createHash('sha256');
    for await (const chunk of createReadStream(join(folder, name), { highWaterMark: 1 << 20 }))
      content.update(chunk as Buffer);
    hash.update(`${name} ${content.digest('hex')}\n`);
  }
  return hash.digest('hex');
}

async function readJson(path: string): Promise<JsonObject> {
  let value: unknown;
  try {
    value = JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    throw new ArcherError('ARCHER_E_MODEL', `${path} cannot be read as JSON: ${messageOf(error)}`, { cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ArcherError('ARCHER_E_MODEL', `${path} holds no JSON object`);
  }
  return value as JsonObject;
}
