// Whether a GGUF file holds the weights of a model folder at a given precision: its shape, its type, and the first rows of
// the embedding, which both formats store in the same order.
import { closeSync, openSync, readSync } from 'node:fs';
import { ArcherError } from '../errors.js';
import type { ModelFolder } from '../model/folder.js';
import type { Dtype } from './environment.js';

/** What node-llama-cpp's readGgufFileInfo tells, as far as it is used here. */
export interface GgufInfo {
  metadata: Record<string, Record<string, unknown>>;
  tensorInfo?: readonly { name: string; ggmlType: number; fileOffset: number | bigint }[];
}

const fileTypes: Record<Dtype, number> = { float32: 0, bf16: 32 }; // general.file_type
const tensorTypes: Record<number, Dtype> = { 0: 'float32', 30: 'bf16' }; // ggmlType
const compared = 4096;

/** @throws ArcherError ARCHER_E_CONFIG where the file holds another shape, another precision or other numbers */
export function checkGguf(file: string, info: GgufInfo, { nativeConfig, tensors }: ModelFolder, dtype: Dtype): void {
  const refusal = (what: string) => {
    const remedy = `it must hold the same weights at the same precision (${dtype})`;
    return new ArcherError('ARCHER_E_CONFIG', `--gguf ${file} has ${what}; ${remedy}.`);
  };
  const { general = {}, ...others } = info.metadata;
  const shape = others[String(general.architecture)] ?? {};
  const pairs: [string, unknown, number][] = [
    ['file_type', general.file_type, fileTypes[dtype]],
    ['block_count', shape.block_count, nativeConfig.numLayers],
    ['embedding_length', shape.embedding_length, nativeConfig.hiddenSize],
    ['feed_forward_length', shape.feed_forward_length, nativeConfig.intermediateSize],
  ];
  for (const [name, found, wanted] of pairs) {
    if (Number(found) !== wanted) throw refusal(`${name} ${found} where the model has ${wanted}`);
  }
  const theirs = info.tensorInfo?.find(({ name }) => name === 'token_embd.weight');
  const own = tensors.find(({ name }) => name === 'model.embed_tokens.weight');
  const stored = theirs && tensorTypes[theirs.ggmlType];
  const kept = own?.dtype === 'BF16' ? 'bf16' : own?.dtype === 'F32' ? 'float32' : undefined;
  if (!theirs || !own || !stored || !kept) throw refusal('an embedding that cannot be compared with the model’s');
  const count = Math.min(
    compared,
    own.shape.reduce((product, one) => product * one, 1),
  );
  const a = floatsAt(file, Number(theirs.fileOffset), stored, count);
  const b = floatsAt(own.file, own.begin, kept, count);
  // 2^-7: rounding to bfloat16 moves a number by less, whichever way it is done.
  if (a.some((value, i) => Math.abs(value - b[i]!) > Math.abs(b[i]!) / 128))
    throw refusal('another embedding than the model');
}

function floatsAt(path: string, offset: number, dtype: Dtype, count: number): Float32Array {
  const bytes = new Uint8Array(count * (dtype === 'bf16' ? 2 : 4));
  const file = openSync(path, 'r');
  try {
    readSync(file, bytes, 0, bytes.length, offset);
  } finally {
    closeSync(file);
  }
  if (dtype === 'float32') return new Float32Array(bytes.buffer);
  const bits = Uint32Array.from(new Uint16Array(bytes.buffer), (half) => half << 16);
  return new Float32Array(bits.buffer);
}
