// What a reader holds against the paper: pure functions, no files, no addon.

export { groupAdvantages } from './advantage.js';
export { groupKind, keepsGroup, refillDecision } from './group-filter.js';
export { addSums, updateMetrics } from './loss-metrics.js';
export { lengthMetrics, rewardMetrics, spread, stepMetrics, type Metrics } from './metrics.js';
export { drawMiniBatches } from './mini-batches.js';
export { overlongPenalty } from './overlong.js';
export { packSequences } from './packing.js';
export { bootstrapIntervals, evaluationMetrics, majorityIndex, passAtK, reportedKs, type ProblemOutcome } from './pass-at-k.js';
export { keyedIndices, keyedOrder, keyedUniform, philox4x32 } from './philox.js';
export { repetitionRate } from './repetition.js';
export { learningRate, type Schedule } from './schedule.js';
