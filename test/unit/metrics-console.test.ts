import { beforeEach, describe, expect, test } from '@jest/globals';
import { ConsoleSink } from '../../lib/metrics/console.js';
import { formatBar, formatDuration, formatNumber } from '../../lib/metrics/format.js';
import type { RunInfo, StepRecord } from '../../lib/metrics/sink.js';

describe('formats', () => {
  test.each([
    [0, '0'],
    [0.453125, '0.4531'],
    [-0.03125, '-0.0313'],
    [1, '1.000'],
    [12.345, '12.35'],
    [231.25, '231.3'],
    [5123.4, '5123'],
    [123_456, '0.12M'],
    [1_250_000, '1.25M'],
    [2e-6, '2.0e-6'],
    [-2e-6, '-2.0e-6'],
    [3e12, '3.0e+12'],
    [Number.NaN, '-'],
    [Number.POSITIVE_INFINITY, '-'],
    [undefined, '-'],
  ])('the number %d is %s', (value, text) => {
    expect(formatNumber(value)).toBe(text);
  });

  test.each([
    [0, '0.0s'],
    [4.21, '4.2s'],
    [9.96, '10s'],
    [45.4, '45s'],
    [59.6, '1m00s'],
    [192, '3m12s'],
    [7500, '2h05m'],
    [97_500, '1d03h'],
    [Number.NaN, '-'],
  ])('%d seconds are %s', (value, text) => {
    expect(formatDuration(value)).toBe(text);
  });

  test('the bar stays within its width', () => {
    expect([formatBar(0, 4), formatBar(0.5, 4), formatBar(1.7, 4)]).toEqual(['░░░░', '██░░', '████']);
  });
});

const info: RunInfo = {
  runDir: '/runs/exp',
  title: 'archer on gsm8k',
  totalSteps: 100,
  startStep: 0,
  details: ['64 prompts x 16 responses'],
};

function recordOf(step: number, metrics: Record<string, number> = {}): StepRecord {
  return {
    step,
    metrics: { 'critic/score/mean': step / 100, 'actor/entropy': 0.5, 'response_length/mean': 231.2, ...metrics },
    timings: { 'timing_s/step': 4.2, 'perf/throughput': 5123 },
  };
}

let text = '';
let now = 0;
beforeEach(() => {
  text = '';
  now = 0;
});

function makeSink(options: { isTTY: boolean; columns?: number; heartbeatMs?: number; color?: boolean }) {
  const { isTTY, columns, ...rest } = options;
  const stream = {
    write: (chunk: string) => {
      text += chunk;
    },
    isTTY,
    columns,
  };
  return new ConsoleSink({ stream, nowMs: () => now, color: false, ...rest });
}

