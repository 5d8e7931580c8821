// GGUF files into Hugging Face folders: the golden models go there and back bit for bit; damaged files are refused.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { renderPrompt } from '../../lib/data/chat-template.js';
import { loadTokenizer } from '../../lib/data/tokenizer.js';
import { llama3Factors } from '../../lib/gguf/config.js';
import { importGguf } from '../../lib/gguf/import.js';
import { readGguf } from '../../lib/gguf/reader.js';
import { readModelFolder } from '../../lib/model/folder.js';
import { ggufBytes, partsOf, type TensorToWrite, tokens, u64, type Value, writeGgufOf } from './gguf-writer.js';
import { pythonWith, runPython } from './python.js';

const goldens = resolve(import.meta.dirname ?? '.', '../golden/models');
let dir: string;
let number = 0;

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'archer-gguf-'));
});
afterAll(() => rmSync(dir, { recursive: true }));

type Parts = { metadata: Record<string, Value>; tensors: TensorToWrite[] };
const fresh = (name: string) => join(dir, `${number++}-${name}`);

function written(bytes: Buffer): string {
  const path = fresh('model.gguf');
  writeFileSync(path, bytes);
  return path;
}

async function imported(parts: Parts, dtype: 'float32' | 'bfloat16' = 'float32'): Promise<string> {
  const out = fresh('folder');
  await importGguf({ file: written(ggufBytes(parts.metadata, parts.tensors)), out, dtype });
  return out;
}

async function refusal(work: () => unknown): Promise<{ code?: string; message?: string }> {
  try {
    await work();
    return {};
  } catch (error) {
    const { code, message } = error as { code: string; message: string };
    return { code, message };
  }
}

describe('there and back', () => {
  const cases = [
    ['llama-biases-tied', 'float32'],
    ['qwen2-tied', 'float32'],
    ['qwen2-hub-bfloat16', 'bfloat16'],
    ['qwen3', 'float32'],
    ['qwen3-sharded', 'float32'],
  ] as const;

  test.each(cases)('%s', async (name, dtype) => {
    const [file, out] = [fresh('model.gguf'), fresh('folder')];
    await writeGgufOf(join(goldens, name), file);
    const before = await readModelFolder(join(goldens, name));
    const total = before.tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b), 0);
    expect(await importGguf({ file, out, dtype })).toBe(total);
    const after = await readModelFolder(out);
    expect(after.nativeConfig).toEqual(before.nativeConfig);
    const bytesOf = ({ tensors }: typeof before) =>
      new Map(
        tensors.map(({ name: one, file: path, begin, end }) => [
          one,
          readFileSync(path).subarray(begin, end).toString('hex'),
        ]),
      );
    expect(bytesOf(after)).toEqual(bytesOf(before));
    expect(after.eosTokenIds).toEqual([1]);
    expect(readdirSync(out).sort()).toEqual([
      'README.md',
      'config.json',
      'generation_config.json',
      'model.safetensors',
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
  });

  test('bfloat16 is rounded to nearest, ties to even, and NaN stays NaN', async () => {
    const { metadata, tensors } = await partsOf(join(goldens, 'qwen2-tied'));
    const norm = tensors.find(({ name }) => name === 'output_norm.weight')!;
    const bits = new Uint32Array(Uint8Array.from(norm.bytes).buffer);
    bits.set([0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff, 0xffffffff, 0x7f800000]);
    norm.bytes = Buffer.from(bits.buffer);
    const { tensors: made } = await readModelFolder(await imported({ metadata, tensors }, 'bfloat16'));
    const { file, begin } = made.find(({ name }) => name === 'model.norm.weight')!;
    const found = new Uint16Array(Uint8Array.from(readFileSync(file).subarray(begin, begin + 12)).buffer);
    expect([...found].map((one) => one.toString(16))).toEqual(['3f80', '3f82', '3f81', '3f80', 'ffff', '7f80']);
  });

  test('Llama 3’s frequency factors become its rope_scaling; others are refused', async () => {
    const parts = await partsOf(join(goldens, 'llama-biases-tied'));
    const factors = (factor: number, original: number) => {
      const values = llama3Factors(12, 10_000, { factor, low: 1, high: 4, original });
      return {
        name: 'rope_freqs.weight',
        type: 'F32' as const,
        shape: [6],
        bytes: Buffer.from(Float32Array.from(values).buffer),
      };
    };
    const folder = await imported({ ...parts, tensors: [...parts.tensors, factors(32, 8192)] });
    expect((await readModelFolder(folder)).nativeConfig.ropeScaling).toEqual({
      factor: 32,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositionEmbeddings: 8192,
    });
    const other = await refusal(() => imported({ ...parts, tensors: [...parts.tensors, factors(32, 1024)] }));
    expect(other.message).toMatch(/rope_freqs.weight is "of an unknown rule"; supported: the factors of Llama 3/);
  });
});

