import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, test } from '@jest/globals';
import { AppendFile } from '../../lib/metrics/append-file.js';
import { crc32c, maskedCrc32c } from '../../lib/metrics/crc32c.js';
import { JsonlSink, jsonLine } from '../../lib/metrics/jsonl.js';
import { combineSinks, type MetricsSink, type RunInfo } from '../../lib/metrics/sink.js';
import { TensorboardSink } from '../../lib/metrics/tensorboard.js';

const root = mkdtempSync(join(tmpdir(), 'archer-metrics-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let runDir: string;
let count = 0;
let info: RunInfo;
beforeEach(() => {
  runDir = join(root, String(count++));
  info = { runDir, title: 'a test', totalSteps: 4, startStep: 0 };
});

const end = { status: 'finished' } as const;

describe('metrics.jsonl and timings.jsonl', () => {
  test('step first, names in order whatever order they came in, values as they are', () => {
    const forward = { 'actor/entropy': 0.1 + 0.2, 'critic/score/mean': 1e-7, B: 2, a: -0 };
    const backward = Object.fromEntries(Object.entries(forward).reverse());
    expect(jsonLine(3, forward)).toBe(
      '{"step":3,"B":2,"a":0,"actor/entropy":0.30000000000000004,"critic/score/mean":1e-7}\n',
    );
    expect(jsonLine(3, backward)).toBe(jsonLine(3, forward));
  });

  test('what is not finite is null, and its key stays', () => {
    expect(jsonLine(1, { a: Number.NaN, b: Number.POSITIVE_INFINITY, c: 0 })).toBe(
      '{"step":1,"a":null,"b":null,"c":0}\n',
    );
  });

  test('values and times go to different files; bytes() is where a resume cuts', () => {
    const sink = new JsonlSink({ runDir });
    sink.start();
    sink.step({ step: 1, metrics: { 'actor/entropy': 0.5 }, timings: { 'timing_s/gen': 1.5 } });
    const after1 = sink.bytes();
    sink.step({ step: 2, metrics: { 'actor/entropy': 0.25 }, timings: { 'timing_s/gen': 1.25 } });
    sink.flush();
    // Before close: a process that is killed loses no line.
    expect(readFileSync(join(runDir, 'metrics.jsonl'), 'utf8')).toBe(
      '{"step":1,"actor/entropy":0.5}\n{"step":2,"actor/entropy":0.25}\n',
    );
    expect(readFileSync(join(runDir, 'timings.jsonl'), 'utf8')).toBe(
      '{"step":1,"timing_s/gen":1.5}\n{"step":2,"timing_s/gen":1.25}\n',
    );
    expect(after1).toEqual({ metrics: 31, timings: 30 });
    expect(sink.bytes().metrics).toBe(statSync(join(runDir, 'metrics.jsonl')).size);
    sink.close();
    sink.close();
  });

  test('a second process goes on at the end', () => {
    for (const step of [1, 2]) {
      const sink = new JsonlSink({ runDir });
      sink.start();
      sink.step({ step, metrics: { x: step }, timings: {} });
      sink.close();
    }
    expect(readFileSync(join(runDir, 'metrics.jsonl'), 'utf8')).toBe('{"step":1,"x":1}\n{"step":2,"x":2}\n');
  });

  test('a folder that cannot be made is ARCHER_E_IO with the path', () => {
    writeFileSync(runDir, 'a file');
    expect(() => new JsonlSink({ runDir }).start()).toThrow(
      expect.objectContaining({ code: 'ARCHER_E_IO', message: expect.stringContaining(`${runDir}/metrics.jsonl`) }),
    );
  });

  const disk = join(root, 'tiny-disk');
  mkdirSync(disk);
  let mounted = true;
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'archer-test', disk], { stdio: 'pipe' });
  } catch (error) {
    mounted = false;
    const why = String((error as { stderr?: unknown }).stderr ?? error).trim();
    process.stderr.write(`skipped: metrics on a really full disk (cannot mount a tmpfs: ${why})\n`);
  }
  afterAll(() => {
    if (mounted) execFileSync('umount', [disk]);
  });
  (mounted ? test : test.skip)('a full disk is ARCHER_E_IO, and the file ends with a whole record', () => {
    const file = new AppendFile(join(disk, 'x.jsonl'));
    const line = Buffer.from(`${'x'.repeat(999)}\n`);
    const fill = () => {
      for (let i = 0; i < 100; ++i) file.append(line);
    };
    expect(fill).toThrow(
      expect.objectContaining({ code: 'ARCHER_E_IO', message: expect.stringMatching(/x\.jsonl: ENOSPC.*Free space/) }),
    );
    const size = statSync(file.path).size;
    expect(size).toBeGreaterThan(0);
    expect(size % 1000).toBe(0);
    expect(file.bytes).toBe(size);
    file.close();
  });
});

// A decoder of its own: walks the records, checks both CRCs with a bitwise CRC, decodes protobuf by wire type.
type Field = { field: number; wire: number; value: bigint | Buffer };

function decodeMessage(data: Buffer): Field[] {
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = data[at++] as number;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  const fields: Field[] = [];
  while (at < data.length) {
    const key = Number(varint());
    const wire = key & 7;
    let value: bigint | Buffer;
    if (wire === 0) value = varint();
    else {
      const length = wire === 1 ? 8 : wire === 5 ? 4 : Number(varint());
      value = data.subarray(at, at + length);
      at += length;
    }
    fields.push({ field: key >> 3, wire, value });
  }
  expect(at).toBe(data.length);
  return fields;
}

