// Self-test of the built-in verifiers on cases whose verdict is beyond doubt, before anybody's data is involved. The
// verifier of programs has its own (code/check.ts).
import { ArcherError } from '../errors.js';
import type { Outcome } from './types.js';
import { builtinVerifiers } from './verifiers.js';

type KnownCase = [groundTruth: string, response: string, outcome: Outcome];

const knownCases: Record<keyof typeof builtinVerifiers, KnownCase[]> = {
  math: [
    ['\\frac{1}{2}', 'So it is \\boxed{0.5}.', 'ok'],
    ['x^2+2x+1', '\\boxed{(x+1)^2}', 'ok'],
    ['\\frac{1}{2}', 'So it is \\boxed{0.6}.', 'wrong'],
    ['7', 'First \\boxed{7}, no: \\boxed{8}', 'wrong'],
    ['7', '\\boxed{7', 'parse_error'],
  ],
  numeric: [
    ['1234', 'That makes 1,234.', 'ok'],
    ['1234', 'That makes 1,235.', 'wrong'],
    ['1234', 'I do not know.', 'parse_error'],
  ],
  exact: [
    ['blue', 'Answer: blue', 'ok'],
    ['blue', 'Answer: Blue', 'wrong'],
    ['blue', ' ', 'parse_error'],
  ],
};

/**
 * @returns what was tried, such as "math 5, exact 3"
 * @throws ArcherError ARCHER_E_REWARD naming the case that came out otherwise
 */
export function testVerifiers(): string {
  const names = Object.keys(knownCases) as (keyof typeof knownCases)[];
  for (const name of names) {
    for (const [groundTruth, response, outcome] of knownCases[name]) {
      const verdict = builtinVerifiers[name]({ prompt: '', response, groundTruth, extraInfo: {}, dataSource: '' });
      if (verdict.outcome === outcome && verdict.score === (outcome === 'ok' ? 1 : 0)) continue;
      throw new ArcherError(
        'ARCHER_E_REWARD',
        `The verifier ${name} calls ${JSON.stringify(response)} against ${JSON.stringify(groundTruth)} ` +
          `${verdict.outcome} (${verdict.score}), and it is ${outcome}.`,
      );
    }
  }
  return names.map((name) => `${name} ${knownCases[name].length}`).join(', ');
}
