// A model folder with random weights, for benchmarks that need a shape and no knowledge: nothing is downloaded.
import { closeSync, existsSync, mkdirSync, openSync, renameSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ArcherError, messageOf } from '../errors.js';

/** The keys of a Llama's config.json that make its shape. */
export interface LlamaShape {
  hidden_size: number;
  intermediate_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  num_key_value_heads: number;
  head_dim: number;
  vocab_size: number;
  max_position_embeddings: number;
}

export const smollm2: LlamaShape = {
  hidden_size: 576,
  intermediate_size: 1536,
  num_hidden_layers: 30,
  num_attention_heads: 9,
  num_key_value_heads: 3,
  head_dim: 64,
  vocab_size: 49_152,
  max_position_embeddings: 8192,
};

const standardDeviation = 0.03;
const one = 0x3f80; // in bfloat16

/**
 * Makes the folder unless it is there: config.json, model.safetensors in bfloat16, tokenizer.json of one word (a model
 * folder has one; the benchmarks go by ids). Its head is tied to its embedding.
 *
 * @returns folder
 * @throws ArcherError ARCHER_E_IO where it cannot be written
 */
export function makeRandomModel(folder: string, shape: LlamaShape): string {
  if (existsSync(join(folder, 'config.json'))) return folder;
  const draft = `${folder}.${process.pid}`;
  try {
    mkdirSync(draft, { recursive: true });
    writeWeights(join(draft, 'model.safetensors'), shape);
    writeFileSync(join(draft, 'tokenizer.json'), JSON.stringify(tokenizer));
    writeFileSync(join(draft, 'config.json'), `${JSON.stringify(configOf(shape), null, 2)}\n`);
    // In one step: an interruption leaves no half of a model.
    if (existsSync(folder)) rmSync(folder, { recursive: true });
    renameSync(draft, folder);
  } catch (error) {
    if (existsSync(draft)) rmSync(draft, { recursive: true });
    throw new ArcherError(
      'ARCHER_E_IO',
      `A model with random weights cannot be made in ${dirname(folder)}: ${messageOf(error)}. Make room there, or name a model with --model.`,
      { cause: error },
    );
  }
  return folder;
}

const tokenizer = {
  version: '1.0',
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: { type: 'Whitespace' },
  post_processor: null,
  decoder: null,
  model: { type: 'WordLevel', vocab: { word: 0 }, unk_token: 'word' },
};

function configOf(shape: LlamaShape): object {
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    ...shape,
    hidden_act: 'silu',
    rms_norm_eps: 1e-5,
    rope_theta: 100_000,
    attention_bias: false,
    mlp_bias: false,
    tie_word_embeddings: true,
    torch_dtype: 'bfloat16',
  };
}

function tensorsOf(shape: LlamaShape): [name: string, dimensions: number[]][] {
  const { hidden_size: hidden, intermediate_size: inner, head_dim: dim } = shape;
  const queries = shape.num_attention_heads * dim;
  const keys = shape.num_key_value_heads * dim;
  const layer: [string, number[]][] = [
    ['input_layernorm', [hidden]],
    ['self_attn.q_proj', [queries, hidden]],
    ['self_attn.k_proj', [keys, hidden]],
    ['self_attn.v_proj', [keys, hidden]],
    ['self_attn.o_proj', [hidden, queries]],
    ['post_attention_layernorm', [hidden]],
    ['mlp.gate_proj', [inner, hidden]],
    ['mlp.up_proj', [inner, hidden]],
    ['mlp.down_proj', [hidden, inner]],
  ];
  return [
    ['model.embed_tokens.weight', [shape.vocab_size, hidden]],
    ...Array.from({ length: shape.num_hidden_layers }, (_, i) =>
      layer.map(([name, dimensions]): [string, number[]] => [`model.layers.${i}.${name}.weight`, dimensions]),
    ).flat(),
    ['model.norm.weight', [hidden]],
  ];
}

function writeWeights(path: string, shape: LlamaShape): void {
  const tensors = tensorsOf(shape);
  const header: Record<string, object> = { __metadata__: { format: 'pt' } };
  let at = 0;
  for (const [name, dimensions] of tensors) {
    const end = at + 2 * sizeOf(dimensions);
    header[name] = { dtype: 'BF16', shape: dimensions, data_offsets: [at, end] };
    at = end;
  }
  const json = JSON.stringify(header);
  const text = Buffer.from(json.padEnd(8 * Math.ceil(json.length / 8)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));

  const file = openSync(path, 'w');
  const write = (bytes: Uint8Array) => {
    for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done);
  };
  try {
    write(length);
    write(text);
    const table = randomTable();
    let next = 0;
    for (const [, dimensions] of tensors) {
      let left = sizeOf(dimensions);
      if (dimensions.length === 1) {
        write(bytesOf(new Uint16Array(left).fill(one)));
        continue;
      }
      while (left > 0) {
        const part = table.subarray(next, Math.min(next + left, table.length));
        write(bytesOf(part));
        left -= part.length;
        next = (next + part.length) % table.length;
      }
    }
  } finally {
    closeSync(file);
  }
}

const sizeOf = (dimensions: number[]) => dimensions.reduce((product, dimension) => product * dimension, 1);
const bytesOf = (values: Uint16Array) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** Normal numbers in bfloat16, none of them zero; matrices are cut from it end to end. Its length is a prime. */
function randomTable(): Uint16Array {
  const table = new Uint16Array(1_000_003);
  const float = new Float32Array(1);
  const bits = new Uint32Array(float.buffer);
  let state = 1;
  const uniform = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  for (let i = 0; i < table.length; i += 1) {
    const normal = Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
    float[0] = standardDeviation * normal + (normal < 0 ? -1e-4 : 1e-4);
    table[i] = bits[0]! >>> 16;
  }
  return table;
}
