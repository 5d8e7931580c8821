// A Hugging Face config.json, hub style or as transformers 5 writes it, read into the feature flags that C++ knows.
// Families differ in defaults and in two flags here; whatever changes the arithmetic in a way that C++ does not have is
// refused by name, never ignored.
import { ArcherError } from '../errors.js';
import type { NativeModelConfig } from '../native/types.js';

/** A parsed JSON object of unknown content. */
export type JsonObject = Record<string, unknown>;

interface Family {
  architecture: string;
  modelType: string;
  qkvBias: 'always' | 'attention_bias';
  outputBias: 'never' | 'attention_bias';
  hasMlpBias: boolean;
  qkNorm: boolean;
  /** What transformers assumes for absent keys. */
  defaults: Record<string, number>;
}

const qwenDefaults = {
  vocab_size: 151936,
  hidden_size: 4096,
  intermediate_size: 22016,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 32,
  max_position_embeddings: 32768,
  max_window_layers: 28,
};

const families: readonly Family[] = [
  {
    architecture: 'LlamaForCausalLM',
    modelType: 'llama',
    qkvBias: 'attention_bias',
    outputBias: 'attention_bias',
    hasMlpBias: true,
    qkNorm: false,
    defaults: {
      vocab_size: 32000,
      hidden_size: 4096,
      intermediate_size: 11008,
      num_hidden_layers: 32,
      num_attention_heads: 32,
      max_position_embeddings: 2048,
    },
  },
  {
    architecture: 'Qwen2ForCausalLM',
    modelType: 'qwen2',
    qkvBias: 'always',
    outputBias: 'never',
    hasMlpBias: false,
    qkNorm: false,
    defaults: qwenDefaults,
  },
  {
    architecture: 'Qwen3ForCausalLM',
    modelType: 'qwen3',
    qkvBias: 'attention_bias',
    outputBias: 'attention_bias',
    hasMlpBias: false,
    qkNorm: true,
    defaults: { ...qwenDefaults, head_dim: 128 },
  },
];

const supportedArchitectures = families.map((family) => family.architecture).join(', ');

/**
 * The model's shape and features from a parsed config.json.
 *
 * Absent keys take transformers' defaults of the family. Rope parameters are read from `rope_parameters` (transformers
 * 5) or from `rope_theta` and `rope_scaling` (hub).
 *
 * @param json the parsed config.json
 * @param path of that file, for messages
 * @throws ArcherError ARCHER_E_MODEL naming key and value: another architecture, rope type or activation, a sliding
 *   window in use, quantised weights, a value of the wrong type, sizes that do not fit each other
 */
export function parseModelConfig(json: unknown, path: string): NativeModelConfig {
  const config = new ConfigReader(json, path);
  const family = findFamily(config);
  const activation = config.string('hidden_act', 'silu');
  if (activation !== 'silu') config.refuse('hidden_act', activation, 'silu');
  if (config.has('quantization_config')) {
    config.refuse('quantization_config', 'present', 'unquantised weights (float32, float16, bfloat16)');
  }

  const size = (key: string, fallback = family.defaults[key]) => config.size(key, fallback);
  const hiddenSize = size('hidden_size');
  const numHeads = size('num_attention_heads');
  const numLayers = size('num_hidden_layers');
  // An absent key means the family's default, where it has one; a null means the value that follows from the others.
  const derived = (key: string, value: number) =>
    config.size(key, (config.absent(key) && family.defaults[key]) || value);
  const numKvHeads = derived('num_key_value_heads', numHeads);
  const headDim = derived('head_dim', hiddenSize / numHeads);
  refuseSlidingWindow(config, family, numLayers);
  if (numHeads % numKvHeads !== 0) {
    config.refuse('num_key_value_heads', numKvHeads, `a divisor of num_attention_heads (${numHeads})`);
  }
  if (headDim % 2 !== 0) config.refuse('head_dim', headDim, 'an even number (rope rotates pairs)');

  const maxPositionEmbeddings = size('max_position_embeddings');
  const attentionBias = config.boolean('attention_bias', false);
  return {
    vocabSize: size('vocab_size'),
    hiddenSize,
    intermediateSize: size('intermediate_size'),
    numLayers,
    numHeads,
    numKvHeads,
    headDim,
    maxPositionEmbeddings,
    rmsNormEps: config.positive('rms_norm_eps', 1e-6),
    ...ropeOf(config, maxPositionEmbeddings),
    qkvBias: family.qkvBias === 'always' || attentionBias,
    outputBias: family.outputBias === 'attention_bias' && attentionBias,
    mlpBias: family.hasMlpBias && config.boolean('mlp_bias', false),
    qkNorm: family.qkNorm,
    tieWordEmbeddings: config.boolean('tie_word_embeddings', false),
  };
}

/** The dtype that the config states (`dtype`, or `torch_dtype` in older files); undefined where it states none. */
export function statedDtype(config: JsonObject): string | undefined {
  const dtype = config.dtype ?? config.torch_dtype;
  return typeof dtype === 'string' ? dtype : undefined;
}

/**
 * Token ids from the first of the given files that has them: generation_config.json wins over config.json.
 *
 * @param key `eos_token_id` (a number or a list) or `pad_token_id`
 * @throws ArcherError ARCHER_E_MODEL for anything else than ids
 */
export function readTokenIds(
  key: string,
  sources: readonly { path: string; json: JsonObject | undefined }[],
): number[] {
  for (const { path, json } of sources) {
    const value = json?.[key];
    if (value === undefined || value === null) continue;
    const ids: unknown[] = Array.isArray(value) ? value : [value];
    if (!ids.every((id): id is number => typeof id === 'number' && Number.isInteger(id) && id >= 0)) {
      throw new ArcherError(
        'ARCHER_E_MODEL',
        `${path}: ${key} is ${JSON.stringify(value)}; a token id or a list of them is needed`,
      );
    }
    return ids;
  }
  return [];
}

