// Builds the addon into native/build: checks the tools, finds libtorch, and runs cmake-js, which knows Node-API's
// headers without a network. The build is incremental; nothing at all is started where no source has changed.
//   node scripts/build-native.mjs [--tests] [--fresh] [--verbose] [--target <CMake target>]
// A build keeps its libtorch until it is told another one (ARCHER_LIBTORCH) or that one is gone; --fresh starts anew.
import { createHash } from 'node:crypto';
import { createWriteStream, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, totalmem } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { libtorchVersion, resolveLibtorch } from './libtorch.mjs';
import {
  atLeast,
  capture,
  isMain,
  log,
  Progress,
  packageRoot,
  parseVersion,
  readJson,
  run,
  runMain,
  SetupError,
  withLock,
} from './tools.mjs';

export const buildFolder = join(packageRoot, 'native', 'build');
export const addonPath = join(buildFolder, 'Release', 'archer_native.node');
const recordPath = join(buildFolder, 'archer-build.json');
const stampPath = join(buildFolder, 'configured.json');
const logPath = join(buildFolder, 'build.log');

function readRecord(path) {
  try {
    return readJson(path);
  } catch {
    return {};
  }
}

/** SHA-256 over the names and contents of everything that the build reads from this package. */
function fingerprint(withTests) {
  const hash = createHash('sha256');
  const add = (path) =>
    hash
      .update(`${path}\0`)
      .update(readFileSync(join(packageRoot, path)))
      .update('\0');
  const walk = (folder) => {
    for (const entry of readdirSync(join(packageRoot, folder), { withFileTypes: true }).sort((a, b) =>
      a.name < b.name ? -1 : 1,
    )) {
      const path = join(folder, entry.name);
      const forTests = path === join('native', 'tests') || path === join('native', 'bench');
      if (path === join('native', 'build') || (!withTests && forTests)) continue;
      if (entry.isDirectory()) walk(path);
      else if (entry.isFile()) add(path);
    }
  };
  walk('native');
  walk('cmake');
  add('CMakeLists.txt');
  add('package.json');
  return hash.digest('hex');
}

function checkPlatform() {
  const here = `${process.platform}-${process.arch}`;
  if (here !== 'linux-x64' && here !== 'linux-arm64') {
    throw new SetupError(
      `archer-native runs on Linux (x64; arm64 from source), not on ${here} yet. Use a Linux machine, container or WSL 2.`,
    );
  }
}

function checkLibc() {
  process.report.excludeNetwork = true;
  if (!process.report.getReport().header.glibcVersionRuntime) {
    throw new SetupError('libtorch needs glibc, and this Node runs on another C library (Alpine?). Use a glibc image.');
  }
}

/** The C++ compiler that CMake will take, with its version; every missing tool in one sentence. */
function checkTools(env) {
  const missing = [];
  const cmake = capture('cmake', ['--version']);
  if (!cmake) missing.push('CMake 3.22 or newer (cmake)');
  else if (!atLeast(parseVersion(cmake), [3, 22]))
    missing.push(`CMake 3.22 or newer (this one is ${parseVersion(cmake).join('.')})`);
  if (!capture('make', ['--version']) && !capture('ninja', ['--version'])) missing.push('make or ninja');
  const name = [env.CXX, 'c++', 'g++', 'clang++'].find((candidate) => candidate && capture(candidate, ['--version']));
  let compiler = '';
  if (!name) {
    missing.push('a C++20 compiler (g++ 12 or newer)');
  } else {
    const banner = capture(name, ['--version']).split('\n')[0];
    const isClang = banner.includes('clang');
    const version = parseVersion(capture(name, ['-dumpfullversion', '-dumpversion'])) ?? parseVersion(banner);
    const minimum = isClang ? [14, 0] : [12, 0];
    if (version && !atLeast(version, minimum))
      missing.push(`a C++20 compiler (g++ 12 or clang 14; ${name} is ${version.join('.')})`);
    compiler = banner;
  }
  if (missing.length > 0) {
    throw new SetupError(
      `Building needs ${missing.join(', ')}. On Debian or Ubuntu: apt-get install g++ cmake ninja-build. Then run it again.`,
    );
  }
  return compiler;
}

function cmakeJs() {
  try {
    const path = createRequire(join(packageRoot, 'package.json')).resolve('cmake-js/package.json');
    return join(dirname(path), 'bin', 'cmake-js');
  } catch {
    throw new SetupError(
      `cmake-js is not installed beside ${packageRoot}. Run \`npm ci\` (in a clone) or \`npm install archer-native\`.`,
    );
  }
}

