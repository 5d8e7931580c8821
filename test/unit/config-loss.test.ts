// The configuration's words to the native loss, through a file's configuration and through the public API.

import { describe, expect, test } from '@jest/globals';
import {
  loadConfig,
  lossOptions,
  needsReference,
  resolveLossOptions,
  type ConfigInput,
} from '../../lib/config/index.js';

const optionsOf = (object: ConfigInput) => lossOptions(loadConfig({ object }).config);

const archerPaper = {
  tokenEntropyQuantile: 0.8,
  entropyTie: 'ge',
  entropySource: 'rollout',
  entropyScope: 'response',
  knowledgeClipLow: 0.2,
  knowledgeClipHigh: 0.2,
  reasoningClipLow: 0.5,
  reasoningClipHigh: 0.5,
  clipRatioC: 0,
  knowledgeKlCoef: 0.001,
  reasoningKlCoef: 0,
  klLossType: 'k3',
  lossAggMode: 'token-mean',
  klNormalizer: 'shared',
  lossNormLength: 8192,
  entropyCoeff: 0,
  temperature: 1,
  chunkTokens: 0,
};
const archerReference = {
  ...archerPaper,
  entropyTie: 'gt',
  entropySource: 'current',
  clipRatioC: 10,
  lossAggMode: 'seq-mean-token-mean',
  klNormalizer: 'per-class',
};
const uniform = (low: number, high: number, beta: number) => ({
  knowledgeClipLow: low,
  knowledgeClipHigh: high,
  reasoningClipLow: low,
  reasoningClipHigh: high,
  knowledgeKlCoef: beta,
  reasoningKlCoef: beta,
  clipRatioC: 0,
});

describe('presets as native options', () => {
  test('archer, paper and reference', () => {
    expect(optionsOf({})).toEqual(archerPaper);
    expect(optionsOf({ algorithm: { fidelity: 'reference' } })).toEqual(archerReference);
  });

  test.each([
    ['grpo', { ...uniform(0.2, 0.2, 0.001), lossAggMode: 'seq-mean-token-mean', klLossType: 'k3' }],
    ['dapo', { ...uniform(0.2, 0.28, 0), lossAggMode: 'token-mean' }],
    ['dr_grpo', { ...uniform(0.2, 0.2, 0), lossAggMode: 'seq-mean-token-sum-norm', lossNormLength: 8192 }],
  ] as const)('%s treats both classes alike', (name, expected) => {
    expect(optionsOf({ algorithm: { name } })).toMatchObject(expected);
  });

  test('single keys reach their place', () => {
    const set = optionsOf({
      rollout: { temperature: 0.7 },
      actor: {
        high_entropy_clip_ratio_low: 0.4,
        high_entropy_kl_loss_coef: 0.3,
        kl_loss_type: 'k3+',
        loss_norm_length: 77,
      },
    });
    expect(set).toMatchObject({
      temperature: 0.7,
      reasoningClipLow: 0.4,
      reasoningKlCoef: 0.3,
      klLossType: 'k3+',
      lossNormLength: 77,
    });
  });

  test('the reference model is needed only where a KL coefficient is not 0', () => {
    const needs = (object: ConfigInput) => needsReference(loadConfig({ object }).config);
    expect([needs({}), needs({ algorithm: { name: 'grpo' } }), needs({ algorithm: { name: 'dapo' } })]).toEqual([
      true,
      true,
      false,
    ]);
    expect(needs({ actor: { low_entropy_kl_loss_coef: 0 } })).toBe(false);
  });
});

describe('resolveLossOptions', () => {
  test('nothing is archer as the paper says it; the words are those of the actor section', () => {
    expect(resolveLossOptions()).toEqual(archerPaper);
    expect(resolveLossOptions({ fidelity: 'reference' })).toEqual(archerReference);
    expect(
      resolveLossOptions({ algorithm: 'dapo', temperature: 0.5, clip_ratio_high: 0.3, chunk_tokens: 7 }),
    ).toMatchObject({
      reasoningClipHigh: 0.3,
      temperature: 0.5,
      chunkTokens: 7,
    });
    expect(resolveLossOptions({ algorithm: 'grpo', beta: 0.04 } as object).knowledgeKlCoef).toBe(0.04);
  });

  test.each([
    [{ clip_ratio_hihg: 1 }, /unknown loss option clip_ratio_hihg: did you mean clip_ratio_high\?/],
    [{ ppo_epochs: 2 }, /unknown loss option ppo_epochs/],
    [{ token_entropy_quantile: 2 }, /actor\.token_entropy_quantile takes number ≥ 0 and ≤ 1, not 2/],
    [{ chunk_tokens: -1 }, /chunk_tokens takes integer ≥ 0, not -1/],
    [{ temperature: 0 }, /rollout\.temperature = 0/],
    [{ kl_normalizer: 'per-class' }, /seq-mean-token-mean/],
    [{ algorithm: 'dr_grpo' }, /needs loss_norm_length/],
  ])('%p', (input, message) => {
    expect(() => resolveLossOptions(input as object)).toThrow(
      expect.objectContaining({ code: 'ARCHER_E_CONFIG', message: expect.stringMatching(message) }),
    );
  });
});
