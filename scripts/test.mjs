// `npm test`: compiles and type-checks, builds the addon with its tests, runs CTest and Jest, and ends with one line
// "N passed, N failed[, N skipped]": Jest tests plus CTest executables. Whatever breaks (a compiler, a crashed runner)
// counts as failed.
//   npm test                          everything
//   npm test -- test/unit/filter      Jest alone, with these arguments
//   npm test -- native/tests/loss     the CTest executables whose path begins so
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { buildFolder, buildNative } from './build-native.mjs';
import { buildTs } from './build-ts.mjs';
import { isMain, log, packageRoot, readJson, run, runMain, SetupError } from './tools.mjs';

const total = { passed: 0, failed: 0, skipped: 0 };
const failures = [];
const skips = [];

function fail(what) {
  total.failed += 1;
  failures.push(what);
}

function packageFolder(name) {
  try {
    return dirname(createRequire(join(packageRoot, 'package.json')).resolve(`${name}/package.json`));
  } catch {
    throw new SetupError(`${name} is not installed. Run \`npm ci\` without --omit=dev.`);
  }
}

async function checkTypes() {
  const status = await run(
    process.execPath,
    [join(packageFolder('typescript'), 'bin', 'tsc'), '-p', 'tsconfig.json', '--noEmit'],
    { cwd: packageRoot },
  );
  if (status !== 0) fail('types: tsc -p tsconfig.json --noEmit');
}

async function compile(options, withTs = true) {
  try {
    if (withTs && (await buildTs()) !== 0) fail('dist/: tsc -p tsconfig.build.json');
    await buildNative(options);
  } catch (error) {
    if (error.name !== 'SetupError') throw error;
    log(error.message);
    fail('the native build');
  }
}

/** Every test of a CTest JUnit file: { name, status, text }. */
export function parseJUnit(xml) {
  const plain = (text) =>
    text
      .replace(/&lt;/g, '<')
      .replace(/&gt;/g, '>')
      .replace(/&quot;/g, '"')
      .replace(/&apos;/g, "'")
      .replace(/&amp;/g, '&');
  return [...xml.matchAll(/<testcase name="([^"]*)"[^>]*status="([^"]*)"[^>]*?(?:\/>|>([\s\S]*?)<\/testcase>)/g)].map(
    ([, name, status, body]) => ({
      name: plain(name),
      status,
      text: plain(/<system-out>([\s\S]*?)<\/system-out>/.exec(body ?? '')?.[1] ?? ''),
    }),
  );
}

/** Names of the CTest executables whose path begins with one of these; all of them without any. */
function nativeTests(paths) {
  const names = readdirSync(join(packageRoot, 'native', 'tests'))
    .filter((name) => name.endsWith('.cpp'))
    .map((name) => name.slice(0, -4));
  const prefixes = paths.map((path) => path.replace(/^.*native\/(tests\/?)?/, '').replace(/\.cpp$/, ''));
  return names.filter((name) => prefixes.some((prefix) => name.startsWith(prefix)));
}

async function runCTest(names, folder) {
  const report = join(folder, 'ctest.xml');
  const filter = names === undefined ? [] : ['-R', `^(${names.join('|')})$`];
  const jobs = String(Math.max(1, Math.floor(availableParallelism() / 2))); // each may use two threads
  const args = [
    '--test-dir',
    buildFolder,
    '--output-junit',
    report,
    '--output-on-failure',
    '--timeout',
    '600',
    '-j',
    jobs,
    ...filter,
  ];
  const status = await run('ctest', args, { env: { ...process.env, CTEST_OUTPUT_ON_FAILURE: '1' } });
  const tests = existsSync(report) ? parseJUnit(readFileSync(report, 'utf8')) : [];
  for (const { name, status: outcome, text } of tests) {
    if (outcome === 'run') total.passed += 1;
    else if (outcome === 'notrun' && /skip/i.test(text)) {
      total.skipped += 1;
      skips.push(`native/tests/${name}: ${text.trim().split('\n').at(-1)}`);
    } else fail(`native/tests/${name}`);
  }
  const failed = tests.some((test) => test.status !== 'run');
  if (tests.length === 0) fail('CTest ran no test');
  else if (status !== 0 && !failed) fail(`CTest ended with status ${status}`);
}

async function runJest(args, folder) {
  const report = join(folder, 'jest.json');
  const env = {
    ...process.env,
    NODE_OPTIONS:
      `${process.env.NODE_OPTIONS ?? ''} --experimental-vm-modules --disable-warning=ExperimentalWarning`.trim(),
  };
  const jest = join(packageFolder('jest'), 'bin', 'jest.js');
  const status = await run(process.execPath, [jest, '--json', `--outputFile=${report}`, ...args], {
    cwd: packageRoot,
    env,
    stdio: ['inherit', 'ignore', 'inherit'], // with --json, what people read goes to stderr
  });
  if (!existsSync(report)) {
    fail(`Jest ended with status ${status} before it could report`);
    return;
  }
  const result = readJson(report);
  total.passed += result.numPassedTests;
  total.skipped += result.numPendingTests + result.numTodoTests;
  const before = total.failed;
  for (const suite of result.testResults) {
    const path = suite.name.replace(`${packageRoot}/`, '');
    const failed = suite.assertionResults.filter((test) => test.status === 'failed');
    for (const test of failed) fail(`${path}: ${test.fullName}`);
    if (suite.status === 'failed' && failed.length === 0) fail(`${path}: ${suite.message.trim().split('\n')[0]}`);
    for (const test of suite.assertionResults) {
      if (test.status === 'pending' || test.status === 'todo') skips.push(`${path}: ${test.fullName}`);
    }
  }
  if (total.failed === before && (status !== 0 || !result.success)) fail(`Jest ended with status ${status}`);
}

function summary() {
  const section = (title, lines) =>
    lines.length > 0 ? `\n${title}\n${lines.map((line) => `  ${line}\n`).join('')}` : '';
  const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : '';
  process.stdout.write(
    `${section('Skipped:', skips)}${section('Failed:', failures)}\n${total.passed} passed, ${total.failed} failed${skipped}\n`,
  );
  return total.failed === 0 && total.passed > 0 ? 0 : 1;
}

async function main(args) {
  const folder = mkdtempSync(join(tmpdir(), 'archer-test-'));
  try {
    if (args.length === 0) {
      await checkTypes();
      await compile({ tests: true });
      await runCTest(undefined, folder);
      await runJest([], folder);
    }
    const native = args.filter((arg) => /^(\.\/)?native\//.test(arg));
    if (native.length > 0) {
      const names = nativeTests(native);
      if (names.length === 0) throw new SetupError(`${native.join(', ')} names no test of native/tests.`);
      await compile({ tests: true, targets: names }, false);
      await runCTest(names, folder);
    }
    const jest = args.filter((arg) => !native.includes(arg));
    if (jest.length > 0) {
      const paths = jest.filter((arg) => !arg.startsWith('-'));
      const needsBuild = paths.length === 0 || paths.some((path) => !/^(\.\/)?test\/unit\b/.test(path));
      if (needsBuild) await compile({});
      await runJest(jest, folder);
    }
    return summary();
  } catch (error) {
    log(error?.name === 'SetupError' ? error.message : error?.stack);
    fail('the test run itself');
    return summary();
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (isMain(import.meta.url)) await runMain(main);
