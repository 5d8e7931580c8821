// The objective from outside: golden vectors, fused against per-token numbers, micro-batches, and wrong input.
import { describe, expect, test } from '@jest/globals';
import { fusedLoss, tokenLoss } from '../../lib/index.js';
import { checkLossGradients } from '../../lib/native/gradient-check.js';

// archer.md, golden vector 2: two responses of one group, a tie at the cut, a ratio beyond c, unequal lengths
const golden2 = {
  ids: new Int32Array(16),
  lengths: [10, 6],
  groupIds: [0, 0],
  entropies: [0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 0.8, 1.2, 1.7, 2.3, 0.2, 0.4, 0.6, 0.8, 1, 1.5],
  oldLogProbs: [-0.01, -0.02, -0.1, -0.2, -0.5, -0.7, -1, -1.5, -2, -3, -3, -1, -0.5, -1, -2, -1],
  logProbs: [-0.3, -0.02, -0.05, -0.6, -0.2, -0.7, -0.5, -2.5, -1.4, -2.4, -0.5, -1.4, -0.2, -1, -1.7, -2],
  refLogProbs: [-0.02, -0.03, -0.15, -0.1, -0.4, -0.9, -1.2, -1.4, -2.2, -2.9, -1, -1, -0.5, -0.9, -2, -1.5],
  advantages: [1, -1],
};
const withOld = { ...golden2, oldEntropies: golden2.entropies };
const knowledge = (classes: Uint8Array, from: number, to: number) => classes.subarray(from, to).filter((one) => one === 0).length;

describe('golden vector 2', () => {
  test('reference form', async () => {
    const result = await tokenLoss({ ...golden2, options: { fidelity: 'reference' } });
    expect(result.loss).toBeCloseTo(0.7382017, 7);
    expect(result.thresholds[1]).toBeCloseTo(1.0, 12);
    expect(knowledge(result.classes, 10, 16)).toBe(5);
    const expected = [
      -0.037433, -0.049999, -0.052558, -0.033557, 0.000011, -0.049989, 0.000031, -0.018519, 0, 0, 0.000039, -0.000049,
      0.112514, 0.083323, 0.112514, 0,
    ];
    expected.forEach((value, t) => {
      expect(result.gradLogProbs[t]).toBeCloseTo(value, 6);
    });
  });

  test('paper form', async () => {
    const result = await tokenLoss(withOld);
    expect(result.loss).toBeCloseTo(0.4341285, 7);
    expect(knowledge(result.classes, 10, 16)).toBe(4);
    const expected = [
      -0.046787, -0.062499, -0.065698, -0.041936, 0.000011, -0.062489, 0.000031, -0.023118, 0, 0, 0.76143, -0.000031,
      0.084382, 0.062493, 0.084366, 0,
    ];
    expected.forEach((value, t) => {
      expect(result.gradLogProbs[t]).toBeCloseTo(value, 6);
    });
  });

  test('paper form with clip sides of their own', async () => {
    const options = {
      low_entropy_clip_ratio_low: 0.1,
      low_entropy_clip_ratio_high: 0.3,
      high_entropy_clip_ratio_low: 0.4,
      high_entropy_clip_ratio_high: 0.6,
    };
    expect((await tokenLoss({ ...withOld, options })).loss).toBeCloseTo(0.4216285, 7);
  });
});

test('every gradient agrees with central differences', async () => {
  const { cases, worst } = await checkLossGradients();
  expect(cases).toBeGreaterThanOrEqual(9);
  expect(worst).toBeLessThan(1e-6);
});

const [T, H, V] = [24, 8, 53];
const wave = (n: number, phase: number) => Float64Array.from({ length: n }, (_, i) => Math.sin(1.7 * i * i + phase));
const fused = {
  hidden: wave(T * H, 1),
  headWeight: wave(V * H, 2),
  ids: Int32Array.from({ length: T }, (_, t) => (t * 17) % V),
  lengths: [5, 0, 9, 10],
  groupIds: [0, 0, 1, 1],
  oldLogProbs: wave(T, 3).map((x) => -4 + 0.4 * x),
  oldEntropies: wave(T, 4).map((x) => 3 + 0.5 * x),
  refLogProbs: wave(T, 5).map((x) => -4 + 0.4 * x),
  advantages: [1.2, 0.3, -0.7, -0.4],
};