function bitwiseMaskedCrc(data: Buffer): number {
  let crc = ~0;
  for (const byte of data) {
    for (let bit = 0; bit < 8; ++bit) {
      const out = (crc ^ (byte >> bit)) & 1;
      crc = (crc >>> 1) ^ (out ? 0x82f63b78 : 0);
    }
  }
  const plain = BigInt.asUintN(32, BigInt(~crc));
  return Number(BigInt.asUintN(32, ((plain >> 15n) | (plain << 17n)) + 0xa282ead8n));
}

interface DecodedEvent {
  wallTime: number;
  step: number;
  version?: string;
  session?: number;
  scalars: Record<string, number>;
}

function decodeEvents(file: Buffer): DecodedEvent[] {
  const events: DecodedEvent[] = [];
  for (let at = 0; at < file.length; ) {
    const length = Number(file.readBigUInt64LE(at));
    expect(file.readUInt32LE(at + 8)).toBe(bitwiseMaskedCrc(file.subarray(at, at + 8)));
    const data = file.subarray(at + 12, at + 12 + length);
    expect(file.readUInt32LE(at + 12 + length)).toBe(bitwiseMaskedCrc(data));
    at += 16 + length;
    const event: DecodedEvent = { wallTime: 0, step: 0, scalars: {} };
    for (const { field, wire, value } of decodeMessage(data)) {
      if (field === 1 && wire === 1) event.wallTime = (value as Buffer).readDoubleLE(0);
      else if (field === 2 && wire === 0) event.step = Number(value);
      else if (field === 3 && wire === 2) event.version = value.toString();
      else if (field === 7 && wire === 2) event.session = Number(decodeMessage(value as Buffer)[0]?.value);
      else if (field === 5 && wire === 2) {
        for (const inner of decodeMessage(value as Buffer)) {
          expect([inner.field, inner.wire]).toEqual([1, 2]);
          const [tag, simple] = decodeMessage(inner.value as Buffer) as [Field, Field];
          expect([tag.field, tag.wire, simple.field, simple.wire]).toEqual([1, 2, 2, 5]);
          event.scalars[String(tag.value)] = (simple.value as Buffer).readFloatLE(0);
        }
      } else throw new Error(`unexpected field ${field}, wire type ${wire}`);
    }
    events.push(event);
  }
  return events;
}

describe('TensorBoard', () => {
  test('CRC-32C: the known answers of RFC 3720', () => {
    const ascending = Uint8Array.from({ length: 32 }, (_, i) => i);
    expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43);
    expect(crc32c(ascending)).toBe(0x46dd794e);
    expect(crc32c(ascending.reverse())).toBe(0x113fdb5c);
    expect(crc32c(new Uint8Array(0))).toBe(0);
    expect(maskedCrc32c(Buffer.from('123456789'))).toBe(bitwiseMaskedCrc(Buffer.from('123456789')));
  });

  test('an independent decoder reads everything back', () => {
    const sink = new TensorboardSink({ runDir, nowMs: () => 1_700_000_000_500 });
    sink.start(info);
    sink.step({ step: 1, metrics: { 'actor/entropy': 0.1, 'größe/→': -2 }, timings: { 'timing_s/gen': 1.5 } });
    sink.step({ step: 300, metrics: { 'actor/entropy': Number.NaN, big: 1e30 }, timings: {} });
    sink.step({ step: 5_000_000_000, metrics: {}, timings: {} });
    sink.flush();
    sink.close();
    const [name = ''] = readdirSync(join(runDir, 'tensorboard'));
    expect(name).toMatch(/^events\.out\.tfevents\.1700000000\.000\./);
    const common = { wallTime: 1_700_000_000.5 };
    expect(decodeEvents(readFileSync(join(runDir, 'tensorboard', name)))).toEqual([
      { ...common, step: 0, version: 'brain.Event:2', scalars: {} },
      { ...common, step: 0, session: 1, scalars: {} },
      { ...common, step: 1, scalars: { 'actor/entropy': Math.fround(0.1), 'größe/→': -2, 'timing_s/gen': 1.5 } },
      { ...common, step: 300, scalars: { big: Math.fround(1e30) } },
      { ...common, step: 5_000_000_000, scalars: {} },
    ]);
  });

  test('a resumed run begins a new, later file that takes back what came after the checkpoint', () => {
    for (const startStep of [0, 2]) {
      const sink = new TensorboardSink({ runDir, nowMs: () => 1_700_000_000_000 });
      sink.start({ ...info, startStep });
      sink.step({ step: startStep + 1, metrics: { x: startStep }, timings: {} });
      sink.close();
    }
    const names = readdirSync(join(runDir, 'tensorboard')).sort();
    expect(names).toHaveLength(2);
    const events = decodeEvents(readFileSync(join(runDir, 'tensorboard', names[1] ?? '')));
    expect(events[1]).toMatchObject({ session: 1, step: 3 });
    expect(events[2]).toMatchObject({ step: 3, scalars: { x: 2 } });
  });
});

describe('several sinks', () => {
  test('one that fails is heard, after the others got the record', async () => {
    const seen: string[] = [];
    const failure = new Error('disk full');
    const sink = (name: string, fails: boolean): MetricsSink => ({
      start: () => {},
      step: async ({ step }) => {
        await Promise.resolve();
        if (fails) throw failure;
        seen.push(`${name}${step}`);
      },
      note: (line) => seen.push(name + line),
      close: () => {},
    });
    const all = combineSinks([sink('a', false), sink('b', true), sink('c', false)]);
    await all.start(info);
    await expect(all.step({ step: 1, metrics: {}, timings: {} })).rejects.toBe(failure);
    all.note('!');
    all.progress({ step: 1, stage: 'generate' });
    await all.flush();
    await all.close(end);
    expect(seen).toEqual(['a1', 'c1', 'a!', 'b!', 'c!']);
  });
});