class ConfigReader {
  private readonly json: JsonObject;

  constructor(
    json: unknown,
    readonly path: string,
  ) {
    if (typeof json !== 'object' || json === null || Array.isArray(json)) {
      throw new ArcherError('ARCHER_E_MODEL', `${path} holds no JSON object; a Hugging Face config.json is needed`);
    }
    this.json = json as JsonObject;
  }

  get(key: string): unknown {
    return this.json[key];
  }

  has(key: string): boolean {
    return this.json[key] !== undefined && this.json[key] !== null;
  }

  /** Not there at all; a null has a meaning of its own (head_dim). */
  absent(key: string): boolean {
    return this.json[key] === undefined;
  }

  refuse(key: string, value: unknown, supported: string): never {
    const isMissing = value === undefined || Number.isNaN(value);
    const shown = isMissing ? 'missing' : typeof value === 'string' ? value : JSON.stringify(value);
    throw new ArcherError('ARCHER_E_MODEL', `${this.path}: ${key} is ${shown}; supported: ${supported}`);
  }

  size(key: string, fallback?: number): number {
    const value = this.has(key) ? this.json[key] : fallback;
    if (typeof value !== 'number' || !Number.isInteger(value) || value <= 0)
      this.refuse(key, value, 'a positive integer');
    return value;
  }

  positive(key: string, fallback: number): number {
    const value = this.has(key) ? this.json[key] : fallback;
    if (typeof value !== 'number' || !(value > 0)) this.refuse(key, value, 'a positive number');
    return value;
  }

  boolean(key: string, fallback: boolean): boolean {
    const value = this.has(key) ? this.json[key] : fallback;
    if (typeof value !== 'boolean') this.refuse(key, value, 'true or false');
    return value;
  }

  string(key: string, fallback: string): string {
    const value = this.has(key) ? this.json[key] : fallback;
    if (typeof value !== 'string') this.refuse(key, value, 'a string');
    return value;
  }

  /** The object under `key` as a reader of its own, so that messages say rope_scaling.factor. */
  object(key: string): ConfigReader | undefined {
    if (!this.has(key)) return undefined;
    const value = this.json[key];
    if (typeof value !== 'object' || Array.isArray(value)) this.refuse(key, value, 'an object');
    return new ConfigReader(value, `${this.path}: ${key}`);
  }
}

function findFamily(config: ConfigReader): Family {
  const architectures = config.get('architectures');
  if (Array.isArray(architectures) && architectures.length > 0) {
    const found = families.find((family) => architectures.includes(family.architecture));
    return found ?? config.refuse('architectures', architectures, supportedArchitectures);
  }
  const modelType = config.get('model_type');
  const found = families.find((family) => family.modelType === modelType);
  return found ?? config.refuse('model_type', modelType, families.map((family) => family.modelType).join(', '));
}

function refuseSlidingWindow(config: ConfigReader, family: Family, numLayers: number): void {
  const remedy = 'full attention in every layer (use_sliding_window: false)';
  const layerTypes = config.get('layer_types');
  if (Array.isArray(layerTypes)) {
    const other = layerTypes.find((type) => type !== 'full_attention');
    if (other !== undefined) config.refuse('layer_types', other, remedy);
    return;
  }
  const firstLayer = family.defaults.max_window_layers;
  if (firstLayer === undefined || !config.boolean('use_sliding_window', false)) return;
  const isOff = config.get('sliding_window') === null;
  const maxWindowLayers = config.has('max_window_layers') ? Number(config.get('max_window_layers')) : firstLayer;
  if (!isOff && numLayers > maxWindowLayers) config.refuse('use_sliding_window', true, remedy);
}

const originalKey = 'original_max_position_embeddings';

function ropeOf(
  config: ConfigReader,
  maxPositionEmbeddings: number,
): Pick<NativeModelConfig, 'ropeTheta' | 'ropeScaling'> {
  // As transformers 5 does: a rope_scaling, where there is one, stands for rope_parameters.
  const key = config.has('rope_scaling') ? 'rope_scaling' : 'rope_parameters';
  const rope = config.object(key);
  const ropeTheta = rope?.has('rope_theta') ? rope.positive('rope_theta', 10000) : config.positive('rope_theta', 10000);
  for (const reader of [config, rope]) {
    const share = reader?.get('partial_rotary_factor') ?? 1;
    if (share !== 1) reader?.refuse('partial_rotary_factor', share, '1');
  }
  const typeKey = rope?.has('rope_type') ? 'rope_type' : 'type';
  const type = rope?.string(typeKey, 'default') ?? 'default';
  if (!rope || type === 'default') return { ropeTheta };
  if (type !== 'llama3') rope.refuse(typeKey, type, 'default, llama3');
  const lowFreqFactor = rope.positive('low_freq_factor', Number.NaN);
  const highFreqFactor = rope.positive('high_freq_factor', Number.NaN);
  if (highFreqFactor <= lowFreqFactor)
    rope.refuse('high_freq_factor', highFreqFactor, `more than low_freq_factor (${lowFreqFactor})`);
  return {
    ropeTheta,
    ropeScaling: {
      factor: rope.positive('factor', Number.NaN),
      lowFreqFactor,
      highFreqFactor,
      originalMaxPositionEmbeddings: (config.has(originalKey) ? config : rope).size(originalKey, maxPositionEmbeddings),
    },
  };
}
