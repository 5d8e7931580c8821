// The tensors of a GGUF file as a model.safetensors, a few rows at a time: neither file is ever in memory as a whole.
import { open } from 'node:fs/promises';
import { ArcherError } from '../errors.js';
import { expectedTensors } from '../model/safetensors.js';
import type { NativeModelConfig } from '../native/types.js';
import { blockTypes, dequantize } from './blocks.js';
import type { GgufFile, GgufTensor } from './reader.js';
import { readRange } from './tensor-bytes.js';

const pieceWeights = 1 << 20;

const layerParts: Record<string, string> = {
  input_layernorm: 'attn_norm',
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  'self_attn.q_norm': 'attn_q_norm',
  'self_attn.k_norm': 'attn_k_norm',
  post_attention_layernorm: 'ffn_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
};

function ggufNameOf(name: string): string {
  const layer = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name);
  if (layer) return `blk.${layer[1]}.${layerParts[layer[2]!]}.${layer[3]}`;
  if (name === 'model.embed_tokens.weight') return 'token_embd.weight';
  return name === 'lm_head.weight' ? 'output.weight' : 'output_norm.weight';
}

interface Source extends GgufTensor {
  /** Hugging Face's name. */
  target: string;
  /** Rows of a head, where llama.cpp has reordered them. */
  headRows?: number;
}

export interface ConvertOptions {
  dtype: 'float32' | 'bfloat16';
  signal?: AbortSignal;
  /** Weights written so far. */
  onProgress?: (done: number, total: number) => void;
}

/**
 * Writes every tensor that the model has, sorted by name.
 *
 * @returns the number of weights
 * @throws ArcherError ARCHER_E_MODEL: a tensor is missing, too many or of another shape; ARCHER_E_ABORTED
 */
export async function convertWeights(
  file: GgufFile,
  config: NativeModelConfig,
  target: string,
  { dtype, signal, onProgress }: ConvertOptions,
): Promise<number> {
  const sources = sourcesOf(file, config);
  const total = sources.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const input = await open(file.path);
  try {
    const output = await open(target, 'wx');
    try {
      await output.writeFile(headerOf(sources, dtype));
      let done = 0;
      for (const source of sources) {
        for await (const weights of pieces(source)) {
          if (signal?.aborted) throw new ArcherError('ARCHER_E_ABORTED', 'Interrupted: nothing was written.');
          await output.writeFile(dtype === 'bfloat16' ? toBfloat16(weights) : bytesOf(weights));
          done += weights.length;
          onProgress?.(done, total);
        }
      }
      return done;
    } finally {
      await output.close();
    }
  } finally {
    await input.close();
  }

  async function* pieces({ type, shape, begin, headRows }: Source): AsyncGenerator<Float32Array> {
    const rows = shape[0]!;
    const columns = sizeOf(shape) / rows;
    const { size, bytes: blockBytes } = blockTypes[type];
    const rowBytes = (columns / size) * blockBytes;
    const step = headRows ?? Math.max(1, Math.floor(pieceWeights / columns));
    for (let row = 0; row < rows; row += step) {
      const count = Math.min(step, rows - row);
      const bytes = new Uint8Array(count * rowBytes);
      await readRange(input, bytes, begin + row * rowBytes);
      const weights = new Float32Array(count * columns);
      dequantize(type, bytes, weights);
      yield headRows ? unpermuteHead(weights, headRows, columns) : weights;
    }
  }
}

function sourcesOf(file: GgufFile, config: NativeModelConfig): Source[] {
  const fail = (what: string): never => {
    throw new ArcherError('ARCHER_E_MODEL', `${file.path}: ${what}.`);
  };
  // Frequency factors belong to config.json, the rest must be the model, no more and no less.
  const unused = new Set(file.tensors.keys());
  unused.delete('rope_freqs.weight');
  const isReordered = file.metadata.get('general.architecture') === 'llama';
  const sources = [...expectedTensors(config)].map(([target, shape]): Source => {
    const name = ggufNameOf(target);
    const tensor = file.tensors.get(name) ?? fail(`the tensor ${name} is missing`);
    unused.delete(name);
    if (tensor.shape.join() !== shape.join()) {
      fail(`tensor ${name} has shape [${tensor.shape.join(', ')}], its metadata say [${shape.join(', ')}]`);
    }
    const headRows = isReordered && /\.self_attn\.[qk]_proj\./.test(target) ? config.headDim : undefined;
    return { ...tensor, target, headRows };
  });
  for (const name of unused) fail(`tensor ${name} belongs to no model that is supported`);
  return sources.sort((a, b) => (a.target < b.target ? -1 : 1));
}

function headerOf(sources: readonly Source[], dtype: ConvertOptions['dtype']): Buffer {
  const weightBytes = dtype === 'bfloat16' ? 2 : 4;
  const header: Record<string, object> = { __metadata__: { format: 'pt' } };
  let at = 0;
  for (const { target, shape } of sources) {
    const end = at + weightBytes * sizeOf(shape);
    header[target] = { dtype: dtype === 'bfloat16' ? 'BF16' : 'F32', shape, data_offsets: [at, end] };
    at = end;
  }
  const json = JSON.stringify(header);
  const text = json.padEnd(8 * Math.ceil(json.length / 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, Buffer.from(text)]);
}

/** llama.cpp rotates neighbouring rows (2i, 2i + 1) of a head, Hugging Face rows i and i + headRows / 2. */
function unpermuteHead(weights: Float32Array, headRows: number, columns: number): Float32Array {
  const half = headRows / 2;
  const ordered = new Float32Array(weights.length);
  for (let row = 0; row < headRows; row += 1) {
    const from = (row < half ? 2 * row : 2 * (row - half) + 1) * columns;
    ordered.set(weights.subarray(from, from + columns), row * columns);
  }
  return ordered;
}

/** The upper 16 bits, rounded to nearest, ties to even. */
function toBfloat16(weights: Float32Array): Uint8Array {
  const bits = new Uint32Array(weights.buffer, weights.byteOffset, weights.length);
  const rounded = new Uint16Array(weights.length);
  for (let i = 0; i < bits.length; i += 1) {
    const one = bits[i]!;
    const isNan = (one & 0x7fffffff) > 0x7f800000;
    rounded[i] = isNan ? (one >>> 16) | 64 : (one + 0x7fff + ((one >>> 16) & 1)) >>> 16;
  }
  return bytesOf(rounded);
}

const sizeOf = (shape: readonly number[]) => shape.reduce((product, dimension) => product * dimension, 1);
const bytesOf = (values: Float32Array | Uint16Array) =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
