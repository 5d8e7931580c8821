// The loss options of the public API (fusedLoss, tokenLoss): the actor keys of the configuration without their section.

import { ArcherError } from '../errors.js';
import type { NativeLossOptions } from '../native/types.js';
import { readObject, type Reading } from './entries.js';
import { lossOptions } from './loss-options.js';
import { aliases, nearest } from './names.js';
import type { Input } from './option.js';
import { resolve, show } from './resolve.js';
import { lossOptionKeys, type AlgorithmName } from './schema-actor.js';

/** Every key optional; what is left out comes from the preset of `algorithm` and `fidelity`. */
export interface LossInput extends Input<typeof lossOptionKeys> {
  /** Default archer. */
  algorithm?: AlgorithmName;
  /** Default paper. */
  fidelity?: 'paper' | 'reference';
  /** Divides the logits; default 1. */
  temperature?: number;
  /** Rows of logits that exist at once; default 0: chosen from the vocabulary's size. */
  chunk_tokens?: number;
}

const ownWords = ['algorithm', 'fidelity', 'temperature', 'chunk_tokens'];
const aliasWords = [...aliases]
  .filter(([path, { key }]) => !path.includes('.') && Object.hasOwn(lossOptionKeys, key.replace('actor.', '')))
  .map(([path]) => path);
const words = new Set([...ownWords, ...Object.keys(lossOptionKeys), ...aliasWords]);

/**
 * Completes and checks the options of the loss.
 * @throws ArcherError ARCHER_E_CONFIG for an unknown key, a value out of range, or a combination that makes no sense.
 */
export function resolveLossOptions(input: LossInput = {}): NativeLossOptions {
  const { algorithm, fidelity, temperature, chunk_tokens: chunkTokens = 0, ...actor } = input;
  const reading: Reading = { entries: [], problems: [] };
  for (const word of Object.keys(input)) {
    if (words.has(word)) continue;
    const guess = nearest(word, words);
    reading.problems.push(`unknown loss option ${word}${guess === undefined ? '' : `: did you mean ${guess}?`}`);
    delete (actor as Record<string, unknown>)[word];
  }
  if (!Number.isSafeInteger(chunkTokens) || chunkTokens < 0) {
    reading.problems.push(`chunk_tokens takes integer ≥ 0, not ${show(chunkTokens)}.`);
  }
  readObject({ algorithm: { name: algorithm, fidelity }, rollout: { temperature }, actor }, reading);
  const { config } = resolve(reading);
  if (config.actor.loss_agg_mode === 'seq-mean-token-sum-norm' && config.actor.loss_norm_length === 0) {
    throw new ArcherError(
      'ARCHER_E_CONFIG',
      'loss_agg_mode = seq-mean-token-sum-norm needs loss_norm_length, in tokens.',
    );
  }
  return { ...lossOptions(config), chunkTokens };
}