describe('the tokenizer', () => {
  const ids = (...wanted: string[]) => wanted.map((token) => tokens().indexOf(token));

  async function load(pre: string, extra: Record<string, Value> = {}) {
    const { metadata, tensors } = await partsOf(join(goldens, 'qwen2-tied'), pre);
    return loadTokenizer(await imported({ metadata: { ...metadata, ...extra }, tensors }));
  }

  // 12 and 23 are tokens, so is abc, to which no merge leads; é is written as e and an accent.
  test.each([
    ['smollm', ids('1', '2', '3', 'Ġ', 'ab', 'c', 'e', 'Ì', 'ģ')],
    ['qwen2', ids('1', '2', '3', 'Ġ', 'ab', 'c', 'Ã', '©')],
    ['llama-bpe', ids('12', '3', 'Ġ', 'ab', 'c', 'e', 'Ì', 'ģ')],
    ['deepseek-v3', ids('12', '3', 'Ġ', 'ab', 'c', 'e', 'Ì', 'ģ')],
  ])('%s splits and normalizes as its family does', async (pre, expected) => {
    const tokenizer = await load(pre);
    const text = '123 abce\u0301';
    const found = await tokenizer.encode(text);
    expect([...found]).toEqual(expected);
    expect(await tokenizer.decode(found)).toBe(pre === 'qwen2' ? text.normalize('NFC') : text);
  });

  test('control tokens are special, a user’s are not, fillers are none', async () => {
    const tokenizer = await load('smollm');
    const found = await tokenizer.encode('a<think><s>[PAD60]');
    expect([...found.subarray(0, 3)]).toEqual(ids('a', '<think>', '<s>'));
    expect(await tokenizer.decode(ids('a', '<think>', '<s>', 'b'), { skipSpecial: true })).toBe('a<think>b');
    expect(tokenizer.tokenId('[PAD60]')).toBeUndefined();
    expect([tokenizer.bosTokenId, tokenizer.eosTokenId]).toEqual([0, 1]);
    expect(renderPrompt([{ role: 'user', content: 'hello' }], tokenizer)).toBe('hello');
  });

  test('a begin token is added where the family or the file says so; Llama 3 takes whole words from its vocabulary', async () => {
    const special = async (tokenizer: Awaited<ReturnType<typeof load>>) => [
      ...(await tokenizer.encode('abc', { addSpecial: true })),
    ];
    expect(await special(await load('qwen2'))).toEqual(ids('ab', 'c'));
    expect(await special(await load('llama-bpe'))).toEqual(ids('<s>', 'abc'));
    expect(await special(await load('llama-bpe', { 'tokenizer.ggml.add_bos_token': false }))).toEqual(ids('abc'));
    expect(
      await special(
        await load('qwen2', { 'tokenizer.ggml.add_bos_token': true, 'tokenizer.ggml.add_eos_token': true }),
      ),
    ).toEqual(ids('<s>', 'ab', 'c', '</s>'));
  });

  test('a tokenizer that cannot be rebuilt is refused, and may come from a folder', async () => {
    const { metadata, tensors } = await partsOf(join(goldens, 'qwen2-tied'));
    for (const [key, value] of [
      ['tokenizer.ggml.model', 'llama'],
      ['tokenizer.ggml.pre', 'tekken'],
    ]) {
      const parts = { metadata: { ...metadata, [key!]: value! }, tensors };
      expect(await refusal(() => imported(parts))).toMatchObject({
        code: 'ARCHER_E_MODEL',
        message: expect.stringMatching(`${key} is "${value}"; .*--tokenizer`),
      });
    }
    const file = written(ggufBytes({ ...metadata, 'tokenizer.ggml.pre': 'tekken' }, tensors));
    const out = fresh('folder');
    await importGguf({ file, out, dtype: 'float32', tokenizerFolder: join(goldens, 'qwen2-tied') });
    const copied = readFileSync(join(out, 'tokenizer.json'));
    const none = { file, out: fresh('folder'), dtype: 'float32' as const, tokenizerFolder: join(dir, 'none') };
    expect((await refusal(() => importGguf(none))).message).toMatch(/none is no folder with a tokenizer.json/);
    expect(copied.equals(readFileSync(join(goldens, 'qwen2-tied/tokenizer.json')))).toBe(true);
  });
});