describe('without a terminal', () => {
  test('plain lines: a start report, aligned rows under a header, evaluations, a last report', () => {
    const sink = makeSink({ isTTY: false });
    sink.start(info);
    sink.step({ step: 0, metrics: { 'val-core/gsm8k/avg@4': 0.125 }, timings: {} });
    sink.progress({ step: 1, stage: 'generate', fraction: 0.5 });
    sink.step(recordOf(1, { 'actor/grad_norm': 123.4, 'actor/kl_loss': 1.5e-5 }));
    sink.step(recordOf(2, { 'val-core/gsm8k/avg@4': 0.5, 'val-core/gsm8k/pass@4': 0.75 }));
    now = 65_000;
    sink.close({ status: 'finished', details: ['checkpoint: global_step_2'] });
    expect(text).toBe(
      [
        'archer on gsm8k',
        '  folder: /runs/exp',
        '  64 prompts x 16 responses',
        '  100 training steps',
        '   0  evaluation: gsm8k/avg@4 0.1250',
        'step   reward  groups  entropy       kl  clipped     grad  length  tokens/s    time',
        '   1   0.0100       -   0.5000   1.5e-5        -    123.4   231.2      5123    4.2s',
        '   2   0.0200       -   0.5000        -        -        -   231.2      5123    4.2s',
        '   2  evaluation: gsm8k/avg@4 0.5000',
        'finished: 2 of 100 steps, 1m05s',
        '  reward: 0.0100 (step 1) -> 0.0200 (step 2)',
        '  gsm8k/avg@4: 0.1250 (step 0) -> 0.5000 (step 2)',
        '  checkpoint: global_step_2',
        '  folder: /runs/exp',
        '',
      ].join('\n'),
    );
  });

  test('the header comes again every 25 rows', () => {
    const sink = makeSink({ isTTY: false });
    sink.start(info);
    for (let step = 1; step <= 51; ++step) sink.step(recordOf(step));
    sink.close({ status: 'finished' });
    expect(text.match(/^step /gm)).toHaveLength(3);
  });

  test('a stage that takes long says so, once per 30 s; short ones are silent', () => {
    const sink = makeSink({ isTTY: false });
    sink.start({ ...info, startStep: 11 });
    expect(text).toContain('going on after step 11');
    text = '';
    const at = (seconds: number, stage: 'generate' | 'update', fraction?: number) => {
      now = seconds * 1000;
      sink.progress({ step: 12, stage, fraction });
      sink.tick();
    };
    at(0, 'generate', 0);
    at(29, 'generate', 0.2);
    at(31, 'generate', 0.451);
    at(45, 'generate', 0.7);
    at(62, 'generate', 0.9);
    at(63, 'update');
    at(92, 'update');
    sink.step(recordOf(12));
    now = 500_000;
    sink.tick();
    sink.close({ status: 'interrupted' });
    expect(text.split('\n').slice(0, 2)).toEqual([
      'step 12/100: generate 45 % (31s)',
      'step 12/100: generate 90 % (1m02s)',
    ]);
    expect(text.match(/update/g)).toBeNull();
    expect(text).toContain('interrupted: 12 of 100 steps');
    expect(['\r', '\x1b'].filter((control) => text.includes(control))).toEqual([]);
  });
});

describe('on a terminal', () => {
  const screen = () => {
    // What a person would see: each line after its last erase.
    return text.split('\n').map((line) => line.split('\r\x1b[2K').at(-1));
  };

  test('a status line below the rows: step, stage, reward, evaluation, tokens/s, time left', () => {
    const sink = makeSink({ isTTY: true, columns: 120 });
    sink.start(info);
    sink.step(recordOf(1, { 'val-core/gsm8k/avg@4': 0.5 }));
    sink.step(recordOf(2));
    sink.progress({ step: 3, stage: 'generate', fraction: 0.45 });
    // 98 steps of 4.2 s
    expect(screen().at(-1)).toBe(
      '░░░░░░░░░░░░░░░░  step 3/100: generate 45 %  reward 0.0200  gsm8k/avg@4 0.5000  5123 tokens/s  6m52s left',
    );
    sink.note('saved global_step_2');
    sink.close({ status: 'finished' });
    const lines = screen();
    expect(lines).toContain('saved global_step_2');
    expect(lines.filter((line) => line?.includes('░'))).toEqual([]);
    expect(lines.at(-1)).toBe('');
  });

  test('is never wider than the terminal', () => {
    const sink = makeSink({ isTTY: true, columns: 40 });
    sink.start(info);
    sink.step(recordOf(50));
    sink.progress({ step: 51, stage: 'old_log_prob', fraction: 0.1 });
    expect(screen().at(-1)).toHaveLength(39);
    sink.close({ status: 'finished' });
  });

  test('is drawn at most ten times a second within a stage', () => {
    const sink = makeSink({ isTTY: true, columns: 80 });
    sink.start(info);
    text = '';
    for (now = 0; now < 1000; now += 5) sink.progress({ step: 1, stage: 'update', fraction: now / 1000 });
    sink.progress({ step: 1, stage: 'save' });
    expect(text.split('\r\x1b[2K').length - 1).toBe(11);
    sink.close({ status: 'finished' });
  });

  test('colours only where they are wanted', () => {
    const coloured = makeSink({ isTTY: true, columns: 80, color: true });
    coloured.start(info);
    coloured.close({ status: 'finished' });
    expect(text).toContain('\x1b[1march');
    text = '';
    const plain = makeSink({ isTTY: true, columns: 80 });
    plain.start(info);
    plain.close({ status: 'finished' });
    expect(text).not.toContain('\x1b[1m');
  });
});
