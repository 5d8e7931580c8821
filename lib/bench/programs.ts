// Where the contestants come from: native programs, which are built when they are asked for, and a Python that has torch.
import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ArcherError, messageOf } from '../errors.js';
import { readBuildRecord } from '../native/load.js';
import { packageRoot } from '../package-root.js';

const run = promisify(execFile);

/**
 * Builds a program of native/bench, incrementally: a benchmark of an old binary would be worse than none.
 * @returns its path
 * @throws ArcherError ARCHER_E_SETUP when it cannot be built
 */
export async function nativeProgram(target: string): Promise<string> {
  const status = await new Promise<number | string>((resolve) => {
    const script = join(packageRoot, 'scripts/build-native.mjs');
    // stdout belongs to the table
    const child = spawn(process.execPath, [script, '--target', target], {
      stdio: ['ignore', process.stderr, 'inherit'],
    });
    child.on('error', (error) => resolve(error.message));
    child.on('exit', (code, signal) => resolve(signal ?? code ?? 1));
  });
  const path = join(packageRoot, 'native/build/bench', target);
  if (status !== 0 || !existsSync(path)) {
    throw new ArcherError(
      'ARCHER_E_SETUP',
      `The native program ${target} could not be built (${status}); the lines above say why. \`npx archer-native setup\` checks the tools.`,
    );
  }
  return path;
}

/** What a program of native/bench says about the machine: processor, instruction set, libtorch. */
export async function machineOf(program: string): Promise<Record<string, unknown>> {
  const { stdout } = await run(program, ['--machine']);
  return JSON.parse(stdout);
}

export interface Python {
  command: string;
  /** Version of torch. */
  torch: string;
}

/**
 * A Python that can import torch and `modules`: `named`, or the one whose libtorch the addon uses, or python3.
 * @returns undefined where none is found
 * @throws ArcherError ARCHER_E_CONFIG when the named one cannot: an explicit choice is not replaced
 */
export async function findPython(named?: string, modules: string[] = []): Promise<Python | undefined> {
  const libtorch = readBuildRecord()?.libtorchRoot;
  const beside = libtorch ? join(libtorch, '../../../../bin/python3') : undefined;
  const candidates = named ? [named] : [...(beside && existsSync(beside) ? [beside] : []), 'python3'];
  const wanted = ['torch', ...modules].join(', ');
  let words = '';
  for (const command of candidates) {
    try {
      const { stdout } = await run(command, ['-c', `import ${wanted}; print(torch.__version__)`]);
      return { command, torch: stdout.trim() };
    } catch (error) {
      words = messageOf(error).trim().split('\n').at(-1) ?? '';
    }
  }
  if (named)
    throw new ArcherError(
      'ARCHER_E_CONFIG',
      `--python ${named} cannot import ${wanted} (${words}). Name a Python that can.`,
    );
  return undefined;
}