describe('refused', () => {
  let parts: Parts;
  beforeAll(async () => {
    parts = await partsOf(join(goldens, 'llama-biases-tied'));
  });
  const without = (key: string) => Object.fromEntries(Object.entries(parts.metadata).filter(([one]) => one !== key));
  const change = (index: number, changes: Partial<TensorToWrite>) =>
    parts.tensors.map((tensor, i) => (i === index ? { ...tensor, ...changes } : tensor));
  const bytes = (metadata: Record<string, Value> = {}, tensors = parts.tensors) =>
    ggufBytes({ ...parts.metadata, ...metadata }, tensors);
  const patched = (at: number, patch: Buffer) => {
    const made = bytes();
    patch.copy(made, at);
    return made;
  };

  test.each<[string, () => Buffer, RegExp]>([
    ['an empty file', () => Buffer.alloc(0), /its first bytes would end at byte 4, the file ends at 0/],
    ['another file', () => Buffer.from('PK\x03\x04 something'), /it is no GGUF file/],
    ['version 1', () => patched(4, Buffer.from([1, 0, 0, 0])), /it has version 1; versions 2 and 3/],
    ['big-endian', () => patched(4, Buffer.from([0, 0, 0, 3])), /it is big-endian/],
    ['2^62 tensors', () => patched(8, u64(2n ** 62n)), /the number of tensors is 4611686018427387904/],
    ['2^40 tensors', () => patched(8, u64(2 ** 40)), /tensor {2}has 0 dimensions/],
    ['2^40 entries', () => patched(16, u64(2 ** 40)), /the length of a metadata key is \d+: it is damaged/],
    ['a key of 2^50 bytes', () => patched(24, u64(2 ** 50)), /a metadata key would end at byte 1125899906842656/],
    ['half a file', () => bytes().subarray(0, 20_000), /it is truncated; fetch it again/],
    ['half a header', () => bytes().subarray(0, 700), /truncated or damaged/],
    ['another type', () => bytes({}, change(3, { type: 13 })), /has type Q5_K; read are F32, F16/],
    ['an unknown type', () => bytes({}, change(3, { type: 99 })), /has type 99/],
    [
      'rows that are no blocks',
      () => bytes({}, change(2, { type: 'Q4_K' })),
      /which Q4_K \(blocks of 256\) does not allow/,
    ],
    ['no dimension', () => bytes({}, change(3, { shape: [] })), /has 0 dimensions/],
    ['a size of 0', () => bytes({}, change(3, { shape: [0, 4] })), /shape \[0, 4\]/],
    ['2^104 weights', () => bytes({}, change(3, { shape: [2 ** 52, 2 ** 52] })), /does not allow/],
    ['an offset outside', () => bytes({}, change(3, { offset: 2 ** 45 })), /ends at byte 3518437.*, the file at/],
    ['an offset between', () => bytes({}, change(3, { offset: 33 })), /begins at 33, no multiple of 32/],
    ['an overlap', () => bytes({}, change(3, { offset: 0 })), /overlap/],
    ['a name twice', () => bytes({}, change(3, { name: parts.tensors[4]!.name })), /is there twice/],
    ['an alignment of 0', () => bytes({ 'general.alignment': 0 }), /general.alignment is 0/],
    [
      'a tensor too many',
      () => bytes({}, [...parts.tensors, { ...parts.tensors[1]!, name: 'blk.0.ssm_a' }]),
      /blk.0.ssm_a belongs to no model/,
    ],
    ['a tensor too few', () => bytes({}, parts.tensors.slice(0, -1)), /the tensor .* is missing/],
    [
      'another shape',
      () => bytes({ 'llama.feed_forward_length': 40 }),
      /has shape \[48, 32\], its metadata say \[40, 32\]/,
    ],
    [
      'another architecture',
      () => bytes({ 'general.architecture': 'gemma3' }),
      /general.architecture is "gemma3"; supported: llama, qwen2, qwen3/,
    ],
    ['experts', () => bytes({ 'llama.expert_count': 8 }), /expert_count is 8; supported: dense/],
    ['one of several files', () => bytes({ 'split.count': 3 }), /split.count is 3; .*llama-gguf-split --merge/],
    ['yarn', () => bytes({ 'llama.rope.scaling.type': 'yarn' }), /rope.scaling.type is "yarn"; supported: none/],
    ['half a rotation', () => bytes({ 'llama.rope.dimension_count': 6 }), /the size of a head \(12\)/],
    [
      '2^31 layers',
      () => bytes({ 'llama.block_count': 2 ** 31 }),
      /block_count is 2147483648; supported: at most the number of tensors/,
    ],
    ['no layers', () => bytes({ 'llama.block_count': 'two' }), /block_count is "two"; supported: a number/],
    [
      'no tokens',
      () => ggufBytes(without('tokenizer.ggml.tokens'), parts.tensors),
      /tokens is missing; supported: a list/,
    ],
    [
      'the same token twice',
      () => bytes({ 'tokenizer.ggml.tokens': Array.from({ length: 64 }, () => 'a') }),
      /supported: distinct tokens/,
    ],
    ['a merge of three', () => bytes({ 'tokenizer.ggml.merges': ['a b c'] }), /merges is "a b c"/],
    [
      'an end beyond',
      () => bytes({ 'tokenizer.ggml.eos_token_id': 64 }),
      /eos_token_id is 64; supported: less than 64/,
    ],
  ])('%s', async (_, make, message) => {
    const out = fresh('folder');
    const error = await refusal(() => importGguf({ file: written(make()), out, dtype: 'float32' }));
    expect(error).toMatchObject({ code: 'ARCHER_E_MODEL', message: expect.stringMatching(message) });
    expect(readdirSync(dir).filter((name) => name.includes('incomplete'))).toEqual([]);
    expect(existsSync(out)).toBe(false);
  });

  test('a folder with something in it is left alone', async () => {
    const error = await refusal(() => importGguf({ file: written(bytes()), out: dir, dtype: 'float32' }));
    expect(error).toMatchObject({ code: 'ARCHER_E_CONFIG', message: expect.stringMatching(/is not empty/) });
  });

  test('a missing file, an interruption', async () => {
    const missing = await refusal(() =>
      importGguf({ file: join(dir, 'none.gguf'), out: fresh('x'), dtype: 'float32' }),
    );
    expect(missing).toMatchObject({ code: 'ARCHER_E_IO', message: expect.stringMatching(/Cannot read .*none.gguf/) });
    const options = { file: written(bytes()), out: fresh('folder'), dtype: 'float32' as const };
    expect((await refusal(() => importGguf({ ...options, signal: AbortSignal.abort() }))).code).toBe(
      'ARCHER_E_ABORTED',
    );
    expect(existsSync(options.out)).toBe(false);
  });

  test('500 damaged files: each is imported or refused with a code', async () => {
    const whole = bytes();
    const headerEnd = whole.length - parts.tensors.reduce((sum, tensor) => sum + tensor.bytes.length, 0);
    let state = 99;
    const random = (below: number) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    const path = fresh('fuzz.gguf');
    const codes = new Map<string, number>();
    for (let round = 0; round < 500; round += 1) {
      const damaged = Buffer.from(whole.subarray(0, round % 5 === 0 ? random(whole.length) : whole.length));
      for (let i = random(3); i >= 0 && damaged.length > 16; i -= 1) {
        const at = random(Math.min(headerEnd, damaged.length - 8));
        if (random(2)) damaged[at] = random(256);
        else u64([0n, 2n ** 64n - 1n, 2n ** 31n, 2n ** 53n][random(4)]!).copy(damaged, at);
      }
      writeFileSync(path, damaged);
      const { code = 'imported' } = await refusal(() =>
        importGguf({ file: path, out: fresh('folder'), dtype: 'float32' }),
      );
      codes.set(code, (codes.get(code) ?? 0) + 1);
    }
    expect([...codes.keys()].sort()).toEqual(['ARCHER_E_MODEL', 'imported']);
  });
});

