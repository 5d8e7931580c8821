// Python in WebAssembly as an interpreter of the sandbox: one Node process per program, under Node's permission model
// and V8's own limits. It starts from a memory image of Python with the harness loaded, which this process makes once.

import { mkdtempSync, openSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Interpreter, Limits, Sandbox } from './sandbox.js';

const runner = fileURLToPath(new URL('./pyodide-runner.mjs', import.meta.url));
const node = realpathSync(process.execPath);
/** Of Node and the compiled interpreter, beside Python's own memory. */
const overheadMiB = 768;
/** Processor time until the answer begins, on a slow machine. */
const startSeconds = 30;
const stackKiB = 64 * 1024;
const imageBytes = 256 * 2 ** 20;

/** The descriptor of the image, once there is one. */
let image: number | undefined;

/**
 * The interpreter, where the package `pyodide` is installed: beside this package, or in the project of the working
 * directory.
 */
export function findPyodide(harness: string): Interpreter | undefined {
  const folder = resolvePyodide();
  if (folder === undefined) return undefined;
  return {
    kind: 'pyodide',
    place: `in WebAssembly (${folder})`,
    folders: [folder, node, runner],
    // Until there is an image a start makes one.
    command: (limits) => ({ argv: argv(limits, [folder, ...(image === undefined ? [harness] : [])]), image }),
    prepare: async (start) => {
      image ??= await makeImage(start);
    },
  };
}

function resolvePyodide(): string | undefined {
  for (const from of [import.meta.url, join(process.cwd(), 'package.json')]) {
    try {
      return dirname(realpathSync(createRequire(from).resolve('pyodide/package.json')));
    } catch {
      // Not installed there.
    }
  }
  return undefined;
}

/** A shell sets the limits that a Node process cannot set for itself, and becomes that process. */
function argv({ memoryMiB, cpuSeconds, processes, confined }: Limits, [folder = '', ...rest]: string[]): string[] {
  const script = [
    'ulimit -c 0; ulimit -f 0; ulimit -n 64',
    `ulimit -t ${cpuSeconds + startSeconds}`,
    `ulimit -d ${(memoryMiB + overheadMiB) * 1024}`,
    `ulimit -u ${processes} 2>/dev/null || ulimit -p ${processes}`,
    // Python's own check of its depth must come before the end of V8's stack.
    'node=$1; shift',
    `ulimit -s ${stackKiB} 2>/dev/null && set -- --stack-size=${stackKiB - 4096} "$@"`,
    'set -- "$node" "$@"',
    // bubblewrap does this itself: nothing survives the worker that started it.
    ...(confined
      ? []
      : ['setpriv --pdeathsig KILL true 2>/dev/null && set -- setpriv --pdeathsig KILL --no-new-privs "$@"']),
    'exec "$@"',
  ].join('\n');
  const permission = process.allowedNodeEnvironmentFlags.has('--permission')
    ? '--permission'
    : '--experimental-permission';
  return [
    ...['/bin/sh', '-c', script, 'sh', node],
    ...['--no-warnings', permission, `--allow-fs-read=${folder}`, `--allow-fs-read=${runner}`],
    ...['--disallow-code-generation-from-strings', `--wasm-max-mem-pages=${memoryMiB * 16}`],
    ...['--max-old-space-size=256', '--v8-pool-size=1'],
    ...[runner, folder, ...rest],
  ];
}

/** In the sandbox, as everything of pyodide's. The file has no name any more: nobody can change it. */
async function makeImage(start: Sandbox['start']): Promise<number> {
  const maker = start({ mode: 'probe', code: '', cpuSeconds: 60, outputBytes: imageBytes });
  const line = await maker.receive();
  if (line === undefined) {
    const { stderr } = await maker.ended;
    throw new Error(stderr.trim().split('\n').at(-1) || 'it ended without a word');
  }
  const scratch = mkdtempSync(join(tmpdir(), 'archer-pyodide-'));
  try {
    writeFileSync(join(scratch, 'image'), Buffer.from(line, 'base64'));
    return openSync(join(scratch, 'image'), 'r');
  } finally {
    rmSync(scratch, { recursive: true });
  }
}