/** The part of a build's output that says what failed first, without the lines of what succeeded. */
function failureLines(output) {
  const noise = /^\[\s*\d+(\/\d+|%)\]|^ninja: build stopped|^g?make|^ERROR OMG/;
  const lines = output.split('\n').filter((line) => line.trim() !== '' && !noise.test(line));
  const first = lines.findIndex((line) => /^FAILED:|error/i.test(line));
  return (first < 0 ? lines.slice(-60) : lines.slice(first, first + 60)).join('\n');
}

async function step(name, args, { verbose, showProgress }) {
  const file = createWriteStream(logPath, { flags: 'a' });
  const progress = new Progress('archer-native: compiling', 100);
  let output = '';
  const status = await run(process.execPath, [cmakeJs(), ...args], {
    cwd: packageRoot,
    // Relative paths make ccache's results good for every checkout and installation of the same sources.
    env: { CCACHE_BASEDIR: packageRoot, ...process.env, LC_ALL: 'C' },
    onData: (data) => {
      file.write(data);
      output += data;
      if (verbose) process.stderr.write(data);
      const counts = [...String(data).matchAll(/^\[\s*(\d+)(?:\/(\d+)|%)\]/gm)].at(-1);
      if (counts && showProgress && !verbose) progress.update((100 * Number(counts[1])) / Number(counts[2] ?? 100));
    },
  });
  progress.end();
  await new Promise((done) => file.end(done));
  if (status !== 0) {
    if (!verbose) process.stderr.write(`${failureLines(output)}\n`);
    throw new SetupError(`${name} failed (status ${status}). The whole output is in ${logPath}.`);
  }
}

function numJobs(env) {
  const asked = Number(env.CMAKE_BUILD_PARALLEL_LEVEL);
  // A translation unit that includes ATen takes up to 1.5 GB.
  return asked > 0 ? asked : Math.max(1, Math.min(availableParallelism(), Math.floor(totalmem() / 2e9)));
}

function clearBuildFolder() {
  if (!existsSync(buildFolder)) return;
  for (const entry of readdirSync(buildFolder)) {
    if (entry !== '.lock') rmSync(join(buildFolder, entry), { recursive: true, force: true });
  }
}

function namedLibtorch(env) {
  const named = env.ARCHER_LIBTORCH || env.LIBTORCH;
  return named ? resolve(named) : undefined;
}

/** True where the libtorch of the last build is still the one to use, and the same one. */
function keepsLibtorch(record, env) {
  const named = namedLibtorch(env);
  if (!record.libtorchRoot || (named && named !== record.libtorchNamed)) return false;
  const there = existsSync(join(record.libtorchRoot, 'lib', 'libtorch_cpu.so'));
  return there && (libtorchVersion(record.libtorchRoot) ?? 'unknown') === record.libtorchVersion;
}

/** True where the last build came from these very sources. */
function isCurrent(record, sources, tests, env) {
  const built = tests ? record.testSources : record.sources;
  return built === sources && existsSync(addonPath) && keepsLibtorch(record, env);
}

/**
 * Builds the addon, and with `tests` the CTest executables too; or only `targets`, names of CMake targets.
 * @param {{ tests?: boolean, targets?: string[], fresh?: boolean, verbose?: boolean, env?: object,
 *   say?: (line: string) => void }} options
 * @returns {Promise<{ addon: string, built: boolean, record: object }>} built: false when nothing had changed
 * @throws SetupError when a tool or libtorch is missing or the compiler fails
 */
export async function buildNative({
  tests = false,
  targets,
  fresh = false,
  verbose = false,
  env = process.env,
  say = log,
} = {}) {
  checkPlatform();
  const unchanged = () => {
    const record = readRecord(recordPath);
    return !fresh && !targets && isCurrent(record, fingerprint(tests), tests, env)
      ? { addon: addonPath, built: false, record }
      : undefined;
  };
  return (
    unchanged() ??
    (await withLock(
      join(buildFolder, '.lock'),
      async () => unchanged() ?? (await build({ tests, targets, fresh, verbose, env, say })),
    ))
  );
}

