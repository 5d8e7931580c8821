// The small tools of the set-up scripts and the command's entry point.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { parseJUnit } from '../../scripts/test.mjs';
import { atLeast, Progress, packageRoot, parseVersion, withLock } from '../../scripts/tools.mjs';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'archer-tools-'));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

test('versions out of banners', () => {
  expect(parseVersion('cmake version 3.25.1\n')).toEqual([3, 25]);
  expect(parseVersion('nothing')).toBeUndefined();
  expect(atLeast([3, 22], [3, 22])).toBe(true);
  expect(atLeast([4, 0], [3, 22])).toBe(true);
  expect(atLeast([3, 9], [3, 22])).toBe(false);
});

describe('the lock', () => {
  test('lets one in at a time', async () => {
    const path = join(folder, 'lock');
    const order: string[] = [];
    const work = (name: string) => async () => {
      order.push(`${name} in`);
      await new Promise((done) => setTimeout(done, 50));
      order.push(`${name} out`);
      return name;
    };
    expect(await Promise.all([withLock(path, work('a')), withLock(path, work('b'))])).toEqual(['a', 'b']);
    expect(order).toEqual(['a in', 'a out', 'b in', 'b out']);
    expect(existsSync(path)).toBe(false);
  });

  test('is taken over from a process that is gone, and from an empty file that stays empty', async () => {
    const path = join(folder, 'lock');
    const gone = spawnSync(process.execPath, ['-e', '']).pid;
    writeFileSync(path, String(gone));
    expect(await withLock(path, async () => readFileSync(path, 'utf8'))).toBe(String(process.pid));
    writeFileSync(path, '');
    utimesSync(path, 1, 1);
    expect(await withLock(path, async () => 'mine')).toBe('mine');
  });

  test('is released when the work fails', async () => {
    const path = join(folder, 'lock');
    const work = async () => {
      throw new Error('no');
    };
    await expect(withLock(path, work)).rejects.toThrow('no');
    expect(existsSync(path)).toBe(false);
  });
});

describe('progress', () => {
  const collect = (isTTY: boolean) => {
    const written: string[] = [];
    return { isTTY, written, write: (text: string) => written.push(text) };
  };

  test('plain lines, one per quarter, where there is no terminal', () => {
    const stream = collect(false);
    const progress = new Progress('libtorch', 1000, stream);
    for (let done = 0; done <= 1000; done += 10) progress.update(done);
    progress.end();
    expect(stream.written).toEqual([25, 50, 75, 100].map((percent) => `libtorch: ${percent} %\n`));
  });

  test('a bar that is wiped away on a terminal', () => {
    const stream = collect(true);
    const progress = new Progress('libtorch', 200e6, stream);
    progress.update(50e6);
    progress.end();
    expect(stream.written[0]).toContain(`${'█'.repeat(6)}${'░'.repeat(18)} 50 MB of 200 MB`);
    expect(stream.written.at(-1)).toBe('\r\u001b[2K');
  });
});

test("CTest's report is read: passed, failed, skipped with its reason", () => {
  const xml = `<testsuite><testcase name="a" classname="a" time="0.1" status="run"><system-out>fine</system-out></testcase>
    <testcase name="b" classname="b" time="0.1" status="fail"><failure message=""/><system-out>x &lt; y</system-out></testcase>
    <testcase name="c" classname="c" time="0" status="notrun"><skipped message="SKIP_RETURN_CODE=77"/><system-out>skipped: no GPU
</system-out></testcase><testcase name="d" classname="d" status="notrun"/></testsuite>`;
  expect(parseJUnit(xml)).toEqual([
    { name: 'a', status: 'run', text: 'fine' },
    { name: 'b', status: 'fail', text: 'x < y' },
    { name: 'c', status: 'notrun', text: 'skipped: no GPU\n' },
    { name: 'd', status: 'notrun', text: '' },
  ]);
});

describe('bin/archer-native.js', () => {
  const command = join(packageRoot, 'bin', 'archer-native.js');

  /** Runs the command as if Node had this version. */
  function withNode(version: string, path = command) {
    const disguise = `data:text/javascript,Object.defineProperty(process.versions,'node',{value:'${version}'})`;
    return spawnSync(process.execPath, ['--import', disguise, path, '--version'], { encoding: 'utf8' });
  }

  test('checks the versions of engines', () => {
    const { engines } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8'));
    expect(engines.node).toBe('^20.19.0 || >=22.12.0');
    for (const version of ['18.20.0', '20.18.3', '21.7.0', '22.11.0']) {
      const { status, stderr } = withNode(version);
      expect(stderr).toContain(`needs Node 20.19 or newer (of 22: 22.12 or newer); this is ${version}.`);
      expect(status).toBe(2);
    }
  });

  test('says what to run where dist/ is missing, in a clone and in a package, on every supported Node', () => {
    const path = join(folder, 'bin', 'archer-native.js');
    mkdirSync(join(folder, 'bin'));
    writeFileSync(path, readFileSync(command));
    writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
    for (const version of ['20.19.0', '22.12.0', '23.0.0', '24.1.0']) {
      const { status, stderr } = withNode(version, path);
      expect(stderr).toContain('is not complete');
      expect(status).toBe(1);
    }
    mkdirSync(join(folder, 'lib'));
    expect(withNode('20.19.0', path).stderr).toContain('Run `npm ci`, or `npm run build`');
  });

  test('ends quietly when the reader of its output leaves', () => {
    mkdirSync(join(folder, 'bin'));
    mkdirSync(join(folder, 'dist', 'cli'), { recursive: true });
    writeFileSync(join(folder, 'bin', 'archer-native.js'), readFileSync(command));
    writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
    writeFileSync(
      join(folder, 'dist', 'cli', 'main.js'),
      "export function run() { setInterval(() => process.stdout.write('line\\n'), 1); }\n",
    );
    const script = `'${process.execPath}' bin/archer-native.js | head -n 1; exit "\${PIPESTATUS[0]}"`;
    const { status, stdout, stderr } = spawnSync('bash', ['-c', script], {
      encoding: 'utf8',
      cwd: folder,
      timeout: 30_000,
    });
    expect({ status, stdout, stderr }).toEqual({ status: 141, stdout: 'line\n', stderr: '' });
  });
});
