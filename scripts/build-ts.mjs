// Compiles lib/ into dist/ and copies lib's .mjs files (worker entry points) and .py files (the code verifier's harness).
// Does nothing in an installed package, which ships dist/ and has no lib/.
import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { isMain, log, packageRoot, run, runMain, SetupError } from './tools.mjs';

const lib = join(packageRoot, 'lib');
const dist = join(packageRoot, 'dist');

function filesOf(folder) {
  const entries = existsSync(folder) ? readdirSync(folder, { withFileTypes: true, recursive: true }) : [];
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath ?? entry.path, entry.name));
}

function removeOrphans() {
  for (const path of filesOf(dist)) {
    const source = join(lib, relative(dist, path));
    const base = source.replace(/(\.d)?\.[cm]?[jt]s$/, '');
    if (!existsSync(source) && !existsSync(`${base}.ts`) && !existsSync(`${base}.mjs`)) rmSync(path);
  }
}

/**
 * @returns tsc's exit status: files are written even where types fail.
 * @throws SetupError when TypeScript is missing
 */
export async function buildTs() {
  if (!existsSync(join(lib, 'index.ts'))) return 0;
  let tsc;
  try {
    tsc = join(
      dirname(createRequire(join(packageRoot, 'package.json')).resolve('typescript/package.json')),
      'bin',
      'tsc',
    );
  } catch {
    if (process.env.npm_lifecycle_event === 'prepare') {
      log('TypeScript is not installed (--omit=dev), so dist/ is left as it is.');
      return 0;
    }
    throw new SetupError('TypeScript is not installed. Run `npm ci` without --omit=dev.');
  }
  // The memory of the incremental build lies outside dist/, which is published; it means nothing without dist/.
  const memory = join(packageRoot, 'node_modules', '.cache', 'archer-native', 'dist.tsbuildinfo');
  if (!existsSync(join(dist, 'index.js'))) rmSync(memory, { force: true });
  mkdirSync(dirname(memory), { recursive: true });
  const status = await run(
    process.execPath,
    [tsc, '-p', 'tsconfig.build.json', '--incremental', '--tsBuildInfoFile', memory],
    { cwd: packageRoot },
  );
  for (const path of filesOf(lib).filter((name) => /\.(mjs|py)$/.test(name))) {
    const target = join(dist, relative(lib, path));
    mkdirSync(dirname(target), { recursive: true });
    copyFileSync(path, target);
  }
  removeOrphans();
  return status;
}

if (isMain(import.meta.url)) await runMain(buildTs);
