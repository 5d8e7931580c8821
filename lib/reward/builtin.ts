// The built-in verifiers as a worker process runs them (worker.mjs).

import { type CodeOptions, type CodeVerifier, createCodeVerifier } from './code.js';
import { type MathOptions, verifyMath } from './math.js';
import type { RewardInput, Verdict } from './types.js';
import { builtinVerifiers, verifierForSource, type VerifierName } from './verifiers.js';

export interface BuiltinOptions {
  /** Without one each row's data source chooses. */
  name?: VerifierName | undefined;
  math?: Pick<MathOptions, 'mode'> | undefined;
  code?: Partial<CodeOptions> | undefined;
}

export type Judge = (input: RewardInput, stage: (text: string) => void) => Verdict | Promise<Verdict>;

/**
 * @param notice is told, once, what is less than python3 in bubblewrap.
 * @throws ArcherError ARCHER_E_REWARD when `code` is asked for and programs cannot be isolated here.
 */
export async function createBuiltin(
  { name, math, code }: BuiltinOptions,
  notice: (text: string) => void,
): Promise<Judge> {
  let verifier: Promise<CodeVerifier> | undefined;
  const codeVerifier = () => {
    verifier ??= createCodeVerifier(code).then((made) => {
      const { isolation, interpreter, description } = made.sandbox;
      if (isolation !== 'bubblewrap') notice(weaker(description));
      if (interpreter === 'pyodide') notice(inWebAssembly(description));
      return made;
    });
    return verifier;
  };
  if (name === 'code') await codeVerifier();
  return async (input, stage) => {
    const chosen = name ?? verifierForSource(input.dataSource);
    if (chosen === 'code') return (await codeVerifier()).verify(input, stage);
    return chosen === 'math' ? verifyMath(input, math) : builtinVerifiers[chosen](input);
  };
}

function weaker(description: string): string {
  return `Judged programs run under ${description}: weaker than bubblewrap, which is not installed or not allowed here (docs/code-verifier.md says what is not prevented).`;
}

function inWebAssembly(description: string): string {
  return `Judged programs run under ${description}: no concurrent threads, no subprocesses, no asyncio, and programs start and run several times slower than in python3 (docs/code-verifier.md).`;
}
