// The parts of the code verifier that run no program: where the answer is, what the tests are, when outputs are equal.
import { deflateSync } from 'node:zlib';
import { describe, expect, test } from '@jest/globals';
import { findCode } from '../../lib/reward/code/answer.js';
import { sameOutput } from '../../lib/reward/code/output.js';
import { parseTests } from '../../lib/reward/code/tests.js';
import { equalValues, parseJson } from '../../lib/reward/code/wire.js';
import { verifierForSource } from '../../lib/reward/verifiers.js';

describe('the program of a response', () => {
  test.each([
    ['the last block marked as Python', '```python\na\n```\n```python\nb\n```', 'b'],
    ['before a later block of something else', '```py\na\n```\nIt prints\n```\n5\n```', 'a'],
    ['the last block where none is marked', '```\na\n```\n```text\nb\n```', 'b'],
    ['after </think>', '<think>```python\na\n```</think>```python\nb\n```', 'b'],
    ['tildes, long fences with fences inside', '~~~~python\na = """\n```\n~~~\n"""\n~~~~', 'a = """\n```\n~~~\n"""'],
    ['indented in a list', '1. so:\n   ```python\n   if x:\n     y\n   ```', 'if x:\n  y'],
    ['a mark behind words', 'The code: ```python\na\n```', 'a'],
    ['CRLF', '```python\r\na\r\n```\r\n', 'a'],
  ])('%s', (_name, response, code) => expect(findCode(response)).toEqual({ code }));

  test.each([
    ['no block at all', 'print(5)', /no code block/],
    ['cut before its end', '```python\na\n```\nBetter:\n```python\nb', /not closed/],
    ['only in the thinking', '<think>```python\na\n```</think>print(5)', /no code block/],
    ['empty', '```python\n\n```', /empty/],
  ])('none: %s', (_name, response, why) => expect(findCode(response)).toEqual({ missing: expect.stringMatching(why) }));
});

