// The code verifier's own test, for `doctor`: right and wrong programs of every kind of test, and programs that misbehave.

import { ArcherError } from '../../errors.js';
import { type CodeOptions, createCodeVerifier } from '../code.js';
import type { Outcome } from '../types.js';

const prints = JSON.stringify({ inputs: ['2 3'], outputs: ['5'] });
const calls = JSON.stringify({ inputs: ['2\n3'], outputs: ['5'], fn_name: 'add' });
const asserts = 'assert add(2, 3) == 5';

/** What every level of isolation guarantees. */
const cases: [groundTruth: string, program: string, outcome: Outcome][] = [
  [prints, 'print(sum(map(int, input().split())))', 'ok'],
  [prints, 'print(6)', 'wrong'],
  [calls, 'def add(a, b): return a + b', 'ok'],
  [calls, 'def add(a, b): return a - b', 'wrong'],
  [asserts, 'def add(a, b): return a + b', 'ok'],
  [asserts, 'import os\nos._exit(0)', 'wrong'],
  [prints, 'while True: pass', 'timeout'],
  [prints, 'print("x" * 10**6)', 'crash'],
  [prints, 'bytearray(10**11)', 'crash'],
];

/**
 * What isolates programs here, in a line.
 *
 * @throws ArcherError ARCHER_E_REWARD naming the program that came out otherwise than it must.
 */
export async function checkCodeVerifier(options: Partial<CodeOptions>): Promise<string> {
  const { sandbox, verify } = await createCodeVerifier({ ...options, testSeconds: 2 });
  for (const [groundTruth, program, wanted] of cases) {
    const response = `\`\`\`python\n${program}\n\`\`\``;
    const verdict = await verify({ prompt: '', response, groundTruth, extraInfo: {}, dataSource: '' });
    if (verdict.outcome !== wanted) {
      throw new ArcherError(
        'ARCHER_E_REWARD',
        `Under ${sandbox.description} the program ${JSON.stringify(program)} is ${verdict.outcome} (${verdict.message}), not ${wanted}.`,
      );
    }
  }
  return `${sandbox.description}; ${cases.length} programs judged as they must be`;
}