describe('fused loss', () => {
  test('log-probs, entropies and loss are those of the plain formulas', async () => {
    const result = await fusedLoss({ ...fused, dtype: 'float64' });
    for (let t = 0; t < T; t++) {
      const z = Array.from({ length: V }, (_, v) => {
        let sum = 0;
        for (let h = 0; h < H; h++) sum += fused.hidden[t * H + h]! * fused.headWeight[v * H + h]!;
        return sum;
      });
      const lse = Math.log(z.reduce((sum, one) => sum + Math.exp(one), 0));
      expect(result.logProbs[t]).toBeCloseTo(z[fused.ids[t]!]! - lse, 12);
      expect(result.entropies[t]).toBeCloseTo(lse - z.reduce((sum, one) => sum + Math.exp(one - lse) * one, 0), 12);
    }
    const perToken = await tokenLoss({ ...fused, logProbs: result.logProbs, entropies: result.entropies });
    expect(result.loss).toBeCloseTo(perToken.loss, 12);
    expect(result.classes).toEqual(perToken.classes);
  });

  test.each(['paper', 'reference'] as const)('micro-batches add up (%s)', async (fidelity) => {
    const whole = await fusedLoss({ ...fused, dtype: 'float64', options: { fidelity } });
    const denominators = { sequences: 4, tokens: T, lossTokens: T };
    const sum = { loss: 0, gradHead: new Float64Array(V * H), gradHidden: [] as number[] };
    for (const [r0, r1, t0, t1] of [
      [0, 2, 0, 5],
      [2, 4, 5, 24],
    ] as const) {
      const part = await fusedLoss({
        hidden: fused.hidden.slice(t0 * H, t1 * H),
        headWeight: fused.headWeight,
        ids: fused.ids.slice(t0, t1),
        lengths: fused.lengths.slice(r0, r1),
        groupIds: fused.groupIds.slice(r0, r1),
        oldLogProbs: fused.oldLogProbs.slice(t0, t1),
        oldEntropies: fused.oldEntropies.slice(t0, t1),
        refLogProbs: fused.refLogProbs.slice(t0, t1),
        advantages: fused.advantages.slice(r0, r1),
        denominators,
        dtype: 'float64',
        options: { fidelity },
      });
      sum.loss += part.loss;
      part.gradHead.forEach((value, i) => {
        sum.gradHead[i]! += value;
      });
      sum.gradHidden.push(...part.gradHidden);
    }
    expect(sum.loss).toBeCloseTo(whole.loss, 12);
    sum.gradHead.forEach((value, i) => {
      expect(value).toBeCloseTo(whole.gradHead[i]!, 12);
    });
    expect(sum.gradHidden.length).toBe(T * H);
    sum.gradHidden.forEach((value, i) => {
      expect(value).toBeCloseTo(whole.gradHidden[i]!, 12);
    });
  });

  test('bfloat16 inputs, float32 head gradients', async () => {
    const narrow = await fusedLoss({ ...fused, dtype: 'bfloat16' });
    const wide = await fusedLoss({ ...fused, dtype: 'float64' });
    expect(narrow.loss).toBeCloseTo(wide.loss, 1);
    expect(narrow.gradHead.some((value, i) => Math.abs(value - wide.gradHead[i]!) > 1e-12)).toBe(true);
  });

  test.each([
    ['a hidden array that is no [T, H]', { hidden: wave(T * H + 1, 1) }, 'ARCHER_E_SHAPE', 'hidden'],
    ['lengths that do not add up', { lengths: [5, 0, 9, 9] }, 'ARCHER_E_SHAPE', 'lengths'],
    ['an id beyond the vocabulary', { ids: new Int32Array(T).fill(V) }, 'ARCHER_E_SHAPE', String(V)],
    ['NaN among old log-probs', { oldLogProbs: wave(T, 3).fill(Number.NaN, 6, 7) }, 'ARCHER_E_NUMERIC', 'old_log_probs'],
    ['an unknown option', { options: { token_entropy_quantil: 0.5 } as object }, 'ARCHER_E_CONFIG', 'token_entropy_quantile'],
    ['no reference log-probs with a KL term', { refLogProbs: undefined }, 'ARCHER_E_SHAPE', 'ref_log_probs'],
  ])('%s is named', async (_, change, code, words) => {
    await expect(fusedLoss({ ...fused, ...change })).rejects.toMatchObject({ code, message: expect.stringContaining(words) });
  });
});
