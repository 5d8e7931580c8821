// The built-in verifiers by name, and which of them judges a row when the configuration names none.
//
// | data source                        | verifier | why                                                        |
// | contains gsm8k, or is arithmetic/* | numeric  | whole numbers and decimals; the last number counts         |
// | code sets (codecontests, taco, …) | code     | programs, run against the tests of the ground truth        |
// | anything else                      | math     | \boxed{} answers; also reads plain numbers, words, letters |

import { verifyExact } from './exact.js';
import { verifyMath } from './math.js';
import { verifyNumeric } from './numeric.js';
import type { RewardInput, Verdict } from './types.js';

/** A verifier without a program to run: synchronous, bounded, and the same verdict for the same input everywhere. */
export type Verifier = (input: RewardInput) => Verdict;

export const builtinVerifiers = {
  math: verifyMath,
  numeric: verifyNumeric,
  exact: verifyExact,
} as const satisfies Record<string, Verifier>;

/** `code` runs programs and is made by createCodeVerifier; the others are functions. */
export type VerifierName = keyof typeof builtinVerifiers | 'code';

export const verifierNames: readonly VerifierName[] = [...(Object.keys(builtinVerifiers) as VerifierName[]), 'code'];

const numericSources = /gsm8k|^arithmetic(\/|$)/i;

const codeSources =
  /(^|\/)(apps|taco|codeforces|lcb|code)($|[/_-])|code_?contests|livecodebench|humaneval|mbpp|leetcode|kodcode/i;

/** Programming tasks first: judging them as mathematics would reward none. */
export function verifierForSource(dataSource: string): VerifierName {
  if (codeSources.test(dataSource)) return 'code';
  return numericSources.test(dataSource) ? 'numeric' : 'math';
}
