// Whatever a reward function returned -> a Verdict. Nothing that is not a finite number becomes a reward.

import { outcomes, type Outcome, type Verdict } from './types.js';

const maxText = 500;

/** A NaN, an infinity, a missing or foreign value is outcome `crash`, with a message that shows what came back. */
export function toVerdict(value: unknown): Verdict {
  if (typeof value === 'boolean') return { score: value ? 1 : 0, outcome: value ? 'ok' : 'wrong' };
  if (typeof value === 'number') return fromParts(value, undefined, {});
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    const parts = value as Partial<Verdict>;
    if (parts.outcome !== undefined && !outcomes.includes(parts.outcome)) {
      return crash(
        `the reward function returned the outcome ${JSON.stringify(parts.outcome)}; it may be ${outcomes.join(', ')}`,
      );
    }
    const score = parts.score ?? (parts.outcome === undefined ? undefined : parts.outcome === 'ok' ? 1 : 0);
    return fromParts(score, parts.outcome, parts);
  }
  return crash(`the reward function returned ${describe(value)}; it must return a number, a boolean or { score }`);
}

export function crash(message: string): Verdict {
  return { score: 0, outcome: 'crash', message: clip(message) };
}

export function timeout(seconds: number, note = ''): Verdict {
  return { score: 0, outcome: 'timeout', message: clip(`no verdict within ${seconds} s${note}`) };
}

function fromParts(value: unknown, outcome: Outcome | undefined, parts: Partial<Verdict>): Verdict {
  const score = typeof value === 'boolean' ? Number(value) : value;
  if (typeof score !== 'number' || !Number.isFinite(score)) {
    return crash(`the reward function returned the score ${describe(score)}; a score is a finite number`);
  }
  const verdict: Verdict = { score, outcome: outcome ?? (score > 0 ? 'ok' : 'wrong') };
  if (parts.extracted !== undefined) verdict.extracted = clip(String(parts.extracted));
  if (parts.detail !== undefined) verdict.detail = clip(String(parts.detail));
  if (parts.message !== undefined) verdict.message = clip(String(parts.message));
  return verdict;
}

function describe(value: unknown): string {
  if (value === undefined) return 'undefined (is a return missing?)';
  if (typeof value === 'string') return `the string ${JSON.stringify(value.slice(0, 40))}`;
  if (Array.isArray(value)) return 'a list';
  return typeof value === 'object' ? (value === null ? 'null' : 'an object') : String(value);
}

function clip(text: string): string {
  return text.length > maxText ? `${text.slice(0, maxText)}…` : text;
}
