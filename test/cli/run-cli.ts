// Runs the real binary in a process of its own.
import { type ChildProcess, spawn } from 'node:child_process';
import { resolve } from 'node:path';

export const root = resolve(import.meta.dirname ?? '.', '../..');
const bin = resolve(root, 'bin/archer-native.js');

export interface CliResult {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

// Jest's own loader flags must not reach the child.
const { NODE_OPTIONS: _, ...env } = process.env;

export function startCli(args: string[], options: { cwd?: string; env?: Record<string, string>; stdin?: 'pipe' } = {}): { child: ChildProcess; done: Promise<CliResult> } {
  const child = spawn(process.execPath, [bin, ...args], {
    cwd: options.cwd ?? root,
    env: { ...env, NO_COLOR: '1', OMP_NUM_THREADS: '1', ...options.env },
    stdio: [options.stdin ?? 'ignore', 'pipe', 'pipe'],
  });
  const done = new Promise<CliResult>((resolveResult) => {
    let stdout = '';
    let stderr = '';
    child.stdout?.on('data', (chunk) => {
      stdout += chunk;
    });
    child.stderr?.on('data', (chunk) => {
      stderr += chunk;
    });
    child.on('close', (code, signal) => resolveResult({ code, signal, stdout, stderr }));
  });
  return { child, done };
}

export const runCli = (...args: string[]) => startCli(args).done;
