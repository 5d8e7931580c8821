// --profile: the file is a Chrome trace whose spans nest, and in which a step's phases account for the step.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { train } from '../../lib/index.js';
import { tempDir, tinyConfig } from './tiny-run.js';

interface Span {
  name: string;
  ph: string;
  tid: number;
  ts: number;
  dur: number;
}

let dir: ReturnType<typeof tempDir>;
let spans: Span[];
beforeAll(async () => {
  dir = tempDir();
  const path = join(dir.path, 'trace.json');
  const config = tinyConfig(dir.path, {
    reward: { self_test: false },
    trainer: { total_training_steps: 2, save_freq: 2, test_freq: -1, val_before_train: false },
  });
  for await (const _ of train({ config, profile: path, reward: ({ response }) => response.length % 2 }));
  const { traceEvents } = JSON.parse(readFileSync(path, 'utf8'));
  spans = traceEvents.filter(({ ph }: Span) => ph === 'X');
});
afterAll(() => dir.remove());

const [steps, engine] = [1, 2];
const of = (tid: number, name?: string) =>
  spans.filter((span) => span.tid === tid && (name === undefined || span.name === name));
const end = ({ ts, dur }: Span) => ts + dur;
const isWithin = (inner: Span, outer: Span) => inner.ts >= outer.ts && end(inner) <= end(outer);
// Microseconds as doubles.
const rounding = 0.01;

test.each([steps, engine])('spans of track %i nest', (tid) => {
  const sorted = of(tid).sort((a, b) => a.ts - b.ts || b.dur - a.dur);
  expect(sorted.length).toBeGreaterThan(5);
  const open: Span[] = [];
  for (const span of sorted) {
    while (open.length > 0 && end(open.at(-1)!) <= span.ts + rounding) open.pop();
    const outer = open.at(-1);
    if (outer) expect(end(span)).toBeLessThanOrEqual(end(outer) + rounding);
    open.push(span);
  }
});

test('the phases of a step account for at least 90 % of it', () => {
  for (const name of ['step 1', 'step 2']) {
    const [step] = of(steps, name);
    const phases = of(steps).filter((span) => span !== step && isWithin(span, step!));
    expect(phases.map((span) => span.name)).toEqual(
      expect.arrayContaining(['gen', 'reward', 'old_log_prob', 'ref', 'update_actor']),
    );
    expect(phases.reduce((sum, { dur }) => sum + dur, 0)).toBeGreaterThan(0.9 * step!.dur);
  }
  expect(of(steps, 'save')).toHaveLength(1);
});

test('what the engine does lies within the phase that asked for it', () => {
  const during = (name: string, phase: string) => {
    const phases = of(steps, phase);
    const found = of(engine, name).filter((span) => phases.some((one) => isWithin(span, one)));
    expect(found.length).toBeGreaterThan(0);
    return found;
  };
  during('prefill', 'gen');
  during('decode', 'gen');
  during('log-probs', 'ref');
  for (const name of ['forward', 'loss', 'backward']) {
    const parts = during(name, 'update_actor');
    expect(parts.every((part) => of(engine, 'micro-batch').some((whole) => isWithin(part, whole)))).toBe(true);
  }
  // Two steps of two mini-batches.
  expect(during('optimizer step', 'update_actor')).toHaveLength(4);
  expect(during('layer 0', 'update_actor').length).toBeGreaterThan(0);
});
