// Ratios, medians, rows and the judgement whether they may be quoted, from timings made up for the purpose.
import { describe, expect, test } from '@jest/globals';
import type { Sample } from '../../lib/bench/contestant.js';
import { groupsWithin } from '../../lib/bench/environment.js';
import { lossBytes, namedShapes, rivalNames, shapeFromName } from '../../lib/bench/loss.js';
import { processCpuSeconds, systemCpuSeconds } from '../../lib/bench/machine.js';
import { makeRow, median, ratiosOf, reasonsNotToQuote } from '../../lib/bench/statistics.js';
import { benchTable } from '../../lib/bench/table.js';

const samples = (...seconds: number[]): Sample[] => seconds.map((one) => ({ seconds: one, cpuSeconds: one }));
const measurement = (name: string, timings: Sample[], peakBytes?: number) => ({
  name,
  samples: timings,
  peakBytes,
  details: {},
});
const quiet = { load: 0.1, busyCores: 0.02, foreignCores: 0.01, threads: 1 };
const context = {
  bench: 'loss',
  device: 'cpu',
  shape: 'smollm2-512',
  dtype: 'bf16',
  memory: 'kept' as const,
  ...quiet,
};

const ours = samples(1, 1.02, 0.98, 1, 1.01, 0.99, 1);
const rival = samples(2, 2.02, 1.98, 2.02, 2, 1.98, 2);

test('the median of an even number of values is the mean of the middle two', () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 2, 3])).toBe(2.5);
});

test('ratios are taken within a round, not between medians', () => {
  // The machine was twice as slow in the second half, for both alike.
  const slowing = samples(1, 1, 1, 1, 2, 2, 2);
  const rivalSlowing = samples(3, 3, 3, 3, 6, 6, 6);
  expect(ratiosOf(slowing, rivalSlowing)).toEqual([3, 3, 3, 3, 3, 3, 3]);
  expect(reasonsNotToQuote(slowing, rivalSlowing, quiet)).toEqual([]);
});

describe('a row', () => {
  test('holds the rival’s time and memory over ours', () => {
    const floor = measurement('gemm-floor', samples(0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5));
    const row = makeRow(context, measurement('archer', ours, 100e6), measurement('naive', rival, 1600e6), floor);
    expect(row).toMatchObject({
      against: 'naive',
      ratio: 2,
      cpu_ratio: 2,
      memory_ratio: 16,
      pairs: 7,
      threads: 1,
      quotable: true,
      reasons: [],
    });
    expect(row.ratio_min).toBeCloseTo(1.98, 2);
    expect(row.ratio_max).toBeCloseTo(2.02, 2);
    expect(row.rival_over_floor).toBe(4);
    const floorRow = makeRow(context, measurement('archer', ours, 100e6), floor, floor);
    expect(floorRow).toMatchObject({ ratio: 0.5, memory_ratio: null, rival_over_floor: null });
  });

  test('is marked in the table with its reason', () => {
    const good = makeRow(context, measurement('archer', ours), measurement('naive', rival));
    const bad = makeRow({ ...context, load: 3 }, measurement('archer', ours), measurement('liger', rival));
    const lines = benchTable([good, bad]).split('\n');
    expect(lines[1]).toMatch(/naive .* yes$/);
    expect(lines[2]).toMatch(/liger .* no \[1\]$/);
    expect(lines[3]).toBe('[1] not quotable: load average 3.00 before the start');
  });
});

describe('a result may not be quoted', () => {
  const reason = (change: Partial<typeof quiet>, a = ours, b = rival) =>
    reasonsNotToQuote(a, b, { ...quiet, ...change });

  test('but a quiet one may', () => expect(reason({})).toEqual([]));
  test('at a high load average', () => expect(reason({ load: 0.8 })).toEqual(['load average 0.80 before the start']));
  test('when processors were busy', () =>
    expect(reason({ busyCores: 1 })).toEqual(['1.00 processors busy before the start']));
  test('when others computed meanwhile', () =>
    expect(reason({ foreignCores: 0.4 })).toEqual(['others used 0.40 processors meanwhile']));
  test('with few pairs', () => expect(reason({}, ours.slice(0, 6), rival.slice(0, 6))).toEqual(['only 6 pairs of 7']));
  test('where the pairs spread', () =>
    expect(reason({}, ours, samples(2, 2, 2, 2, 2, 2, 2.4))).toEqual(["the pairs' ratios spread by 22 %"]));
  test('where a single thread waited for a processor', () => {
    const starved = ours.map(({ seconds }) => ({ seconds, cpuSeconds: 0.8 * seconds }));
    expect(reason({}, starved)).toEqual(['a thread got 80 % of a processor']);
    expect(reason({ threads: 2 }, starved)).toEqual([]);
  });
});

describe('shapes', () => {
  test('by name and by size', () => {
    expect(shapeFromName('qwen-256')).toEqual(namedShapes['qwen-256']);
    expect(shapeFromName('8x16x50')).toEqual({ name: '8x16x50', tokens: 8, hidden: 16, vocabulary: 50 });
  });
  test.each(['smollm3', '8x16', '8x16x50x2', '0x16x50', '8x16x1', '-8x16x50'])('%s is refused', (name) => {
    expect(() => shapeFromName(name)).toThrow(
      expect.objectContaining({ code: 'ARCHER_E_CONFIG', message: expect.stringContaining(name) }),
    );
  });
});

test('rivals that do not fit into memory together are run in groups, each beside ours', () => {
  const { ourBytes, rivalBytes } = lossBytes(namedShapes['smollm2-2048']!, 'bf16');
  const groups = (rivals: string[], budget: number) =>
    groupsWithin(rivals, { always: ourBytes, bytesOf: rivalBytes, budget });
  expect(groups(rivalNames, 1e12)).toEqual([rivalNames]);
  expect(groups(rivalNames, 0)).toEqual(rivalNames.map((name) => [name]));
  expect(groups(rivalNames, ourBytes + rivalBytes('naive') + rivalBytes('trl'))[0]).toEqual(['naive', 'trl']);
  expect(groups([], 0)).toEqual([[]]);
});

test('/proc is read right: idle time left out, stolen time counted, any name of a process', () => {
  expect(systemCpuSeconds('cpu  100 10 50 99999 777 5 5 30 0 0\ncpu0 1 2 3\n')).toBe(2);
  const stat = `42 (a (b) c) S ${Array.from({ length: 10 }, () => 0).join(' ')} 150 50 0 0\n`;
  expect(processCpuSeconds(42, stat)).toBe(2);
  expect(processCpuSeconds(undefined, '')).toBe(0);
});
