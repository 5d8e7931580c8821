// A row's ground truth -> what to run. The shapes that verl's data sets use are understood:
//   { inputs, outputs }                       stdin and stdout; lists are lines
//   { inputs, outputs, fn_name }              calls; an input is a list of arguments, or text with one JSON value a line
//   [{ input, output, testtype, metadata }]   LiveCodeBench: stdin, or functional with metadata.func_name
//   { public_test_cases, private_test_cases } the same as LiveCodeBench ships it, compressed too
//   { functional }, { test, entry_point }, { test_list, test_setup_code }, { assert_case }, a list of asserts, bare
//   Python                                    test code that calls the answer's functions (HumanEval, MBPP, APPS+)
// each as an object or as its JSON text.

import { decompressTests } from './compressed.js';
import { parseJson } from './wire.js';

/** One program run: standard input, and what must be printed. */
export interface StdinTest {
  kind: 'stdin';
  input: string;
  output: string;
}

/** One call of one function. */
export interface CallTest {
  kind: 'call';
  name: string;
  /** Every argument as JSON text. */
  args: string[];
  /** What must be returned, as JSON text. */
  output: string;
  /** APPS wraps a result in a list: [5] also accepts 5. */
  wrapped: boolean;
}

/** Test code that calls the answer; as one test. */
export interface AssertTest {
  kind: 'assert';
  code: string;
  /** The argument of the test code's own `check`, as in HumanEval. */
  entryPoint?: string;
}

export type CodeTest = StdinTest | CallTest | AssertTest;

/** The ground truth is not in a shape that is understood: a fault of the data, not of the answer. */
export class TestsError extends Error {}

type Fields = Record<string, unknown>;

/** @throws TestsError */
export function parseTests(groundTruth: string | string[], extraInfo: Fields): CodeTest[] {
  const truth = Array.isArray(groundTruth) && groundTruth.length === 1 ? (groundTruth[0] as string) : groundTruth;
  const tests = Array.isArray(truth) ? fromList(truth, extraInfo) : fromText(truth, extraInfo);
  if (tests.length === 0) throw new TestsError('the ground truth holds no tests');
  return tests;
}

function fromText(text: string, extra: Fields): CodeTest[] {
  const trimmed = text.trim();
  const json = /^[[{"]/.test(trimmed) ? jsonOf(trimmed) : jsonOf(decompressTests(trimmed) ?? '');
  if (json === undefined) return trimmed === '' ? [] : [assertTest(text, extra.entry_point)];
  if (typeof json === 'string') return fromText(json, extra);
  if (Array.isArray(json)) return fromList(json, extra);
  return isFields(json) ? fromFields(json, extra) : [];
}

function fromList(list: unknown[], extra: Fields): CodeTest[] {
  const entries = list.map((entry) => (typeof entry === 'string' ? (jsonOf(entry) ?? entry) : entry));
  if (entries.every((entry) => typeof entry === 'string')) {
    return entries.length === 0 ? [] : [assertTest(entries.join('\n'), extra.entry_point)];
  }
  return entries.map((entry, i) => {
    if (!isFields(entry) || typeof entry.output !== 'string') {
      throw new TestsError(`test ${i + 1} is no { input, output }`);
    }
    if (entry.testtype !== 'functional') return stdinTest(entry.input, entry.output);
    const metadata = [entry.metadata, extra.metadata, extra].map(fieldsOf);
    const name = metadata
      .flatMap((fields) => [fields.func_name, fields.fn_name])
      .find((value) => typeof value === 'string');
    if (typeof name !== 'string') {
      throw new TestsError(`test ${i + 1} is functional, and metadata.func_name is missing`);
    }
    return callTest(name, entry.input, entry.output, false);
  });
}

function fromFields(fields: Fields, extra: Fields): CodeTest[] {
  const { inputs, outputs, fn_name: fnName } = fields;
  const code = [fields.functional ?? fields.test ?? fields.assert_case ?? fields.test_list ?? ''].flat().join('\n');
  if (code.trim() !== '') {
    return [assertTest(`${fields.test_setup_code ?? ''}\n${code}`, fields.entry_point ?? extra.entry_point)];
  }
  if (fields.public_test_cases !== undefined || fields.private_test_cases !== undefined) {
    const both = [fields.public_test_cases, fields.private_test_cases].filter(
      (tests) => tests !== undefined && tests !== '',
    );
    const context = { ...extra, metadata: fields.metadata ?? extra.metadata };
    return both.flatMap((tests) =>
      Array.isArray(tests) ? fromList(tests, context) : fromText(String(tests), context),
    );
  }
  if (!Array.isArray(inputs) || !Array.isArray(outputs)) {
    throw new TestsError(
      `the ground truth has the fields ${Object.keys(fields).join(', ')}; inputs and outputs are missing`,
    );
  }
  if (inputs.length !== outputs.length) {
    throw new TestsError(`the ground truth has ${inputs.length} inputs and ${outputs.length} outputs`);
  }
  return inputs.map((input: unknown, i) => {
    const output: unknown = outputs[i];
    if (typeof fnName !== 'string' || fnName === '') return stdinTest(input, output);
    return callTest(fnName, input, output, true);
  });
}

function stdinTest(input: unknown, output: unknown): StdinTest {
  const text = (value: unknown) => (Array.isArray(value) ? value.join('\n') : String(value ?? ''));
  return { kind: 'stdin', input: text(input), output: text(output) };
}

/** Arguments as a list are values, and so is their output; as text both are JSON. */
function callTest(name: string, input: unknown, output: unknown, wrapped: boolean): CallTest {
  if (Array.isArray(input)) {
    const args = input.map((value) => JSON.stringify(value));
    return { kind: 'call', name, args, output: JSON.stringify(output), wrapped };
  }
  const args = String(input ?? '')
    .split('\n')
    .filter((line) => line.trim() !== '');
  const text = typeof output === 'string' ? output : JSON.stringify(output);
  for (const json of [...args, text]) checkJson(json);
  return { kind: 'call', name, args, output: text, wrapped };
}

function assertTest(code: string, entryPoint: unknown): AssertTest {
  const hasCheck = /^def check\(/m.test(code) && !/^check\(/m.test(code);
  if (!hasCheck) return { kind: 'assert', code };
  if (typeof entryPoint !== 'string' || !/^\w+$/.test(entryPoint)) {
    throw new TestsError('the tests define check(), and entry_point does not name the function to check');
  }
  return { kind: 'assert', code, entryPoint };
}

function checkJson(text: string): void {
  try {
    parseJson(text);
  } catch {
    throw new TestsError(`${JSON.stringify(text.slice(0, 80))} in the ground truth is no JSON value`);
  }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function fieldsOf(value: unknown): Fields {
  const plain = typeof value === 'string' ? jsonOf(value) : value;
  return isFields(plain) ? plain : {};
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