test.each([
  ['a long line', 'a'.repeat(10 ** 6)],
  ['a line of back-ticks', `x${'`'.repeat(10 ** 6)}z`],
  ['a fence that is none', `\`\`\`${'a'.repeat(10 ** 6)}\``],
  ['a fence of tildes that is none', `${'~'.repeat(10 ** 6)}\``],
  ['a fence with blanks that is none', `\`\`\`${' '.repeat(10 ** 6)}\``],
])('hostile text takes no time: %s', (_name, response) => {
  const start = performance.now();
  findCode(response);
  expect(performance.now() - start).toBeLessThan(1000);
});

describe('the tests of a ground truth', () => {
  const stdin = (input: string, output: string) => ({ kind: 'stdin', input, output });
  const call = (args: string[], output: string, wrapped: boolean) => ({
    kind: 'call',
    name: 'f',
    args,
    output,
    wrapped,
  });
  const pairs = JSON.stringify([{ input: '1', output: '2', testtype: 'stdin' }]);
  // zlib of the pickle of a string, protocol 4, as LiveCodeBench stores its private tests.
  const pickle = (text: string) => {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(Buffer.byteLength(text));
    return Buffer.concat([
      Buffer.from('80049500000000000000005800', 'hex').subarray(0, 12),
      length,
      Buffer.from(`${text}\x94.`, 'latin1'),
    ]);
  };
  const compressed = deflateSync(pickle(pairs)).toString('base64');

  test.each<[string, string | string[], Record<string, unknown>, unknown[]]>([
    ['inputs and outputs', '{"inputs":["1\\n"],"outputs":["2\\n"]}', {}, [stdin('1\n', '2\n')]],
    ['JSON text of JSON text', JSON.stringify('{"inputs":["1"],"outputs":["2"]}'), {}, [stdin('1', '2')]],
    ['lists of lines', '{"inputs":[["1","2"]],"outputs":[["3"]]}', {}, [stdin('1\n2', '3')]],
    ['fn_name null', '{"fn_name":null,"inputs":["1"],"outputs":["2"]}', {}, [stdin('1', '2')]],
    ['PRIME calls', '{"fn_name":"f","inputs":["[1]\\n2.0"],"outputs":["3"]}', {}, [call(['[1]', '2.0'], '3', true)]],
    ['APPS calls', '{"fn_name":"f","inputs":[[1,"a"]],"outputs":[["b"]]}', {}, [call(['1', '"a"'], '["b"]', true)]],
    [
      'LiveCodeBench calls',
      '[{"input":"1\\n[2]","output":"3","testtype":"functional","metadata":{"func_name":"f"}}]',
      {},
      [call(['1', '[2]'], '3', false)],
    ],
    [
      'func_name beside the tests',
      '[{"input":"1","output":"3","testtype":"functional"}]',
      { metadata: '{"func_name":"f"}' },
      [call(['1'], '3', false)],
    ],
    ['compressed', compressed, {}, [stdin('1', '2')]],
    [
      'public and private',
      JSON.stringify({ public_test_cases: pairs, private_test_cases: compressed }),
      {},
      [stdin('1', '2'), stdin('1', '2')],
    ],
    [
      'a list of asserts',
      ['assert f(1) == 2', 'assert f(2) == 3'],
      {},
      [{ kind: 'assert', code: 'assert f(1) == 2\nassert f(2) == 3' }],
    ],
    ['functional', '{"functional":"assert f(1) == 2"}', {}, [{ kind: 'assert', code: 'assert f(1) == 2' }]],
    [
      'MBPP',
      '{"test_list":["assert f(1) == 2"],"test_setup_code":"import math"}',
      {},
      [{ kind: 'assert', code: 'import math\nassert f(1) == 2' }],
    ],
    [
      'HumanEval',
      'def check(candidate):\n    assert candidate(1) == 2\n',
      { entry_point: 'f' },
      [{ kind: 'assert', code: 'def check(candidate):\n    assert candidate(1) == 2\n', entryPoint: 'f' }],
    ],
  ])('%s', (_name, truth, extra, tests) => {
    expect(
      parseTests(truth, extra).map((one) =>
        one.kind === 'assert' ? { ...one, code: one.code.replace(/^\n/, '') } : one,
      ),
    ).toEqual(tests);
  });

  test.each<[string, string | string[], RegExp]>([
    ['', '', /no tests/],
    ['no tests', '{"inputs":[],"outputs":[]}', /no tests/],
    ['counts that differ', '{"inputs":["1"],"outputs":[]}', /1 inputs and 0 outputs/],
    ['foreign fields', '{"answer":5}', /the fields answer/],
    ['an argument that is no JSON', '{"fn_name":"f","inputs":["a b"],"outputs":["1"]}', /"a b" .* no JSON value/],
    ['a call of nothing', '[{"input":"1","output":"2","testtype":"functional"}]', /func_name is missing/],
    ['check of nothing', 'def check(candidate):\n    pass\n', /entry_point/],
  ])('refused: %s', (_name, truth, why) => expect(() => parseTests(truth, {})).toThrow(why));
});

test('printed output: white space at the ends, numbers as numbers, nothing else', () => {
  const cases: [string, string, boolean][] = [
    ['1 2 \n3\n\n', '1 2\n3', true],
    ['1  2', '1 2', true],
    ['0.3333333', '0.33333334', true],
    ['1e3', '1000', true],
    ['0.33', '0.3333', false],
    ['12345678901234567891', '12345678901234567890', false],
    ['01', '1', false],
    ['YES', 'Yes', false],
    ['1\n\n2', '1\n2', false],
    ['', '1', false],
    ['nan', 'nan', true],
    ['1 2', '1', false],
    ['7.0', '7', true],
    ['2.9999999', '3', true],
    ['1000000000.5', '1000000007', false],
    ['12345678901234567891.0', '12345678901234567890', false],
    ['1000000.5', '1000000.1', true],
  ];
  expect(cases.map(([output, expected]) => sameOutput(output, expected))).toEqual(cases.map(([, , same]) => same));
});

test('returned values: as Python compares them, tuples as lists', () => {
  const cases: [unknown, string, boolean][] = [
    [{ tuple: [1, [2]] }, '[1, [2]]', true],
    [1, 'true', true],
    [1, '1.0', true],
    [0.1 + 0.2, '0.3', true],
    [{ int: '0x18ee90ff6c373e0ee4e3f0ad2' }, '123456789012345678901234567890', true],
    [{ int: '0x18ee90ff6c373e0ee4e3f0ad3' }, '123456789012345678901234567890', false],
    [
      {
        dict: [
          [1, 'a'],
          ['b', null],
        ],
      },
      '{"b": null, "1": "a"}',
      true,
    ],
    [{ dict: [[1, 'a']] }, '{"1": "a", "2": "b"}', false],
    [{ float: 'inf' }, 'Infinity', true],
    [{ float: 'nan' }, 'NaN', false],
    [{ set: [1] }, '[1]', false],
    [{ ref: 0 }, '1', false],
    ['1', '1', false],
    [null, '0', false],
    [undefined, 'null', false],
    ['a"1234567890123456789', '"a\\"1234567890123456789"', true],
    [[1], '[1, 2]', false],
    [1000000000.5, '1000000007', false],
    [1000000000.5, '1000000001.25', true],
    [1e20, '1e20', true],
  ];
  expect(cases.map(([value, expected]) => equalValues(value, parseJson(expected)))).toEqual(
    cases.map(([, , same]) => same),
  );
});

test.each([
  ['codecontests', 'code'],
  ['BAAI/TACO', 'code'],
  ['livecodebench/code_generation_lite', 'code'],
  ['openai_humaneval', 'code'],
  ['DigitalLearningGmbH/MATH-lighteval', 'math'],
  ['openai/gsm8k', 'numeric'],
  ['happs', 'math'],
])('%s is judged by %s', (source, name) => expect(verifierForSource(source)).toBe(name));
