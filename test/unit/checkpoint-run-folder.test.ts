import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { restoreJsonl, truncateJsonl } from '../../lib/checkpoint/jsonl-restore.js';
import { lockName, lockRunFolder } from '../../lib/checkpoint/lock.js';
import { type OpenRunOptions, openRunFolder, type RunFolder, readRunRecord } from '../../lib/checkpoint/run-folder.js';
import { writeCheckpoint } from '../../lib/checkpoint/store.js';

const root = mkdtempSync(join(tmpdir(), 'archer-runs-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let localDir: string;
let count = 0;
const opened: RunFolder[] = [];
beforeEach(() => {
  localDir = join(root, String(count++));
});
afterEach(async () => {
  for (const run of opened.splice(0)) await run.release();
});

async function open(overrides: Partial<OpenRunOptions> = {}): Promise<RunFolder> {
  const run = await openRunFolder({
    localDir,
    projectName: 'math',
    experimentName: 'exp',
    resumeMode: 'auto',
    configHash: 'c1',
    dataHash: 'd1',
    createdBy: 'archer-native test',
    config: { trainer: { seed: 1 } },
    ...overrides,
  });
  opened.push(run);
  return run;
}

const folder = (name: string) => join(localDir, 'math', name);

const save = (runDir: string, step: number, keep = 0) =>
  writeCheckpoint({
    runDir,
    step,
    keep,
    createdBy: 'archer-native test',
    write: async (dir) => writeFileSync(join(dir, 'model.safetensors'), `weights ${step}`),
  });

const damage = (runDir: string, step: number) => rmSync(join(runDir, `global_step_${step}`, 'model.safetensors'));

describe('resume_mode: auto', () => {
  test('a new run gets the base folder and a record without a clock', async () => {
    const run = await open();
    expect(run).toMatchObject({ dir: folder('exp'), continued: false, warnings: [] });
    expect(run.resumeFrom).toBeUndefined();
    expect(JSON.parse(readFileSync(join(run.dir, 'run.json'), 'utf8'))).toEqual({
      format: 1,
      status: 'running',
      configHash: 'c1',
      dataHash: 'd1',
      createdBy: 'archer-native test',
      config: { trainer: { seed: 1 } },
    });
  });

  test('an unfinished run of the same configuration and data goes on from its newest valid checkpoint', async () => {
    const first = await open();
    await save(first.dir, 2);
    await save(first.dir, 4);
    damage(first.dir, 4);
    await first.release();
    const second = await open();
    expect(second).toMatchObject({ dir: first.dir, continued: true, resumeFrom: { step: 2 } });
    expect(second.warnings).toEqual([expect.stringMatching(/global_step_4\/model.safetensors is missing/)]);
  });

  test('an unfinished run without a checkpoint starts again in its folder', async () => {
    await (await open()).release();
    const second = await open();
    expect(second).toMatchObject({ dir: folder('exp'), continued: true });
    expect(second.resumeFrom).toBeUndefined();
  });

  test('where every checkpoint is damaged it refuses instead of starting over', async () => {
    const first = await open();
    await save(first.dir, 2);
    damage(first.dir, 2);
    await first.release();
    await expect(open()).rejects.toMatchObject({
      code: 'ARCHER_E_CHECKPOINT',
      message: expect.stringMatching(/No checkpoint in .*exp is valid.*global_step_2.*resume_mode to disable/),
    });
    expect(existsSync(join(first.dir, lockName))).toBe(false);
    expect((await open({ resumeMode: 'disable' })).dir).toBe(folder('exp-2'));
  });

  test('a finished run, and one of another configuration or other data, are left alone', async () => {
    await (await open()).finish();
    expect((await readRunRecord(folder('exp')))?.status).toBe('finished');
    const second = await open();
    expect(second).toMatchObject({ dir: folder('exp-2'), continued: false });
    await second.release();
    expect((await open({ configHash: 'c2' })).dir).toBe(folder('exp-3'));
    expect((await open({ dataHash: 'd2' })).dir).toBe(folder('exp-4'));
    // … and each of the unfinished ones is found again among its siblings.
    expect((await open()).dir).toBe(folder('exp-2'));
  });

  test('folders of other names are no siblings; the number after the highest is taken', async () => {
    for (const name of ['exp-7', 'exp-01', 'exp-1', 'exp-x', 'expo', 'my-exp']) {
      mkdirSync(folder(name), { recursive: true });
    }
    expect((await open()).dir).toBe(folder('exp-8'));
  });

  test('a damaged run.json is reported, and its folder left alone', async () => {
    await (await open()).release();
    writeFileSync(join(folder('exp'), 'run.json'), '{"format":1,');
    const second = await open();
    expect(second.dir).toBe(folder('exp-2'));
    expect(second.warnings).toEqual([expect.stringMatching(/run.json is damaged.*Nothing is written/)]);
    await save(folder('exp'), 3);
    const third = await open({ resumeMode: join(folder('exp'), 'global_step_3') });
    expect(third).toMatchObject({ dir: folder('exp-3'), resumeFrom: { step: 3 } });
  });

  test('leftovers of a killed writer are removed on the way', async () => {
    const first = await open();
    await save(first.dir, 1);
    mkdirSync(join(first.dir, `.tmp-global_step_2-${spawnSync('true').pid}`));
    await first.release();
    await open();
    expect(readdirSync(first.dir).sort()).toEqual([lockName, 'global_step_1', 'run.json']);
  });
});

describe('resume_mode: disable', () => {
  test('always a new folder', async () => {
    for (const name of ['exp', 'exp-2', 'exp-3']) {
      const run = await open({ resumeMode: 'disable' });
      expect(run).toMatchObject({ dir: folder(name), continued: false });
      await save(run.dir, 1);
      await run.release();
    }
  });
});

describe('resume_mode: a path', () => {
  async function stopped(): Promise<string> {
    const first = await open();
    await save(first.dir, 2);
    await save(first.dir, 4);
    await first.release();
    return first.dir;
  }

  test('the newest checkpoint, or the folder, of this very run goes on in place', async () => {
    const dir = await stopped();
    for (const path of [dir, join(dir, 'global_step_4')]) {
      const run = await open({ resumeMode: path });
      expect(run).toMatchObject({ dir, continued: true, resumeFrom: { step: 4 } });
      await run.release();
    }
    damage(dir, 4);
    const run = await open({ resumeMode: dir });
    expect(run).toMatchObject({ dir, continued: true, resumeFrom: { step: 2 } });
    expect(run.warnings).toHaveLength(1);
  });

  test('an earlier checkpoint, another configuration, or a finished run begins a new folder from it', async () => {
    const dir = await stopped();
    const earlier = await open({ resumeMode: join(dir, 'global_step_2') });
    expect(earlier).toMatchObject({ dir: folder('exp-2'), continued: false, resumeFrom: { step: 2 } });
    expect(earlier.resumeFrom?.dir).toBe(join(dir, 'global_step_2'));
    const other = await open({ resumeMode: dir, configHash: 'c2' });
    expect(other).toMatchObject({ dir: folder('exp-3'), continued: false, resumeFrom: { step: 4 } });
    await (await open({ resumeMode: dir })).finish();
    expect(await open({ resumeMode: dir })).toMatchObject({ dir: folder('exp-4'), resumeFrom: { step: 4 } });
  });

  test('a run that began from another one and was killed early begins there again', async () => {
    const dir = await stopped();
    await (await open({ resumeMode: dir, configHash: 'c2' })).release();
    const again = await open({ configHash: 'c2' });
    expect(again).toMatchObject({ dir: folder('exp-2'), continued: true, resumeFrom: { step: 4 } });
    expect(again.resumeFrom?.dir).toBe(join(dir, 'global_step_4'));
  });

  test('a checkpoint that stands alone is enough', async () => {
    const dir = await stopped();
    const alone = join(localDir, 'elsewhere');
    spawnSync('cp', ['-r', join(dir, 'global_step_2'), alone]);
    expect(await open({ resumeMode: alone })).toMatchObject({ dir: folder('exp-2'), resumeFrom: { step: 2 } });
  });

  test('errors: nothing there, a folder of something else, a damaged checkpoint, no checkpoint yet', async () => {
    const dir = await stopped();
    const config = { code: 'ARCHER_E_CONFIG', message: expect.stringMatching(/is no checkpoint .* and no run folder/) };
    await expect(open({ resumeMode: join(localDir, 'nowhere') })).rejects.toMatchObject(config);
    await expect(open({ resumeMode: localDir })).rejects.toMatchObject(config);
    damage(dir, 4);
    await expect(open({ resumeMode: join(dir, 'global_step_4') })).rejects.toMatchObject({
      code: 'ARCHER_E_CHECKPOINT',
      message: expect.stringContaining('model.safetensors is missing'),
    });
    const empty = await open({ experimentName: 'empty' });
    await expect(open({ resumeMode: empty.dir })).rejects.toThrow('holds no checkpoint yet');
  });
});

test.each(['', '.', '..', 'a/b'])('experiment_name %j is refused', async (experimentName) => {
  await expect(open({ experimentName })).rejects.toMatchObject({
    code: 'ARCHER_E_CONFIG',
    message: expect.stringContaining('trainer.experiment_name'),
  });
});

describe('the lock', () => {
  const boot = () => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  const lockWith = (owner: object | string, ageMs = 0): string => {
    mkdirSync(localDir, { recursive: true });
    const path = join(localDir, lockName);
    writeFileSync(path, typeof owner === 'string' ? owner : JSON.stringify(owner));
    const then = new Date(Date.now() - ageMs);
    utimesSync(path, then, then);
    return path;
  };
  const here = (rest: object) => ({ host: hostname(), boot: boot(), started: '1', ...rest });

  test('a run folder has one writer at a time', async () => {
    const run = await open();
    await expect(open()).rejects.toMatchObject({
      code: 'ARCHER_E_IO',
      message: expect.stringMatching(
        new RegExp(`exp is being written by process ${process.pid} on .*remove .*\\.lock`),
      ),
    });
    await run.release();
    await run.release();
    await open();
  });

  test('of five that try at once over a stale lock, one gets it', async () => {
    lockWith(here({ pid: spawnSync('true').pid }));
    const results = await Promise.allSettled(Array.from({ length: 5 }, () => lockRunFolder(localDir)));
    const held = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    expect(held).toHaveLength(1);
    expect(readdirSync(localDir)).toEqual([lockName]);
    await held[0]?.release();
    expect(readdirSync(localDir)).toEqual([]);
  });

  test('stale: a dead process, an id used again, a silent machine, half a lock of long ago', async () => {
    for (const [owner, ageMs] of [
      [here({ pid: spawnSync('true').pid }), 0],
      [here({ pid: process.ppid }), 0],
      [{ pid: 1, host: 'another-machine', boot: 'x', started: '1' }, 120_000],
      [here({ pid: 1, boot: 'before-the-restart' }), 120_000],
      ['{"pid":', 120_000],
    ] as const) {
      lockWith(owner, ageMs);
      await (await lockRunFolder(localDir)).release();
    }
  });

  test('not stale: a living process, another machine whose heart beats', async () => {
    const stat = readFileSync(`/proc/${process.ppid}/stat`, 'utf8');
    const started = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
    for (const owner of [
      here({ pid: process.ppid, started }),
      { pid: 1, host: 'another-machine', boot: 'x', started: '1' },
    ]) {
      const path = lockWith(owner, 20_000);
      await expect(lockRunFolder(localDir)).rejects.toThrow('is being written by process');
      expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual(owner);
    }
  });

  test('a release does not remove a lock that somebody else has taken over', async () => {
    mkdirSync(localDir, { recursive: true });
    const lock = await lockRunFolder(localDir);
    writeFileSync(lock.path, 'of somebody else');
    await lock.release();
    expect(existsSync(lock.path)).toBe(true);
  });
});

describe('metrics.jsonl on resume', () => {
  const lines = ['{"step":1}\n', '{"step":2}\n', '{"step":3}\n'];
  const path = () => join(localDir, 'metrics.jsonl');
  beforeEach(() => {
    mkdirSync(localDir, { recursive: true });
    writeFileSync(path(), lines.join(''));
  });

  test('is cut back to the recorded offset', async () => {
    expect(await truncateJsonl(path(), 22)).toBeUndefined();
    expect(readFileSync(path(), 'utf8')).toBe(lines.slice(0, 2).join(''));
    expect(await truncateJsonl(path(), 0)).toBeUndefined();
    expect(readFileSync(path(), 'utf8')).toBe('');
    expect(await truncateJsonl(join(localDir, 'nowhere'), 0)).toBeUndefined();
    expect(existsSync(join(localDir, 'nowhere'))).toBe(false);
  });

  test('a shorter file keeps its whole lines and is reported', async () => {
    writeFileSync(path(), `${lines[0]}{"st`);
    expect(await truncateJsonl(path(), 22)).toMatch(/15 of 22 bytes.* 11 bytes of whole lines are kept/);
    expect(readFileSync(path(), 'utf8')).toBe(lines[0]);
    expect(await truncateJsonl(join(localDir, 'nowhere'), 22)).toMatch(/0 of 22 bytes/);
  });

  test('an offset inside a line cuts before that line and is reported', async () => {
    expect(await truncateJsonl(path(), 25)).toMatch(/altered.* 22 bytes/);
    expect(readFileSync(path(), 'utf8')).toBe(lines.slice(0, 2).join(''));
  });

  test('a line longer than the search window is found', async () => {
    const long = `{"x":"${'y'.repeat(200_000)}"}\n`;
    writeFileSync(path(), lines[0] + long);
    expect(await truncateJsonl(path(), 150_000)).toMatch(/altered/);
    expect(readFileSync(path(), 'utf8')).toBe(lines[0]);
  });

  test("a run that begins from another run's checkpoint gets its history", async () => {
    const target = join(localDir, 'other.jsonl');
    expect(await restoreJsonl({ source: path(), target, bytes: 11 })).toBeUndefined();
    expect(readFileSync(target, 'utf8')).toBe(lines[0]);
    expect(readFileSync(path(), 'utf8')).toBe(lines.join(''));
    expect(await restoreJsonl({ source: path(), target: path(), bytes: 22 })).toBeUndefined();
    expect(readFileSync(path(), 'utf8')).toBe(lines.slice(0, 2).join(''));
  });

  test('a file that cannot be cut is an error with its path', async () => {
    await expect(truncateJsonl(join(path(), 'below-a-file'), 5)).rejects.toMatchObject({ code: 'ARCHER_E_IO' });
  });
});