const python = pythonWith('gguf', 'numpy');

(python ? test : test.skip)('a file of Python’s own writer', async () => {
  const path = fresh('python.gguf');
  const script = `
import sys, gguf, numpy as np
w = gguf.GGUFWriter(sys.argv[1], "llama")
w.add_uint64("a.u64", 1 << 40); w.add_int8("a.i8", -3); w.add_float64("a.f64", 0.1); w.add_bool("a.yes", True)
w.add_string("a.text", "grüße 🙂"); w.add_array("a.list", ["x", ""]); w.add_array("a.numbers", [-1, 2])
w.add_custom_alignment(64)
w.add_tensor("odd", np.arange(6, dtype=np.float16).reshape(2, 3))
w.add_tensor("quant", gguf.quants.quantize(np.arange(512, dtype=np.float32).reshape(4, 128), gguf.GGMLQuantizationType.Q8_0), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
print([int(t.data_offset) for t in gguf.GGUFReader(sys.argv[1]).tensors])`;
  const offsets = JSON.parse(await runPython(python!, script, [path]));
  const { metadata, tensors } = readGguf(path);
  expect(Object.fromEntries(metadata)).toMatchObject({
    'a.u64': 2 ** 40,
    'a.i8': -3,
    'a.f64': 0.1,
    'a.yes': true,
    'a.text': 'grüße 🙂',
    'a.list': ['x', ''],
    'a.numbers': [-1, 2],
    'general.alignment': 64,
  });
  expect([...tensors.values()]).toEqual([
    { name: 'odd', type: 'F16', shape: [2, 3], begin: offsets[0], end: offsets[0] + 12 },
    { name: 'quant', type: 'Q8_0', shape: [4, 128], begin: offsets[1], end: offsets[1] + 544 },
  ]);
});
