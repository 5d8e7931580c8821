// Loads every golden model, saves it again through the package, and writes the package's logits beside it; check_saved.py
// then opens the saved folders with transformers.
//
//   node tools/goldens/save_folders.mjs OUT && python tools/goldens/check_saved.py OUT
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Policy } from 'archer-native';
import { writeModelFiles } from '../../dist/train/model-files.js';

const out = process.argv[2];
const golden = join(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), 'test/golden');
const { cases } = JSON.parse(readFileSync(join(golden, 'model-goldens.json'), 'utf8'));
for (const { name, folder, sequences } of cases) {
  const policy = await Policy.load(join(golden, folder));
  const dir = join(out, name);
  mkdirSync(dir, { recursive: true });
  await writeModelFiles(dir, policy.weights);
  const logits = [];
  for (const ids of sequences) logits.push(Array.from(await policy.logits(ids)));
  writeFileSync(join(dir, 'expected.json'), JSON.stringify({ sequences, logits }));
  policy.dispose();
}
