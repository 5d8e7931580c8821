// Writes docs/configuration.md from the compiled schema. `--check` writes nothing and exits 1 where the file differs.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const target = join(root, 'docs', 'configuration.md');

let configReference;
try {
  ({ configReference } = await import(pathToFileURL(join(root, 'dist', 'config', 'reference.js')).href));
} catch (error) {
  if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error;
  console.error('dist/config/reference.js is missing: run npm run build:ts first.');
  process.exit(1);
}

const text = configReference();
if (process.argv.includes('--check')) {
  if (readFileSync(target, 'utf8') !== text) {
    console.error('docs/configuration.md is out of date: run npm run build:ts && npm run docs.');
    process.exit(1);
  }
} else {
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, text);
  console.log('docs/configuration.md written.');
}
