import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseModelConfig } from '../../lib/model/config.js';
import { readModelFolder } from '../../lib/model/folder.js';
import { expectedTensors, readModelTensors, readTensorTable } from '../../lib/model/safetensors.js';

type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;

const configJson = {
  architectures: ['LlamaForCausalLM'],
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  vocab_size: 10,
  eos_token_id: 2,
};
const config = parseModelConfig(configJson, 'config.json');

function headerOf(shapes: Iterable<[string, number[]]>): { header: Header; dataBytes: number } {
  const header: Header = {};
  let dataBytes = 0;
  for (const [name, shape] of shapes) {
    const bytes = 4 * shape.reduce((product, size) => product * size, 1);
    header[name] = { dtype: 'F32', shape, data_offsets: [dataBytes, dataBytes + bytes] };
    dataBytes += bytes;
  }
  return { header, dataBytes };
}

function encode(header: object | string, dataBytes: number): Buffer {
  const text = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, Buffer.alloc(dataBytes, 1)]);
}

let folder: string;
const inFolder = (name: string) => join(folder, name);

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'archer-model-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function writeModel(change: (shapes: Map<string, number[]>) => void = () => {}): Promise<void> {
  const shapes = expectedTensors(config);
  change(shapes);
  const { header, dataBytes } = headerOf(shapes);
  await writeFile(inFolder('model.safetensors'), encode({ __metadata__: { format: 'pt' }, ...header }, dataBytes));
}

async function failure(promise: Promise<unknown>): Promise<string> {
  const error: { code?: string; message?: string } = await promise.then(
    () => ({ message: 'no error' }),
    (reason) => reason,
  );
  expect(error.code).toBe('ARCHER_E_MODEL');
  return error.message ?? '';
}

describe('expectedTensors', () => {
  test('names and shapes of a plain Llama', () => {
    const shapes = expectedTensors(config);
    expect(shapes.size).toBe(1 + 2 * 9 + 2);
    expect(shapes.get('model.layers.1.self_attn.k_proj.weight')).toEqual([4, 8]);
    expect(shapes.get('model.layers.0.mlp.down_proj.weight')).toEqual([8, 12]);
    expect(shapes.get('lm_head.weight')).toEqual([10, 8]);
  });

  test('features add and remove tensors', () => {
    const all = { ...config, qkvBias: true, outputBias: true, mlpBias: true, qkNorm: true, tieWordEmbeddings: true };
    const shapes = expectedTensors(all);
    expect(shapes.size).toBe(1 + 2 * (9 + 3 + 1 + 3 + 2) + 1);
    expect(shapes.get('model.layers.0.self_attn.k_norm.weight')).toEqual([4]);
    expect(shapes.get('model.layers.0.mlp.gate_proj.bias')).toEqual([12]);
    expect(shapes.has('lm_head.weight')).toBe(false);
  });
});