async function build({ tests, targets, fresh, verbose, env, say }) {
  const began = Date.now();
  checkLibc();
  const compiler = checkTools(env);
  const previous = fresh ? {} : readRecord(stampPath);
  // A folder once named stays the one to use, even if another version has been put there.
  const keeps = keepsLibtorch(previous, env);
  const named = namedLibtorch(env) ?? (existsSync(previous.libtorchRoot ?? '') ? previous.libtorchNamed : undefined);
  const libtorch = keeps
    ? { root: previous.libtorchRoot, version: previous.libtorchVersion, source: previous.libtorchSource }
    : await resolveLibtorch({ env: named ? { ...env, ARCHER_LIBTORCH: named } : env, say });

  // Node's version is not part of it: the addon speaks Node-API 9, which every supported Node has.
  const stamp = {
    packageRoot,
    libtorchRoot: libtorch.root,
    libtorchVersion: libtorch.version,
    libtorchSource: libtorch.source,
    libtorchNamed: named,
    compiler,
    cxx: env.CXX ?? '',
    cxxflags: env.CXXFLAGS ?? '',
    arch: process.arch,
    tests: tests || previous.tests === true,
  };
  const same = (names) => names.every((name) => stamp[name] === previous[name]);
  const keepsFolder = same(['packageRoot', 'libtorchRoot', 'libtorchVersion', 'compiler', 'cxx', 'cxxflags', 'arch']);
  if (!keepsFolder) clearBuildFolder();
  mkdirSync(buildFolder, { recursive: true });
  writeFileSync(logPath, '');

  const common = ['-d', packageRoot, '-O', buildFolder, '-l', 'error'];
  if (!keepsFolder || !same(['tests']) || !existsSync(join(buildFolder, 'CMakeCache.txt'))) {
    say(`configuring with libtorch ${libtorch.version} in ${libtorch.root} (${libtorch.source}).`);
    rmSync(stampPath, { force: true });
    const options = [`--CDLIBTORCH_ROOT=${libtorch.root}`, `--CDARCHER_TESTS=${stamp.tests ? 'ON' : 'OFF'}`];
    await step('configuring', ['configure', ...common, ...options], { verbose });
    writeFileSync(stampPath, `${JSON.stringify(stamp, null, 2)}\n`);
  }
  // Taken before compiling: what is edited meanwhile makes the next build run.
  const sources = fingerprint(false);
  const testSources = fingerprint(true);
  const what = targets?.join(', ') ?? `the addon${tests ? ' and its tests' : ''}`;
  say(`building ${what}${keepsFolder ? '' : ' (a first build takes a minute or more)'}.`);
  // With tests, one file that does not compile shall not keep the other tests from being built and run.
  const cache = readFileSync(join(buildFolder, 'CMakeCache.txt'), 'utf8');
  const keepGoing = cache.includes('CMAKE_GENERATOR:INTERNAL=Ninja') ? ['-k', '0'] : ['-k'];
  const wanted = targets ?? (stamp.tests && !tests ? ['archer_native'] : []);
  // cmake-js hands what stands behind the first -- to cmake --build, which hands what stands behind the second to ninja.
  const tail = [...(wanted.length > 0 ? ['--target', ...wanted] : []), ...(tests ? ['--', ...keepGoing] : [])];
  const command = ['build', ...common, '-p', String(numJobs(env)), ...(tail.length > 0 ? ['--', ...tail] : [])];
  await step('compiling', command, { verbose, showProgress: true });
  if (targets) return { addon: addonPath, built: true, record: readRecord(recordPath) };
  if (!existsSync(addonPath))
    throw new SetupError(`the build ended without ${addonPath}. Its output is in ${logPath}.`);

  const record = {
    archer: readJson(join(packageRoot, 'package.json')).version,
    libtorchRoot: libtorch.root,
    libtorchVersion: libtorch.version,
    libtorchSource: libtorch.source,
    libtorchNamed: named,
    compiler,
    arch: process.arch,
    nodeApi: 9,
    node: process.version,
    builtAt: new Date(began).toISOString(),
    seconds: Math.round((Date.now() - began) / 100) / 10,
    sources,
    testSources: tests ? testSources : undefined,
  };
  writeFileSync(recordPath, `${JSON.stringify(record, null, 2)}\n`);
  say(`built in ${record.seconds} s.`);
  return { addon: addonPath, built: true, record };
}

async function main(args) {
  const known = ['--tests', '--fresh', '--verbose', '--target'];
  const at = args.indexOf('--target');
  const targets = at < 0 ? undefined : args.splice(at, 2).slice(1);
  if (targets?.length === 0) throw new SetupError('--target needs the name of a CMake target.');
  const unknown = args.find((arg) => !known.includes(arg));
  if (unknown) throw new SetupError(`${unknown} is not an option of build-native.mjs; it knows ${known.join(', ')}.`);
  const has = (name) => args.includes(name);
  const { built } = await buildNative({
    tests: has('--tests'),
    targets,
    fresh: has('--fresh'),
    verbose: has('--verbose'),
  });
  if (!built) log('the addon is up to date.');
  return 0;
}

if (isMain(import.meta.url)) await runMain(main);
