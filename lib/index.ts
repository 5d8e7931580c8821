// The public API of archer-native, and nothing else. docs/native-api.md and docs/configuration.md describe it.
export { type ConfigInput, type LoadedConfig, loadConfig, type ResolvedConfig } from './config/index.js';
export type { ChatMessage, Row } from './data/types.js';
export { ArcherError, type ErrorCode, errorCodes, isArcherError } from './errors.js';
export type { MetricsSink, RunEnd, RunInfo, StepRecord } from './metrics/sink.js';
export { buildInfo, memoryStats } from './native/engine.js';
export { type FusedLossInput, fusedLoss, type LossInput, type TokenLossInput, tokenLoss } from './native/loss.js';
export type { ClassSums, ComputeDtype, Denominators, FinishReason, LossResult, LossSums } from './native/types.js';
export type { Outcome, RewardFunction, RewardInput, RewardResult, Verdict } from './reward/types.js';
export { type GenerateOptions, Policy, type PolicyOptions } from './rollout/policy.js';
export type { TextPiece } from './rollout/text-stream.js';
export type { Response } from './rollout/types.js';
export type { MemoryPlan } from './train/memory-plan.js';
export { type TrainOptions, TrainingRun, train } from './train/run.js';