describe('readTensorTable', () => {
  const file = () => inFolder('x.safetensors');

  test('byte offsets from the start of the file, in their order', async () => {
    const { header } = headerOf([
      ['a', [2, 3]],
      ['b', [4]],
    ]);
    const shuffled = { b: header.b, a: header.a };
    await writeFile(file(), encode(shuffled, 40));
    const start = 8 + JSON.stringify(shuffled).length;
    expect(await readTensorTable(file())).toEqual([
      { name: 'a', dtype: 'F32', shape: [2, 3], file: file(), begin: start, end: start + 24 },
      { name: 'b', dtype: 'F32', shape: [4], file: file(), begin: start + 24, end: start + 40 },
    ]);
  });

  const one = (change: object) => ({ a: { dtype: 'F32', shape: [2], data_offsets: [0, 8], ...change } });
  test.each<[string, Buffer, RegExp]>([
    ['an empty file', Buffer.alloc(0), /has 0 bytes, too few/],
    ['a header beyond the file', encode(one({}), 8).subarray(0, 30), /header would have \d+ bytes in a file of 30/],
    ['text instead of a length', Buffer.from('version https://git-lfs'), /truncated or no safetensors file/],
    ['a truncated file', encode(one({}), 7), /tensor a ends at byte \d+, the file at \d+: it is truncated/],
    ['a header that is no JSON', encode('{"a":', 8), /header is no JSON/],
    ['a header that is no object', encode('[]', 8), /header is no JSON object/],
    ['an integer dtype', encode(one({ dtype: 'I8' }), 8), /tensor a has dtype I8; supported: F64, F32, F16, BF16/],
    [
      'offsets of another length',
      encode(one({ data_offsets: [0, 4] }), 8),
      /F32 of shape \[2\], needs 8 bytes; its offsets span 4/,
    ],
    ['a negative shape', encode(one({ shape: [-2] }), 8), /no valid shape and data_offsets/],
    ['no offsets', encode(one({ data_offsets: undefined }), 8), /no valid shape and data_offsets/],
    [
      'overlapping tensors',
      encode({ ...one({}), b: { dtype: 'F32', shape: [2], data_offsets: [4, 12] } }, 12),
      /tensors a and b overlap/,
    ],
  ])('%s', async (_, bytes, message) => {
    await writeFile(file(), bytes);
    const text = await failure(readTensorTable(file()));
    expect(text).toMatch(message);
    expect(text).toContain(file());
  });

  test('a file that is not there', async () => {
    await expect(readTensorTable(file())).rejects.toMatchObject({ code: 'ARCHER_E_IO' });
  });
});

