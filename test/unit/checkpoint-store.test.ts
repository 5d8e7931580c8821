import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, test } from '@jest/globals';
import { manifestText, readManifest, verifyCheckpoint } from '../../lib/checkpoint/manifest.js';
import {
  checkpointDir,
  cleanLeftovers,
  latestValid,
  listCheckpoints,
  writeCheckpoint,
} from '../../lib/checkpoint/store.js';

const root = mkdtempSync(join(tmpdir(), 'archer-store-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let runDir: string;
let count = 0;
beforeEach(() => {
  runDir = join(root, `run-${count++}`);
  mkdirSync(runDir);
});

const createdBy = 'archer-native test';

async function fill(dir: string, content = 'weights'): Promise<void> {
  writeFileSync(join(dir, 'config.json'), '{}');
  writeFileSync(join(dir, 'model.safetensors'), content);
  mkdirSync(join(dir, 'trainer'));
  writeFileSync(join(dir, 'trainer', 'state.json'), '{"step":1}');
}

const save = (step: number, options: { keep?: number; content?: string } = {}) =>
  writeCheckpoint({ runDir, step, createdBy, write: (dir) => fill(dir, options.content), keep: options.keep });

const steps = async () => (await listCheckpoints(runDir)).map((checkpoint) => checkpoint.step);

function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: simulated, write`), { code, errno: -28, syscall: 'write' });
}

/** A process id that was given to a process that has ended. */
function deadPid(): number {
  return spawnSync('true').pid;
}

describe('writing', () => {
  test('a checkpoint has every file in its manifest, with size and SHA-256, and the facts', async () => {
    const facts = { cpuCapability: 'AVX2', threads: 2 };
    const { dir } = await writeCheckpoint({ runDir, step: 5, createdBy, write: fill, facts });
    expect(dir).toBe(checkpointDir(runDir, 5));
    const manifest = await verifyCheckpoint(dir);
    expect(manifest).toMatchObject({ format: 1, step: 5, createdBy, facts });
    expect(manifest.files).toEqual([
      // `printf '{}' | sha256sum`, and so on
      { path: 'config.json', bytes: 2, sha256: '44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a' },
      {
        path: 'model.safetensors',
        bytes: 7,
        sha256: '9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c',
      },
      {
        path: 'trainer/state.json',
        bytes: 10,
        sha256: '8565a568653654ae5b4d4444245fa76e8bdea8c7d0db4a75bcffbb60bd6a0452',
      },
    ]);
    expect(readdirSync(runDir)).toEqual(['global_step_5']);
  });

  test('keep removes older ones, never the one just written; 0 keeps all', async () => {
    for (const step of [1, 2, 3]) await save(step);
    expect(await steps()).toEqual([3, 2, 1]);
    await save(4, { keep: 2 });
    expect(await steps()).toEqual([4, 3]);
    const { removed } = await save(5, { keep: 1 });
    expect(removed.map((dir) => dir.slice(runDir.length + 1))).toEqual(['global_step_4', 'global_step_3']);
    expect(await steps()).toEqual([5]);
  });

  test('after going back behind a damaged one, keep: 1 does not remove the newest valid', async () => {
    await save(5);
    await save(10);
    writeFileSync(join(checkpointDir(runDir, 10), 'model.safetensors'), 'rubbish');
    await save(6, { keep: 1 });
    expect(await steps()).toEqual([10, 6]);
    expect((await latestValid(runDir)).checkpoint?.step).toBe(6);
  });

  test('the same step again replaces the earlier folder', async () => {
    await save(3, { content: 'first' });
    await save(3, { content: 'second' });
    expect(readFileSync(join(checkpointDir(runDir, 3), 'model.safetensors'), 'utf8')).toBe('second');
    await verifyCheckpoint(checkpointDir(runDir, 3));
    expect(readdirSync(runDir)).toEqual(['global_step_3']);
  });

  test('a full disk: the message says so, nothing is left behind, earlier checkpoints stay', async () => {
    await save(1);
    const failing = writeCheckpoint({
      runDir,
      step: 2,
      createdBy,
      keep: 1,
      write: async (dir) => {
        await fill(dir);
        throw systemError('ENOSPC');
      },
    });
    await expect(failing).rejects.toMatchObject({
      code: 'ARCHER_E_IO',
      message: expect.stringMatching(/Cannot write the checkpoint .*global_step_2: ENOSPC.*Free space/),
    });
    expect(readdirSync(runDir)).toEqual(['global_step_1']);
    await verifyCheckpoint(checkpointDir(runDir, 1));
  });

  test('an error of the callback that is no system error passes unchanged', async () => {
    const fault = new TypeError('a fault of ours');
    const failing = writeCheckpoint({ runDir, step: 2, createdBy, write: () => Promise.reject(fault) });
    await expect(failing).rejects.toBe(fault);
    expect(readdirSync(runDir)).toEqual([]);
  });

  test('a folder that cannot be made is an error with the path', async () => {
    writeFileSync(join(runDir, 'file'), '');
    const failing = writeCheckpoint({ runDir: join(runDir, 'file', 'x'), step: 1, createdBy, write: fill });
    await expect(failing).rejects.toMatchObject({ code: 'ARCHER_E_IO', message: expect.stringContaining('ENOTDIR') });
  });

  test('an empty checkpoint, and one that brings its own manifest, are faults', async () => {
    const write = async (dir: string) => writeFileSync(join(dir, 'manifest.json'), '{}');
    for (const faulty of [async () => {}, write]) {
      await expect(writeCheckpoint({ runDir, step: 1, createdBy, write: faulty })).rejects.toMatchObject({
        code: 'ARCHER_E_INTERNAL',
      });
    }
    expect(readdirSync(runDir)).toEqual([]);
  });

  const disk = join(root, 'tiny-disk');
  mkdirSync(disk);
  let whyNot = '';
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'archer-test', disk], { stdio: 'pipe' });
  } catch (error) {
    whyNot = String((error as { stderr?: unknown }).stderr ?? error).trim();
    process.stderr.write(`skipped: checkpoint on a really full disk (cannot mount a tmpfs: ${whyNot})\n`);
  }
  afterAll(() => {
    if (whyNot === '') execFileSync('umount', [disk]);
  });
  (whyNot === '' ? test : test.skip)('a disk that is really full', async () => {
    const write = (bytes: number) => async (dir: string) => writeFileSync(join(dir, 'w'), Buffer.alloc(bytes));
    await writeCheckpoint({ runDir: disk, step: 1, createdBy, write: write(100_000) });
    const failing = writeCheckpoint({ runDir: disk, step: 2, createdBy, keep: 1, write: write(200_000) });
    await expect(failing).rejects.toMatchObject({
      code: 'ARCHER_E_IO',
      message: expect.stringMatching(/global_step_2.*ENOSPC: no space left on device/),
    });
    expect(readdirSync(disk)).toEqual(['global_step_1']);
    await verifyCheckpoint(checkpointDir(disk, 1));
    await writeCheckpoint({ runDir: disk, step: 2, createdBy, keep: 1, write: write(50_000) });
    expect(readdirSync(disk)).toEqual(['global_step_2']);
  });
});

describe('verifying', () => {
  const broken: [string, (dir: string) => void, RegExp][] = [
    ['one changed byte', (dir) => writeFileSync(join(dir, 'model.safetensors'), 'weightS'), /safetensors has other/],
    [
      'a cut file',
      (dir) => writeFileSync(join(dir, 'model.safetensors'), 'wei'),
      /safetensors has 3 bytes instead of 7/,
    ],
    ['a missing file', (dir) => rmSync(join(dir, 'trainer/state.json')), /trainer\/state.json is missing/],
    ['a missing subfolder', (dir) => rmSync(join(dir, 'trainer'), { recursive: true }), /state.json is missing/],
    ['no manifest', (dir) => rmSync(join(dir, 'manifest.json')), /manifest.json is missing/],
    [
      'a cut manifest',
      (dir) => {
        const path = join(dir, 'manifest.json');
        writeFileSync(path, readFileSync(path, 'utf8').slice(0, -40));
      },
      /manifest.json is no JSON/,
    ],
    [
      'an altered manifest',
      (dir) => {
        const path = join(dir, 'manifest.json');
        writeFileSync(path, readFileSync(path, 'utf8').replace('"step": 2', '"step": 7'));
      },
      /manifest.json was altered/,
    ],
    ['another JSON', (dir) => writeFileSync(join(dir, 'manifest.json'), '[1]'), /is no manifest/],
  ];

  test.each(broken)('%s is named, and the checkpoint before is used', async (_, damage, message) => {
    await save(1);
    await save(2);
    damage(checkpointDir(runDir, 2));
    await expect(verifyCheckpoint(checkpointDir(runDir, 2))).rejects.toMatchObject({
      code: 'ARCHER_E_CHECKPOINT',
      message: expect.stringMatching(message),
    });
    const found = await latestValid(runDir);
    expect(found.checkpoint?.step).toBe(1);
    expect(found.warnings).toEqual([expect.stringMatching(message)]);
  });

  test('a later format is refused with the reason', async () => {
    await save(1);
    const dir = checkpointDir(runDir, 1);
    const manifest = await readManifest(dir);
    writeFileSync(join(dir, 'manifest.json'), manifestText({ ...manifest, format: 2 as 1 }));
    await expect(verifyCheckpoint(dir)).rejects.toThrow('has format 2; this version reads 1');
  });

  test('steps are ordered as numbers; a folder that is not there has none', async () => {
    for (const step of [9, 100, 10]) await save(step);
    mkdirSync(join(runDir, 'global_step_x'));
    expect(await steps()).toEqual([100, 10, 9]);
    expect((await latestValid(runDir)).checkpoint?.step).toBe(100);
    expect(await latestValid(join(runDir, 'nowhere'))).toEqual({ warnings: [] });
  });

  test('a file larger than one piece is hashed as a whole', async () => {
    const content = Buffer.alloc(9 * 1024 * 1024 + 17, 7);
    const write = async (dir: string) => writeFileSync(join(dir, 'big'), content);
    const { dir } = await writeCheckpoint({ runDir, step: 1, createdBy, write });
    const expected = execFileSync('sha256sum', [join(dir, 'big')], { encoding: 'utf8' }).slice(0, 64);
    expect((await verifyCheckpoint(dir)).files).toEqual([{ path: 'big', bytes: content.length, sha256: expected }]);
    content[5 * 1024 * 1024] = 8;
    writeFileSync(join(dir, 'big'), content);
    await expect(verifyCheckpoint(dir)).rejects.toThrow('other content');
  });
});

describe('leftovers', () => {
  test('those of dead processes and our own go, those of living ones stay', async () => {
    await save(1);
    const living = `.tmp-global_step_3-${process.ppid}`;
    for (const name of [`.tmp-global_step_2-${deadPid()}`, `.tmp-global_step_2-${process.pid}`, living, '.other']) {
      mkdirSync(join(runDir, name));
      writeFileSync(join(runDir, name, 'model.safetensors'), 'half');
    }
    expect(await cleanLeftovers(runDir)).toHaveLength(2);
    expect(readdirSync(runDir).sort()).toEqual(['.other', living, 'global_step_1'].sort());
    expect(await cleanLeftovers(join(runDir, 'nowhere'))).toEqual([]);
  });

  test('a replaced checkpoint comes back where the writer died between the two renames', async () => {
    await save(4);
    execFileSync('mv', [checkpointDir(runDir, 4), join(runDir, `.old-global_step_4-${deadPid()}`)]);
    expect((await latestValid(runDir)).checkpoint).toBeUndefined();
    await cleanLeftovers(runDir);
    await verifyCheckpoint(checkpointDir(runDir, 4));
  });

  test('a replaced checkpoint goes where the new one is in place', async () => {
    await save(4, { content: 'new' });
    mkdirSync(join(runDir, `.old-global_step_4-${deadPid()}`));
    await cleanLeftovers(runDir);
    expect(readdirSync(runDir)).toEqual(['global_step_4']);
    expect(existsSync(join(checkpointDir(runDir, 4), 'manifest.json'))).toBe(true);
  });
});
