// The data of one training step, in the order in which it comes into being:
// prompts -> scored groups -> samples with advantages and old/reference log-probs -> mini-batches -> one StepRecord.
import type { Row } from '../data/types.js';
import type { RewardInput, Verdict } from '../reward/types.js';
import type { EncodedPrompt, Response, ResponseGroup } from '../rollout/types.js';

/** A row of the data set that a model is asked. */
export interface Problem {
  /** Row of the data set; also the key of its random numbers. */
  promptKey: number;
  row: Row;
  /** The last user message; what a reward function sees as the prompt. */
  text: string;
}

/** A prompt of the data set, encoded. */
export interface TrainPrompt extends EncodedPrompt, Problem {}

/** What a verifier is asked about one response. */
export function rewardInput(prompt: Problem, response: Pick<Response, 'text'>): RewardInput {
  const { groundTruth, extraInfo, dataSource } = prompt.row;
  return { prompt: prompt.text, response: response.text, groundTruth, extraInfo, dataSource };
}

/** A group with the verifier's verdict on every response. */
export interface ScoredGroup extends ResponseGroup<TrainPrompt> {
  verdicts: Verdict[];
  /** What the advantages are computed from: the verdicts' scores, with the overlong penalty where it is on. */
  rewards: number[];
}

/** One response as the update sees it. Arrays are over the response tokens. */
export interface Sample {
  /** Index of its group among the kept groups of the step. */
  group: number;
  prompt: TrainPrompt;
  response: Response;
  advantage: number;
  /** false: truncated and masked; it counts as a response without loss tokens. */
  inLoss: boolean;
  oldLogProbs: Float32Array;
  oldEntropies: Float32Array;
  refLogProbs?: Float32Array;
}
