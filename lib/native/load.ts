// The only place that loads the addon, on first use (it costs 0.6 s and 150 MB, which `--help` must not pay), and the
// one that stops its engines when the process exits.
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { ArcherError, messageOf } from '../errors.js';
import { packageRoot } from '../package-root.js';
import { cpuIsas, type NativeEngine, type NativeModule } from './types.js';

/** What scripts/build-native.mjs writes to native/build/archer-build.json. */
export interface BuildRecord {
  archer: string;
  libtorchRoot: string;
  libtorchVersion: string;
  compiler: string;
  arch: string;
  nodeApi: number;
  node: string;
  builtAt: string;
}

/** The .node file that loadNative takes: ARCHER_NATIVE_PATH, else native/build/Release/archer_native.node. */
export function addonPath(): string {
  const named = process.env.ARCHER_NATIVE_PATH;
  return named ? resolve(named) : join(packageRoot, 'native', 'build', 'Release', 'archer_native.node');
}

/** How the addon at `path` was built; undefined where nothing is recorded beside it. */
export function readBuildRecord(path: string = addonPath()): BuildRecord | undefined {
  try {
    return JSON.parse(readFileSync(join(dirname(dirname(path)), 'archer-build.json'), 'utf8')) as BuildRecord;
  } catch {
    return undefined;
  }
}

let loaded: NativeModule | undefined;

/**
 * The addon, loaded on the first call.
 * @throws ArcherError ARCHER_E_CONFIG for an unknown ARCHER_CPU_ISA, ARCHER_E_NATIVE_LOAD when the addon is not built or cannot
 *   be loaded, ARCHER_E_SETUP when the libtorch that it was built with is gone or another one; the message names what was found and the command that helps.
 */
export function loadNative(): NativeModule {
  if (loaded) return loaded;
  checkCpuIsa();
  // libtorch then asks for huge pages for tensors of 2 MB and more: reading weights is 1.4 times as fast where the kernel leaves
  // the choice to the program (/sys/kernel/mm/transparent_hugepage/enabled: madvise, the usual setting).
  process.env.THP_MEM_ALLOC_ENABLE ??= '1';
  const path = addonPath();
  if (!existsSync(path)) throw missingAddon(path);
  try {
    loaded = createRequire(import.meta.url)(path) as NativeModule;
  } catch (error) {
    throw loadFailure(path, error);
  }
  return loaded;
}

function checkCpuIsa(): void {
  const wanted = process.env.ARCHER_CPU_ISA;
  if (wanted === undefined || cpuIsas.some((known) => known === wanted)) return;
  throw new ArcherError('ARCHER_E_CONFIG', `ARCHER_CPU_ISA=${wanted} is not known; use ${cpuIsas.join(', ')}, or unset it.`);
}

function missingAddon(path: string): ArcherError {
  const fault = process.env.ARCHER_NATIVE_PATH
    ? `ARCHER_NATIVE_PATH=${process.env.ARCHER_NATIVE_PATH} is not there. Correct or unset it`
    : `The native addon is not built yet (${path} is not there). Run \`npx archer-native setup\``;
  return new ArcherError('ARCHER_E_NATIVE_LOAD', `${fault}.`);
}

/** The error for a .node file that is there and does not load: the likeliest reason first, the loader's words last. */
export function loadFailure(path: string, cause: unknown): ArcherError {
  const record = readBuildRecord(path);
  const words = messageOf(cause).split('\n')[0] ?? '';
  const rebuild = 'Run `npx archer-native setup` to build it here';
  const root = record?.libtorchRoot;
  if (root && !existsSync(join(root, 'lib', 'libtorch_cpu.so'))) {
    return new ArcherError(
      'ARCHER_E_SETUP',
      `The libtorch that the addon was built with is gone: ${root} (version ${record.libtorchVersion}). Put it back, or run ` +
        `\`npx archer-native setup\`, which finds or fetches one and builds anew. (${words})`,
      { cause },
    );
  }
  if (record && record.arch !== process.arch) {
    return new ArcherError(
      'ARCHER_E_NATIVE_LOAD',
      `${path} was built for ${record.arch}, and this Node is ${process.arch}. ${rebuild}. (${words})`,
      { cause },
    );
  }
  if (/invalid ELF header|wrong ELF class|file too short|not a valid/i.test(words)) {
    return new ArcherError(
      'ARCHER_E_NATIVE_LOAD',
      `${path} is damaged or was built for another machine. ${rebuild}. (${words})`,
      { cause },
    );
  }
  if (/undefined symbol|symbol lookup error/i.test(words)) {
    return new ArcherError(
      'ARCHER_E_SETUP',
      `The libtorch in ${root ?? 'use'} is not the one that the addon was built with (${record?.libtorchVersion ?? 'unknown'}), ` +
        `or the addon is incomplete. ${rebuild}. (${words})`,
      { cause },
    );
  }
  const missing = /^(\S+): cannot open shared object file/.exec(words)?.[1];
  const reason = missing ? `the library ${missing} is missing` : words;
  const built = record
    ? ` It was built by Node ${record.node} with libtorch ${record.libtorchVersion} in ${root}.`
    : '';
  return new ArcherError('ARCHER_E_NATIVE_LOAD', `${path} cannot be loaded: ${reason}.${built} ${rebuild}.`, { cause });
}

const engines = new Set<NativeEngine>();

// A main thread that ends by process.exit() or an uncaught exception runs no cleanup hooks of addons: libtorch's static
// destructors would then run under the engine's thread and crash. So every engine is stopped (cancelled, joined) here.
function shutdownEngines(): void {
  for (const engine of engines) engine.shutdown();
  for (const engine of engines) unregisterEngine(engine);
}

/** Has `engine` stopped when the process exits. */
export function registerEngine(engine: NativeEngine): void {
  if (engines.size === 0) process.on('exit', shutdownEngines);
  engines.add(engine);
}

/** For an engine that its owner has shut down. */
export function unregisterEngine(engine: NativeEngine): void {
  engines.delete(engine);
  if (engines.size === 0) process.off('exit', shutdownEngines);
}
