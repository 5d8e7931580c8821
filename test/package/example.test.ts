// The example runs as it stands, importing the package by its own name.
import { spawn } from 'node:child_process';
import { join, resolve } from 'node:path';
import { expect, test } from '@jest/globals';
import { tempDir } from '../train/tiny-run.js';

const root = resolve(import.meta.dirname ?? '.', '../..');

test('examples/embed.mjs', async () => {
  const dir = tempDir();
  const { NODE_OPTIONS: _, ...env } = process.env;
  const child = spawn(process.execPath, [join(root, 'examples/embed.mjs'), '1'], {
    cwd: dir.path,
    env: { ...env, OMP_NUM_THREADS: '1' },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      output += chunk;
    });
  }
  const code = await new Promise((done) => child.on('close', done));
  dir.remove();
  expect(output).toMatch(/^step 1: reward \d\.\d+, \d+\.\d tokens$/m);
  expect(code).toBe(0);
}, 180_000);
