// GGUF files for tests: any header, and the file that llama.cpp's converter would make of a Hugging Face folder.
import { readFileSync, writeFileSync } from 'node:fs';
import { blockTypes, type BlockTypeName } from '../../lib/gguf/blocks.js';
import { readModelFolder } from '../../lib/model/folder.js';

/** A number is a u32 unless it is wrapped: { type, value }. */
export type Value = string | number | boolean | string[] | { i32s: number[] } | { f32: number };

export interface TensorToWrite {
  name: string;
  type: BlockTypeName | number;
  /** Hugging Face's order. */
  shape: number[];
  bytes: Buffer;
  offset?: number;
}

const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
export const u64 = (value: number | bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
const text = (value: string) => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);

function encode(value: Value): Buffer {
  if (typeof value === 'string') return Buffer.concat([u32(8), text(value)]);
  if (typeof value === 'number') return Buffer.concat([u32(4), u32(value)]);
  if (typeof value === 'boolean') return Buffer.concat([u32(7), Buffer.from([Number(value)])]);
  if (Array.isArray(value)) return Buffer.concat([u32(9), u32(8), u64(value.length), ...value.map(text)]);
  if ('f32' in value) return Buffer.concat([u32(6), Buffer.from(Float32Array.of(value.f32).buffer)]);
  return Buffer.concat([u32(9), u32(5), u64(value.i32s.length), Buffer.from(Int32Array.from(value.i32s).buffer)]);
}

const padded = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc((32 - (bytes.length % 32)) % 32)]);

export function ggufBytes(metadata: Record<string, Value>, tensors: readonly TensorToWrite[], version = 3): Buffer {
  const pairs = Object.entries(metadata).map(([key, value]) => Buffer.concat([text(key), encode(value)]));
  let offset = 0;
  const infos = tensors.map((tensor) => {
    const type = typeof tensor.type === 'number' ? tensor.type : blockTypes[tensor.type].id;
    const dimensions = [...tensor.shape].reverse().map(u64);
    const parts = [text(tensor.name), u32(tensor.shape.length), ...dimensions, u32(type), u64(tensor.offset ?? offset)];
    offset += padded(tensor.bytes).length;
    return Buffer.concat(parts);
  });
  const head = [Buffer.from('GGUF'), u32(version), u64(tensors.length), u64(pairs.length), ...pairs, ...infos];
  return Buffer.concat([padded(Buffer.concat(head)), ...tensors.map(({ bytes }) => padded(bytes))]);
}

const names: [RegExp, string][] = [
  [/^model\.embed_tokens/, 'token_embd'],
  [/^model\.norm/, 'output_norm'],
  [/^lm_head/, 'output'],
  [/^model\.layers\./, 'blk.'],
  [/input_layernorm/, 'attn_norm'],
  [/post_attention_layernorm/, 'ffn_norm'],
  [/self_attn\.o_proj/, 'attn_output'],
  [/self_attn\.([qkv])_proj/, 'attn_$1'],
  [/self_attn\.([qk])_norm/, 'attn_$1_norm'],
  [/mlp\.(gate|up|down)_proj/, 'ffn_$1'],
];

/** As llama.cpp's converter stores Q and K of a Llama: head by head, rows i and i + half become neighbours. */
function permuted(bytes: Buffer, rows: number, headRows: number): Buffer {
  const rowBytes = bytes.length / rows;
  const half = headRows / 2;
  return Buffer.concat(
    Array.from({ length: rows }, (_, row) => {
      const [head, inHead] = [Math.floor(row / headRows), row % headRows];
      const from = head * headRows + (inHead % 2) * half + Math.floor(inHead / 2);
      return bytes.subarray(from * rowBytes, (from + 1) * rowBytes);
    }),
  );
}

export const tokens = (extra: string[] = []) => [
  ...'<s> </s> <think> ! 0 1 2 3 12 23 a b c d e ab abc Ġ Ã © Ì ģ'.split(' '),
  ...extra,
];

/** The metadata that a converter writes; the tokenizer is a small one, filled up to `vocabSize`. */
export function metadataOf(family: string, config: Record<string, unknown>, pre: string): Record<string, Value> {
  const key = (name: string) => `${family}.${name}`;
  const number = (name: string) => config[name] as number;
  const own = tokens();
  const unused = Array.from({ length: number('vocab_size') - own.length }, (_, i) => `[PAD${own.length + i}]`);
  return {
    'general.architecture': family,
    'general.name': 'Tiny',
    [key('block_count')]: number('num_hidden_layers'),
    [key('context_length')]: number('max_position_embeddings'),
    [key('embedding_length')]: number('hidden_size'),
    [key('feed_forward_length')]: number('intermediate_size'),
    [key('attention.head_count')]: number('num_attention_heads'),
    [key('attention.head_count_kv')]: number('num_key_value_heads'),
    ...(config.head_dim === undefined ? {} : { [key('attention.key_length')]: number('head_dim') }),
    [key('attention.layer_norm_rms_epsilon')]: { f32: number('rms_norm_eps') },
    [key('rope.freq_base')]: {
      f32: (config.rope_theta as number) ?? (config.rope_parameters as { rope_theta: number }).rope_theta,
    },
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.pre': pre,
    'tokenizer.ggml.tokens': [...own, ...unused],
    'tokenizer.ggml.token_type': { i32s: [3, 3, 4, ...own.slice(3).map(() => 1), ...unused.map(() => 5)] },
    'tokenizer.ggml.merges': ['1 2', '2 3', 'a b'],
    'tokenizer.ggml.bos_token_id': 0,
    'tokenizer.ggml.eos_token_id': 1,
    'tokenizer.chat_template': '{{ messages[0].content }}',
  };
}

const typeOf = { F32: 'F32', F16: 'F16', BF16: 'BF16', F64: 'F32' } as const;

/** The parts of a GGUF file that holds a folder's weights as they are. */
export async function partsOf(folder: string, pre = 'smollm') {
  const { tensors, config, nativeConfig } = await readModelFolder(folder);
  const family = config.model_type as string;
  const written = tensors.map(({ name, dtype, shape, file, begin, end }): TensorToWrite => {
    const bytes = readFileSync(file).subarray(begin, end);
    const isPermuted = family === 'llama' && /[qk]_proj/.test(name);
    return {
      name: names.reduce((one, [pattern, other]) => one.replace(pattern, other), name),
      type: typeOf[dtype],
      shape,
      bytes: isPermuted ? permuted(bytes, shape[0]!, nativeConfig.headDim) : bytes,
    };
  });
  return { metadata: metadataOf(family, config, pre), tensors: written };
}

export async function writeGgufOf(folder: string, path: string, pre?: string): Promise<void> {
  const { metadata, tensors } = await partsOf(folder, pre);
  writeFileSync(path, ggufBytes(metadata, tensors));
}
