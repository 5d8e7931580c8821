#!/usr/bin/env node
// The command: checks Node's version, then hands over to dist/cli/main.js. Written so that an old Node gets this far.
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

// package.json's engines; a test keeps the two together.
const supported = (major, minor) => (major === 20 && minor >= 19) || (major === 22 && minor >= 12) || major > 22;

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const main = join(root, 'dist', 'cli', 'main.js');
const [major, minor] = process.versions.node.split('.').map(Number);

if (!supported(major, minor)) {
  process.stderr.write(
    `archer-native needs Node 20.19 or newer (of 22: 22.12 or newer); this is ${process.versions.node}. Install a newer Node.\n`,
  );
  process.exitCode = 2;
} else if (!existsSync(main)) {
  const inClone = existsSync(join(root, 'lib'));
  process.stderr.write(
    inClone
      ? `archer-native is not compiled: ${main} is not there. Run \`npm ci\`, or \`npm run build\` after a change.\n`
      : `archer-native is not complete: ${main} is not there. Install it again.\n`,
  );
  process.exitCode = 1;
} else {
  // A reader that left (`archer-native plan | head`) ends the command as SIGPIPE would, without a stack.
  process.stdout.on('error', (error) => {
    if (error.code !== 'EPIPE') throw error;
    process.exit(141);
  });
  const { run } = await import(pathToFileURL(main).href);
  await run(process.argv);
}
