// `generate` as a person meets it: text that appears while it is made, and a Ctrl-C that works at once.
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { tempDir } from '../train/tiny-run.js';
import { root, runCli, startCli } from './run-cli.js';

let dir: ReturnType<typeof tempDir>;
let endless: string;
beforeAll(() => {
  dir = tempDir();
  // The bundled model without a token that ends a response, and with room for a long one.
  endless = join(dir.path, 'endless');
  cpSync(join(root, 'assets/model'), endless, { recursive: true });
  for (const file of ['config.json', 'generation_config.json']) {
    const { eos_token_id: _, ...config } = JSON.parse(readFileSync(join(endless, file), 'utf8'));
    writeFileSync(join(endless, file), JSON.stringify({ ...config, max_position_embeddings: 50_000 }));
  }
});
afterAll(() => dir.remove());

/** The first text on stdout. */
const firstText = (child: ReturnType<typeof startCli>['child']) =>
  new Promise<string>((resolve) => child.stdout?.once('data', (data) => resolve(String(data))));

describe('a single response', () => {
  test('appears as it is made', async () => {
    const { child, done } = startCli([
      'generate',
      'Compute 1 + 2.',
      '-m',
      endless,
      '--max-tokens',
      '3000',
      '--threads',
      '1',
    ]);
    const pieces: string[] = [];
    child.stdout?.on('data', (data) => pieces.push(String(data)));
    const { code, stdout, stderr } = await done;
    expect(code).toBe(0);
    expect(pieces.length).toBeGreaterThan(2);
    expect(stdout).toMatch(/ \[…cut at --max-tokens\]\n$/);
    expect(stderr).toMatch(/3000 tokens in/);
  });

  test('reads the same as without streaming, with its stop string whole', async () => {
    const ask = (...more: string[]) =>
      runCli('generate', 'Compute 3 + 4 * 2.', '--seed', '3', '--threads', '1', ...more);
    const { response } = JSON.parse((await ask('--json')).stdout);
    expect((await ask()).stdout).toBe(`${response}\n`);
    const stop = response.slice(4, 9);
    const cut = JSON.parse((await ask('--json', '--stop', stop)).stdout);
    expect(cut.finish).toBe('stop_string');
    expect((await ask('--stop', stop)).stdout).toBe(`${cut.response}\n`);
  });

  test('Ctrl-C in its middle leaves at once with 130, and what was shown stays', async () => {
    const { child, done } = startCli([
      'generate',
      'Compute 1 + 2.',
      '-m',
      endless,
      '--max-tokens',
      '40000',
      '--threads',
      '1',
    ]);
    const shown = await firstText(child);
    const interrupted = performance.now();
    child.kill('SIGINT');
    const { code, stdout, stderr } = await done;
    expect(code).toBe(130);
    expect(performance.now() - interrupted).toBeLessThan(3000);
    expect(stdout.startsWith(shown)).toBe(true);
    expect(stderr).toContain('Interrupted.');
    expect(stderr).not.toContain('ARCHER_E');
  });
});

test('Ctrl-C while it waits for a prompt leaves with 130', async () => {
  const { child, done } = startCli(['generate'], { stdin: 'pipe' });
  await sleep(2500);
  child.kill('SIGINT');
  expect((await done).code).toBe(130);
});

test('the prompt can come from standard input', async () => {
  const { child, done } = startCli(['generate', '--threads', '1', '--seed', '3'], { stdin: 'pipe' });
  child.stdin?.end('Compute 3 + 4 * 2.');
  const named = await runCli('generate', 'Compute 3 + 4 * 2.', '--threads', '1', '--seed', '3');
  const { code, stdout } = await done;
  expect(code).toBe(0);
  expect(stdout).toBe(named.stdout);
});

test('several responses come one by one, whole', async () => {
  const { code, stdout } = await runCli('generate', 'Compute 3 + 4 * 2.', '-n', '3', '--threads', '1');
  expect(code).toBe(0);
  const lines = await runCli('generate', 'Compute 3 + 4 * 2.', '-n', '3', '--threads', '1', '--json');
  const responses = lines.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line).response);
  expect(stdout).toBe(`${responses.join('\n')}\n`);
});
