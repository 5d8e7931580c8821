import { spawn } from 'node:child_process';
import { join } from 'node:path';
import type { Command } from 'commander';
import { ArcherError } from '../errors.js';
import { addonPath, readBuildRecord } from '../native/load.js';
import { packageRoot } from '../package-root.js';
import { type CommonOptions, printJson, runCommand } from './command.js';

export function addSetup(program: Command): void {
  program
    .command('setup')
    .description('find or fetch libtorch and build the native addon; nothing is done that is done already')
    .option('--json', 'end with one line of JSON: what was built with what')
    .addHelpText(
      'after',
      `
Needs a C++20 compiler (g++ 12 or later), CMake 3.22 or later, and python3 with pip where libtorch must be fetched.
  ARCHER_LIBTORCH      a libtorch folder to use
  ARCHER_LIBTORCH_URL  a wheel or archive to fetch instead of the pinned one (with ARCHER_LIBTORCH_SHA256)`,
    )
    .action((options: CommonOptions) =>
      runCommand(options, async () => {
        await buildNative(options.json ?? false);
        if (options.json) printJson({ addon: addonPath(), ...readBuildRecord() });
      }),
    );
}

/** Runs the build script, with its own progress display. */
function buildNative(json: boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join(packageRoot, 'scripts/build-native.mjs')], {
      // stdout belongs to the machine with --json
      stdio: ['inherit', json ? process.stderr : 'inherit', 'inherit'],
    });
    child.on('error', reject);
    child.on('exit', (code, signal) => {
      if (code === 0) resolve();
      else reject(new ArcherError('ARCHER_E_SETUP', `The native build failed (${signal ?? `exit code ${code}`}); the lines above say why.`));
    });
  });
}
