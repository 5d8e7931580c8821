// The built-in verifiers by name, and which of them judges a row when the configuration names none.
//
// | data source                        | verifier | why                                                        |
// | contains gsm8k, or is arithmetic/* | numeric  | whole numbers and decimals; the last number counts         |
// | code sets (codecontests, taco, …) | error    | no built-in verifier judges programs in this version       |
// | anything else                      | math     | \boxed{} answers; also reads plain numbers, words, letters |

import { ArcherError } from '../errors.js';
import { verifyExact } from './exact.js';
import { verifyMath } from './math.js';
import { verifyNumeric } from './numeric.js';
import type { RewardInput, Verdict } from './types.js';

/** A built-in verifier: synchronous, bounded, and the same verdict for the same input everywhere. */
export type Verifier = (input: RewardInput) => Verdict;

export const builtinVerifiers = {
  math: verifyMath,
  numeric: verifyNumeric,
  exact: verifyExact,
} as const satisfies Record<string, Verifier>;

export type VerifierName = keyof typeof builtinVerifiers;

const numericSources = /gsm8k|^arithmetic(\/|$)/i;

const codeSources = /^(codecontests|apps|codeforces|taco)$|livecodebench|humaneval|mbpp|leetcode/i;

/** @throws ArcherError ARCHER_E_REWARD for a source of programming tasks: judging them as mathematics would reward none. */
export function verifierForSource(dataSource: string): VerifierName {
  if (codeSources.test(dataSource)) {
    throw new ArcherError(
      'ARCHER_E_REWARD',
      `The data source "${dataSource}" holds programming tasks, and no built-in verifier judges programs; set reward.path to a module that does.`,
    );
  }
  return numericSources.test(dataSource) ? 'numeric' : 'math';
}
