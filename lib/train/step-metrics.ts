// The metrics of one step from what the step made; the formulas are lib/algorithm/metrics.ts.
import { groupKind } from '../algorithm/group-filter.js';
import { lengthMetrics, type Metrics, rewardMetrics, spread, updateMetrics } from '../algorithm/metrics.js';
import type { Collected } from './collect.js';
import type { Sample } from './types.js';
import type { UpdateResult } from './update.js';

export interface StepResult {
  step: number;
  epoch: number;
  collected: Collected;
  samples: Sample[];
  update: UpdateResult;
  lr: number;
  hasReference: boolean;
  recomputedOldLogProbs: boolean;
}

export function stepMetrics(result: StepResult): Metrics {
  const { step, epoch, collected, samples, update, lr, hasReference, recomputedOldLogProbs } = result;
  const groups = collected.sampled.map((group) => {
    const scores = group.verdicts.map((verdict) => verdict.score);
    const outcomes = group.verdicts.map((verdict) => verdict.outcome);
    return { scores, rewards: group.rewards, outcomes, kind: groupKind(scores) };
  });
  const responses = collected.sampled.flatMap((group) =>
    group.responses.map((response, i) => ({
      promptLength: group.prompt.ids.length,
      length: response.ids.length,
      text: response.text,
      truncated: response.finish === 'length',
      right: group.verdicts[i]?.outcome === 'ok',
    })),
  );
  return {
    'training/global_step': step,
    'training/epoch': epoch,
    'training/old_log_prob_recomputed': recomputedOldLogProbs ? 1 : 0,
    ...updateMetrics({ ...update, updates: update.miniBatches, lr, hasReference }),
    ...rewardMetrics(groups),
    ...spread('critic/advantages', samples.map((sample) => sample.advantage)),
    'batch/sampled_groups': collected.sampled.length,
    'batch/kept_groups': collected.kept.length,
    'batch/gen_batches': collected.numGenBatches,
    ...lengthMetrics(responses),
    'perf/total_num_tokens': responses.reduce((sum, { promptLength, length }) => sum + promptLength + length, 0),
  };
}