describe('readModelTensors', () => {
  test('one file; a tied head and rotary buffers are left out', async () => {
    await writeModel((shapes) => shapes.set('model.layers.0.self_attn.rotary_emb.inv_freq', [2]));
    const names = (await readModelTensors(folder, config)).map((entry) => entry.name);
    expect(names).toEqual([...expectedTensors(config).keys()]);
    const tied = await readModelTensors(folder, { ...config, tieWordEmbeddings: true });
    expect(tied.map((entry) => entry.name)).not.toContain('lm_head.weight');
  });

  async function writeShards(change: (index: { weight_map: Record<string, string> }) => void = () => {}) {
    const shapes = [...expectedTensors(config)];
    const shards = { 'model-1.safetensors': shapes.slice(0, 8), 'model-2.safetensors': shapes.slice(8) };
    const index = { weight_map: {} as Record<string, string> };
    for (const [name, part] of Object.entries(shards)) {
      const { header, dataBytes } = headerOf(part);
      await writeFile(inFolder(name), encode(header, dataBytes));
      for (const [tensor] of part) index.weight_map[tensor] = name;
    }
    change(index);
    await writeFile(inFolder('model.safetensors.index.json'), JSON.stringify(index));
  }

  test('shards through their index', async () => {
    await writeShards();
    const tensors = await readModelTensors(folder, config);
    expect(new Set(tensors.map((entry) => entry.file))).toEqual(
      new Set([inFolder('model-1.safetensors'), inFolder('model-2.safetensors')]),
    );
    expect(tensors).toHaveLength(expectedTensors(config).size);
  });

  test.each<[string, (map: Record<string, string>) => void, RegExp]>([
    [
      'a shard that is not there',
      (map) => {
        map['model.norm.weight'] = 'model-3.safetensors';
      },
      /shard model-3.safetensors is not in/,
    ],
    [
      'a tensor in another shard',
      (map) => {
        map['model.norm.weight'] = 'model-1.safetensors';
      },
      /model.norm.weight is not in model-1/,
    ],
    [
      'a path out of the folder',
      (map) => {
        map['model.norm.weight'] = '../x.safetensors';
      },
      /"..\/x.safetensors" is no file name/,
    ],
    [
      'a tensor without a shard',
      (map) => {
        delete map['model.norm.weight'];
      },
      /tensor model.norm.weight of shape \[8\] is missing/,
    ],
  ])('index: %s', async (_, change, message) => {
    await writeShards((index) => change(index.weight_map));
    expect(await failure(readModelTensors(folder, config))).toMatch(message);
  });

  test.each<[string, (shapes: Map<string, number[]>) => void, RegExp]>([
    ['missing', (shapes) => shapes.delete('model.norm.weight'), /tensor model.norm.weight of shape \[8\] is missing/],
    [
      'missing head',
      (shapes) => shapes.delete('lm_head.weight'),
      /lm_head.weight .* is missing \(is tie_word_embeddings/,
    ],
    [
      'of another shape',
      (shapes) => shapes.set('model.norm.weight', [9]),
      /tensor model.norm.weight has shape \[9\], config.json asks for \[8\]/,
    ],
    [
      'without a place',
      (shapes) => shapes.set('model.layers.0.self_attn.q_proj.bias', [8]),
      /q_proj.bias has no place in the model that config.json describes/,
    ],
  ])('a tensor %s', async (_, change, message) => {
    await writeModel(change);
    expect(await failure(readModelTensors(folder, config))).toMatch(message);
  });

  test('no weights at all, or of the old format', async () => {
    expect(await failure(readModelTensors(folder, config))).toMatch(/neither model.safetensors nor/);
    await writeFile(inFolder('pytorch_model.bin'), '');
    expect(await failure(readModelTensors(folder, config))).toMatch(/pytorch_model.bin is not read/);
  });
});

describe('readModelFolder', () => {
  async function writeFolder(files: Record<string, unknown>): Promise<void> {
    await writeModel();
    const all = { 'config.json': configJson, 'tokenizer.json': {}, 'tokenizer_config.json': {}, ...files };
    for (const [name, json] of Object.entries(all)) {
      if (json !== undefined) await writeFile(inFolder(name), typeof json === 'string' ? json : JSON.stringify(json));
    }
  }

  test('everything that there is', async () => {
    await writeFolder({ 'generation_config.json': { eos_token_id: [3, 4], pad_token_id: 0 }, 'README.md': 'x' });
    const read = await readModelFolder(folder);
    expect(read).toMatchObject({
      path: folder,
      config: configJson,
      nativeConfig: config,
      generationConfig: { pad_token_id: 0 },
      eosTokenIds: [3, 4],
      padTokenId: 0,
      tokenizerFiles: ['tokenizer.json', 'tokenizer_config.json'],
    });
    expect(read.tensors).toHaveLength(expectedTensors(config).size);
  });

  test('ids from config.json where there is no generation_config.json', async () => {
    await writeFolder({});
    const read = await readModelFolder(folder);
    expect(read.eosTokenIds).toEqual([2]);
    expect(read.padTokenId).toBeUndefined();
    expect(read.generationConfig).toEqual({});
  });

  test('the hash sees config and weights, not the tokenizer', async () => {
    await writeFolder({});
    const hash = await (await readModelFolder(folder)).hash();
    expect(hash).toMatch(/^[0-9a-f]{64}$/);
    await writeFile(inFolder('tokenizer.json'), '{"a": 1}');
    expect(await (await readModelFolder(folder)).hash()).toBe(hash);
    await writeFolder({ 'config.json': { ...configJson, rope_theta: 20000 } });
    expect(await (await readModelFolder(folder)).hash()).not.toBe(hash);
  });

  test.each<[string, Record<string, unknown>, RegExp]>([
    ['config.json', { 'config.json': '{' }, /config.json cannot be read as JSON/],
    ['generation_config.json', { 'generation_config.json': '[]' }, /generation_config.json holds no JSON object/],
    ['tokenizer.json', { 'tokenizer.json': undefined }, /tokenizer.json is missing; put it beside config.json/],
  ])('a fault in %s', async (_, files, message) => {
    await writeFolder(files);
    expect(await failure(readModelFolder(folder))).toMatch(message);
  });

  test('no folder, and a folder without config.json', async () => {
    expect(await failure(readModelFolder(inFolder('nowhere')))).toMatch(/nowhere cannot be read .*give the path/);
    await mkdir(inFolder('empty'));
    expect(await failure(readModelFolder(inFolder('empty')))).toMatch(/config.json is missing/);
  });
});
