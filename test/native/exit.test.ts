// Leaving in the middle of a job: process.exit, an uncaught exception, a terminated worker thread. libtorch's static
// destructors under a running engine thread crashed in most runs before the wrapper stopped the engine at exit.
import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { expect, test } from '@jest/globals';

const root = resolve(import.meta.dirname ?? '.', '../..');
const { NODE_OPTIONS: _, ...env } = process.env;

function runScript(script: string): Promise<number | null> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    cwd: root,
    env: { ...env, OMP_NUM_THREADS: '1' },
    stdio: 'ignore',
  });
  return new Promise((done) => child.on('close', (code, signal) => done(signal === null ? code : null)));
}

const busy = `
  const { Policy } = await import('${root}/dist/index.js');
  const policy = await Policy.load('bundled', { numThreads: 1 });
  const work = policy.generate(['Compute 1 + 2.'], { n: 256, maxNewTokens: 400 });`;

const ways: [name: string, script: string, code: number][] = [
  ['process.exit', `${busy} setTimeout(() => process.exit(7), 50);`, 7],
  ['an uncaught exception', `${busy} setTimeout(() => { throw new Error('enough'); }, 50);`, 1],
  [
    'a worker thread that is terminated',
    `const { Worker } = await import('node:worker_threads');
     const code = ${JSON.stringify(`(async () => { ${busy} require('node:worker_threads').parentPort.postMessage('busy'); })()`)};
     const worker = new Worker(code, { eval: true, execArgv: [] });
     worker.on('message', async () => { await worker.terminate(); process.exit(5); });`,
    5,
  ],
];

test.each(ways)('%s is clean, three times', async (_name, script, code) => {
  for (let i = 0; i < 3; i++) expect(await runScript(script)).toBe(code);
}, 120_000);
