// Adapter folders as PEFT writes and reads them: adapter_config.json and adapter_model.safetensors, beside no weights of
// the base model, which adapter_config.json names. Whatever PEFT can do that changes the arithmetic beyond W + s·B·A is
// refused by name, never ignored.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ArcherError, messageOf } from '../errors.js';
import type { LoraOptions, NativeModelConfig, TensorEntry } from '../native/types.js';
import type { JsonObject } from './config.js';
import { expectedTensors, matchTensors, readTensorTable } from './safetensors.js';

export const adapterConfigName = 'adapter_config.json';
export const adapterWeightsName = 'adapter_model.safetensors';

/** What lies over a model's weights. */
export interface Adapter {
  lora: LoraOptions;
  /** Empty where `lora.seed` makes fresh ones. */
  tensors: TensorEntry[];
}

const projection = /^(model\.layers\.\d+\.(?:self_attn|mlp)\.(\w+_proj))\.weight$/;

/** Every tensor of the adapters with its shape, by PEFT's names. */
export function adapterTensors(config: NativeModelConfig, { rank, targetModules }: LoraOptions): Map<string, number[]> {
  const shapes = new Map<string, number[]>();
  for (const [name, [rows, columns]] of expectedTensors(config)) {
    const [, path, module] = projection.exec(name) ?? [];
    if (module === undefined || !targetModules.includes(module)) continue;
    shapes.set(`base_model.model.${path}.lora_A.weight`, [rank, columns!]);
    shapes.set(`base_model.model.${path}.lora_B.weight`, [rows!, rank]);
  }
  return shapes;
}

/** The text of adapter_config.json. */
export function adapterConfigText({ rank, alpha, targetModules }: LoraOptions, basePath: string): string {
  const config = {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: basePath,
    r: rank,
    lora_alpha: alpha,
    target_modules: targetModules,
    lora_dropout: 0,
    bias: 'none',
    inference_mode: true,
  };
  return `${JSON.stringify(config, null, 2)}\n`;
}

interface Base {
  path: string;
  nativeConfig: NativeModelConfig;
}

/**
 * Reads an adapter folder and checks that it fits its base.
 *
 * @param readBase gives the base model for the path that adapter_config.json names, or another one to put it over
 * @throws ArcherError ARCHER_E_MODEL: files that are missing or damaged, an adapter that is no plain LoRA, tensors that do
 *   not fit the base
 */
export async function readAdapter<B extends Base>(
  dir: string,
  readBase: (path: string) => Promise<B>,
): Promise<{ base: B; adapter: Adapter }> {
  const file = join(dir, adapterConfigName);
  const config = await readConfig(file);
  const { base_model_name_or_path: basePath, r: rank, lora_alpha: alpha, target_modules: targets } = config;
  for (const [key, plain] of notPlain) {
    const value = config[key];
    const isOff = value === undefined || value === null || value === plain || isEmpty(value);
    if (!isOff) refuse(file, `${key} is ${JSON.stringify(value)}; plain LoRA without it can be read`);
  }
  if (!Number.isInteger(rank) || (rank as number) < 1)
    refuse(file, `r is ${JSON.stringify(rank)}; it must be a whole number above 0`);
  if (typeof alpha !== 'number' || !(alpha > 0))
    refuse(file, `lora_alpha is ${JSON.stringify(alpha)}; it must be above 0`);
  if (typeof basePath !== 'string')
    refuse(file, 'base_model_name_or_path is missing; put the path of the base model there');
  const base = await readBase(basePath);
  const modules = projectionNames(base.nativeConfig);
  const targetModules = targets === 'all-linear' ? modules : Array.isArray(targets) ? targets.map(String) : [];
  const unknown = targetModules.find((name) => !modules.includes(name));
  if (targetModules.length === 0 || unknown !== undefined) {
    refuse(
      file,
      `target_modules ${JSON.stringify(unknown ?? targets)} must be a list out of ${modules.join(', ')}, or all-linear`,
    );
  }
  const lora: LoraOptions = { rank: rank as number, alpha: alpha as number, targetModules };
  const weights = join(dir, adapterWeightsName);
  const source = `${adapterConfigName} over ${base.path}`;
  const tensors = matchTensors(
    await readTensorTable(weights),
    adapterTensors(base.nativeConfig, lora),
    weights,
    source,
  );
  return { base, adapter: { lora, tensors } };
}

/** Keys of adapter_config.json and the value at which they change nothing. */
const notPlain: [key: string, plain: unknown][] = [
  ['peft_type', 'LORA'],
  ['bias', 'none'],
  ['use_dora', false],
  ['use_rslora', false],
  ['lora_bias', false],
  ['fan_in_fan_out', false],
  ['modules_to_save', null],
  ['layers_to_transform', null],
  ['layer_replication', null],
  ['exclude_modules', null],
  ['rank_pattern', null],
  ['alpha_pattern', null],
];

function projectionNames(config: NativeModelConfig): string[] {
  return [...new Set([...expectedTensors(config).keys()].flatMap((name) => projection.exec(name)?.[2] ?? []))];
}

const isEmpty = (value: unknown) => typeof value === 'object' && value !== null && Object.keys(value).length === 0;

async function readConfig(file: string): Promise<JsonObject> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as JsonObject;
  } catch (error) {
    throw new ArcherError(
      'ARCHER_E_MODEL',
      `${file} cannot be read: ${messageOf(error)}; an adapter folder as PEFT saves it is needed`,
      {
        cause: error,
      },
    );
  }
}

function refuse(file: string, what: string): never {
  throw new ArcherError('ARCHER_E_MODEL', `${file}: ${what}`);
}
