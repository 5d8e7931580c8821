// Headers of safetensors files: 8 bytes of length, a JSON object, raw tensors. Read and validated here; C++ gets the
// table and maps the tensors' bytes. Every fault names file, tensor, what was expected and what was found.
import { open, readFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { ArcherError, messageOf } from '../errors.js';
import type { NativeModelConfig, TensorEntry } from '../native/types.js';

const dtypeBytes: Record<TensorEntry['dtype'], number> = { F64: 8, F32: 4, F16: 2, BF16: 2 };
const maxHeaderBytes = 100_000_000; // the format's own limit

/** Every tensor of the model with its shape, by Hugging Face's names; a tied head is not listed. */
export function expectedTensors(config: NativeModelConfig): Map<string, number[]> {
  const { hiddenSize, intermediateSize, headDim, qkvBias, outputBias, mlpBias } = config;
  const querySize = config.numHeads * headDim;
  const keySize = config.numKvHeads * headDim;
  const shapes = new Map<string, number[]>([['model.embed_tokens.weight', [config.vocabSize, hiddenSize]]]);
  for (let layer = 0; layer < config.numLayers; layer++) {
    const prefix = `model.layers.${layer}`;
    const linear = (name: string, rows: number, columns: number, hasBias: boolean) => {
      shapes.set(`${prefix}.${name}.weight`, [rows, columns]);
      if (hasBias) shapes.set(`${prefix}.${name}.bias`, [rows]);
    };
    shapes.set(`${prefix}.input_layernorm.weight`, [hiddenSize]);
    linear('self_attn.q_proj', querySize, hiddenSize, qkvBias);
    linear('self_attn.k_proj', keySize, hiddenSize, qkvBias);
    linear('self_attn.v_proj', keySize, hiddenSize, qkvBias);
    if (config.qkNorm) {
      shapes.set(`${prefix}.self_attn.q_norm.weight`, [headDim]);
      shapes.set(`${prefix}.self_attn.k_norm.weight`, [headDim]);
    }
    linear('self_attn.o_proj', hiddenSize, querySize, outputBias);
    shapes.set(`${prefix}.post_attention_layernorm.weight`, [hiddenSize]);
    linear('mlp.gate_proj', intermediateSize, hiddenSize, mlpBias);
    linear('mlp.up_proj', intermediateSize, hiddenSize, mlpBias);
    linear('mlp.down_proj', hiddenSize, intermediateSize, mlpBias);
  }
  shapes.set('model.norm.weight', [hiddenSize]);
  if (!config.tieWordEmbeddings) shapes.set('lm_head.weight', [config.vocabSize, hiddenSize]);
  return shapes;
}

/**
 * The tensors of one safetensors file, in the order of their bytes.
 *
 * @throws ArcherError ARCHER_E_MODEL: not a safetensors file, truncated, offsets outside the file or overlapping, a
 *   dtype other than F64, F32, F16, BF16; ARCHER_E_IO: the file cannot be read
 */
export async function readTensorTable(file: string): Promise<TensorEntry[]> {
  const { header, dataStart, fileBytes } = await readHeader(file);
  const entries = Object.entries(header)
    .filter(([name]) => name !== '__metadata__' && !isRotaryBuffer(name))
    .map(([name, value]) => parseEntry(file, name, value, dataStart))
    .sort((a, b) => a.begin - b.begin || a.end - b.end);
  let previous: TensorEntry | undefined;
  for (const entry of entries) {
    if (entry.end > fileBytes) {
      fail(
        file,
        `tensor ${entry.name} ends at byte ${entry.end}, the file at ${fileBytes}: it is truncated; fetch it again`,
      );
    }
    if (previous && entry.begin < previous.end) fail(file, `tensors ${previous.name} and ${entry.name} overlap`);
    previous = entry;
  }
  return entries;
}

/**
 * The tensors of a model folder (model.safetensors, or the shards that model.safetensors.index.json lists), complete
 * and of the shapes that the config asks for. A head beside tied embeddings and rotary buffers are left out.
 *
 * @throws ArcherError ARCHER_E_MODEL as {@link readTensorTable}; also a tensor that is missing, has another shape, or
 *   has no place in the model
 */
export async function readModelTensors(folder: string, config: NativeModelConfig): Promise<TensorEntry[]> {
  const single = join(folder, 'model.safetensors');
  const index = join(folder, 'model.safetensors.index.json');
  const found = existsSync(single) ? await readTensorTable(single) : await readShards(folder, index);
  const own = config.tieWordEmbeddings ? found.filter(({ name }) => name !== 'lm_head.weight') : found;
  return matchTensors(own, expectedTensors(config), existsSync(single) ? single : index, 'config.json');
}

/**
 * Exactly the expected tensors, in their order.
 *
 * @param file where one that is missing would be
 * @param source what the expectation comes from, for the message
 * @throws ArcherError ARCHER_E_MODEL: a tensor that is missing, has another shape, or is not expected
 */
export function matchTensors(
  found: readonly TensorEntry[],
  expected: ReadonlyMap<string, number[]>,
  file: string,
  source: string,
): TensorEntry[] {
  const byName = new Map(found.map((entry) => [entry.name, entry]));
  for (const [name, entry] of byName) {
    if (!expected.has(name)) fail(entry.file, `tensor ${name} has no place in the model that ${source} describes`);
  }
  return Array.from(expected, ([name, shape]) => {
    const entry = byName.get(name);
    if (!entry) {
      const remedy = name === 'lm_head.weight' ? ' (is tie_word_embeddings missing in config.json?)' : '';
      return fail(file, `tensor ${name} of shape ${brackets(shape)} is missing${remedy}`);
    }
    if (entry.shape.length !== shape.length || entry.shape.some((size, i) => size !== shape[i])) {
      fail(entry.file, `tensor ${name} has shape ${brackets(entry.shape)}, ${source} asks for ${brackets(shape)}`);
    }
    return entry;
  });
}

async function readShards(folder: string, index: string): Promise<TensorEntry[]> {
  if (!existsSync(index)) {
    const remedy = existsSync(join(folder, 'pytorch_model.bin'))
      ? 'pytorch_model.bin is not read: save the model again with safe_serialization'
      : 'a Hugging Face model folder is needed';
    fail(folder, `neither model.safetensors nor model.safetensors.index.json is there; ${remedy}`);
  }
  let weightMap: unknown;
  try {
    weightMap = (JSON.parse(await readFile(index, 'utf8')) as { weight_map?: unknown }).weight_map;
  } catch (error) {
    fail(index, `it is no JSON: ${messageOf(error)}`);
  }
  if (typeof weightMap !== 'object' || weightMap === null) fail(index, 'it has no weight_map');
  const shardOf = new Map(Object.entries(weightMap as Record<string, unknown>));
  const tables = new Map<string, Map<string, TensorEntry>>();
  for (const shard of new Set(shardOf.values())) {
    if (typeof shard !== 'string' || basename(shard) !== shard) fail(index, `${JSON.stringify(shard)} is no file name`);
    const file = join(folder, shard);
    if (!existsSync(file)) fail(index, `the shard ${shard} is not in the folder; fetch it`);
    tables.set(shard, new Map((await readTensorTable(file)).map((entry) => [entry.name, entry])));
  }
  return [...shardOf]
    .filter(([name]) => !isRotaryBuffer(name))
    .map(
      ([name, shard]) =>
        tables.get(String(shard))?.get(name) ?? fail(index, `tensor ${name} is not in ${String(shard)}`),
    );
}

async function readHeader(file: string): Promise<{ header: object; dataStart: number; fileBytes: number }> {
  const handle = await open(file).catch((error: unknown) => {
    throw new ArcherError('ARCHER_E_IO', `${file} cannot be read: ${messageOf(error)}`, { cause: error });
  });
  try {
    const { size: fileBytes } = await handle.stat();
    const length = Buffer.alloc(8);
    if (fileBytes < 8) fail(file, `it has ${fileBytes} bytes, too few for a safetensors file; fetch it again`);
    await handle.read(length, 0, 8, 0);
    const headerBytes = length.readBigUInt64LE();
    if (headerBytes > maxHeaderBytes || 8 + Number(headerBytes) > fileBytes) {
      fail(
        file,
        `its header would have ${headerBytes} bytes in a file of ${fileBytes}: truncated or no safetensors file`,
      );
    }
    const text = Buffer.alloc(Number(headerBytes));
    await handle.read(text, 0, text.length, 8);
    const header = parseHeader(file, text.toString('utf8'));
    return { header, dataStart: 8 + text.length, fileBytes };
  } finally {
    await handle.close();
  }
}

function parseHeader(file: string, text: string): object {
  let header: unknown;
  try {
    header = JSON.parse(text);
  } catch (error) {
    fail(file, `its header is no JSON: ${messageOf(error)}`);
  }
  if (typeof header !== 'object' || header === null || Array.isArray(header))
    fail(file, 'its header is no JSON object');
  return header;
}

function parseEntry(file: string, name: string, value: unknown, dataStart: number): TensorEntry {
  const { dtype, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>;
  if (!isCounts(shape) || !isCounts(offsets) || offsets.length !== 2) {
    fail(file, `tensor ${name} has no valid shape and data_offsets in the header`);
  }
  if (!isDtype(dtype))
    fail(file, `tensor ${name} has dtype ${String(dtype)}; supported: ${Object.keys(dtypeBytes).join(', ')}`);
  const [begin = 0, end = 0] = offsets;
  const bytes = shape.reduce((product, size) => product * size, dtypeBytes[dtype]);
  if (end - begin !== bytes) {
    fail(
      file,
      `tensor ${name}, ${dtype} of shape ${brackets(shape)}, needs ${bytes} bytes; its offsets span ${end - begin}`,
    );
  }
  return { name, dtype, shape, file, begin: dataStart + begin, end: dataStart + end };
}

function isDtype(value: unknown): value is TensorEntry['dtype'] {
  return typeof value === 'string' && Object.hasOwn(dtypeBytes, value);
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}

// Old checkpoints carry the rope frequencies; they follow from the config.
function isRotaryBuffer(name: string): boolean {
  return name.endsWith('rotary_emb.inv_freq');
}

function brackets(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`;
}

function fail(file: string, what: string): never {
  throw new ArcherError('ARCHER_E_MODEL', `${file}: ${what}`);
}
