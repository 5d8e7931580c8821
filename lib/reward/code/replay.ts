// A program that knows its tests by heart: what the self-test holds against a row that has tests and no reference solution.
// It shows that the ground truth is understood, that programs run here, and that the right output is accepted.

import { type CallTest, parseTests, type StdinTest } from './tests.js';

const maxCharacters = 500_000;

/**
 * Undefined for test code, which nothing but a real solution passes, and for tests too long to learn by heart.
 *
 * @throws TestsError for a ground truth that is not understood.
 */
export function replayProgram(groundTruth: string | string[], extraInfo: Record<string, unknown>): string | undefined {
  const tests = parseTests(groundTruth, extraInfo);
  const code = tests.every((test) => test.kind === 'stdin')
    ? replayOutput(tests as StdinTest[])
    : tests.every((test) => test.kind === 'call')
      ? replayCalls(tests as CallTest[])
      : undefined;
  return code !== undefined && code.length <= maxCharacters ? code : undefined;
}

function replayOutput(tests: StdinTest[]): string {
  const known = literal(tests.map(({ input, output }) => [input, output]));
  return `import json, sys\nsys.stdout.write(dict(json.loads(${known}))[sys.stdin.read()])`;
}

function replayCalls(tests: CallTest[]): string {
  const known = literal(tests.map(({ args, output }) => [`[${args.join(',')}]`, output]));
  const name = (tests[0] as CallTest).name;
  return [
    'import json',
    `known = {json.dumps(json.loads(args)): value for args, value in json.loads(${known})}`,
    `def ${name}(*args):`,
    '    return json.loads(known[json.dumps(args)])',
  ].join('\n');
}

/** JSON text as a string literal, which Python reads as JavaScript does. */
const literal = (value: unknown) => JSON.stringify(JSON.stringify(value));
