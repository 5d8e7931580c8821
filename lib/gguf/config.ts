// config.json from a GGUF file's metadata and table of tensors. What the file does not say in words is read off its
// tensors: the vocabulary's size, biases, a tied head, Llama 3's frequency factors.
import type { JsonObject } from '../model/config.js';
import { dequantize } from './blocks.js';
import { Metadata } from './metadata.js';
import type { GgufFile } from './reader.js';
import { readTensorBytes } from './tensor-bytes.js';

const architectures: Record<string, string> = {
  llama: 'LlamaForCausalLM',
  qwen2: 'Qwen2ForCausalLM',
  qwen3: 'Qwen3ForCausalLM',
};

/** @throws ArcherError ARCHER_E_MODEL naming the key: another architecture, rope scaling, mixture of experts, … */
export async function configFrom(file: GgufFile, dtype: 'float32' | 'bfloat16'): Promise<JsonObject> {
  const meta = new Metadata(file);
  const family = meta.string('general.architecture');
  const architecture = architectures[family];
  if (!architecture) meta.refuse('general.architecture', family, Object.keys(architectures).join(', '));
  const parts = meta.number('split.count', 1);
  if (parts > 1) meta.refuse('split.count', parts, 'a model in one file (join them with `llama-gguf-split --merge`)');
  const key = (name: string) => `${family}.${name}`;
  const experts = meta.number(key('expert_count'), 0);
  if (experts > 0) meta.refuse(key('expert_count'), experts, 'dense models');

  const hiddenSize = meta.number(key('embedding_length'));
  const numHeads = meta.number(key('attention.head_count'));
  const headDim = meta.number(key('attention.key_length'), hiddenSize / numHeads);
  for (const name of ['attention.value_length', 'rope.dimension_count']) {
    const size = meta.number(key(name), headDim);
    if (size !== headDim) meta.refuse(key(name), size, `the size of a head (${headDim})`);
  }
  const numLayers = meta.number(key('block_count'));
  if (numLayers > file.tensors.size) meta.refuse(key('block_count'), numLayers, 'at most the number of tensors');
  const embedding =
    file.tensors.get('token_embd.weight') ?? meta.refuse('token_embd.weight', undefined, 'a file with the whole model');
  const has = (name: string) => file.tensors.has(name);
  const ropeTheta = meta.decimal(key('rope.freq_base'), 10_000);
  return {
    architectures: [architecture],
    model_type: family,
    vocab_size: embedding.shape[0]!,
    hidden_size: hiddenSize,
    intermediate_size: meta.number(key('feed_forward_length')),
    num_hidden_layers: numLayers,
    num_attention_heads: numHeads,
    num_key_value_heads: meta.number(key('attention.head_count_kv'), numHeads),
    head_dim: headDim,
    max_position_embeddings: meta.number(key('context_length')),
    rms_norm_eps: meta.decimal(key('attention.layer_norm_rms_epsilon')),
    rope_theta: ropeTheta,
    rope_scaling: await ropeScalingOf(meta, family, headDim, ropeTheta),
    hidden_act: 'silu',
    attention_bias: has('blk.0.attn_q.bias'),
    mlp_bias: has('blk.0.ffn_gate.bias'),
    tie_word_embeddings: !has('output.weight'),
    bos_token_id: meta.optional('tokenizer.ggml.bos_token_id') ?? null,
    eos_token_id: meta.optional('tokenizer.ggml.eos_token_id') ?? null,
    pad_token_id: meta.optional('tokenizer.ggml.padding_token_id') ?? null,
    torch_dtype: dtype,
  };
}

/** generation_config.json: a chat model's turn may end with another token than its text. */
export function generationConfigFrom(file: GgufFile): JsonObject {
  const meta = new Metadata(file);
  const id = (name: string) => meta.optional(`tokenizer.ggml.${name}_token_id`);
  const ends = [...new Set(['eos', 'eot', 'eom'].map(id).filter((one) => one !== undefined))];
  const ids = { bos_token_id: id('bos'), eos_token_id: ends.length > 1 ? ends : ends[0], pad_token_id: id('padding') };
  return Object.fromEntries(Object.entries(ids).filter(([, value]) => value !== undefined));
}

async function ropeScalingOf(
  meta: Metadata,
  family: string,
  headDim: number,
  theta: number,
): Promise<JsonObject | null> {
  const typeKey = `${family}.rope.scaling.type`;
  const type = meta.get(typeKey) ?? 'none';
  if (type !== 'none') meta.refuse(typeKey, type, 'none');
  const tensor = meta.file.tensors.get('rope_freqs.weight');
  if (!tensor) return null;
  const factors = new Float32Array(tensor.shape[0]!);
  dequantize(tensor.type, await readTensorBytes(meta.file.path, tensor), factors);
  // The file holds the factors and not what they were made from; Llama 3 has one rule with one free number.
  const scaling = { factor: Math.max(...factors), low: 1, high: 4, original: 8192 };
  const expected = llama3Factors(headDim, theta, scaling);
  const isLlama3 =
    factors.length === expected.length && expected.every((one, i) => Math.abs(one / factors[i]! - 1) < 1e-5);
  if (!isLlama3) meta.refuse('rope_freqs.weight', 'of an unknown rule', 'the factors of Llama 3.1 to 3.3');
  return {
    rope_type: 'llama3',
    factor: scaling.factor,
    low_freq_factor: scaling.low,
    high_freq_factor: scaling.high,
    original_max_position_embeddings: scaling.original,
  };
}

/** How much slower each pair of a head rotates than without scaling. */
export function llama3Factors(
  headDim: number,
  theta: number,
  { factor, low, high, original }: { factor: number; low: number; high: number; original: number },
): number[] {
  return Array.from({ length: headDim / 2 }, (_, i) => {
    const turns = original / (2 * Math.PI * theta ** ((2 * i) / headDim));
    const smooth = Math.min(1, Math.max(0, (turns - low) / (high - low)));
    return 1 / ((1 - smooth) / factor + smooth);
  });
}
