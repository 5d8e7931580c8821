// The math verifier on labelled pairs: accuracy by kind of answer and time per pair. Needs a built dist/
// (npm run build:ts).
//
//   node bench/math-verdicts.mjs [FILE.jsonl] [--mode semantic|archer]
//
// A line is {id, response, ground_truth, label, kind}. The rows are also counted in two parts, split by a hash of the
// id, so that work on the rules can look at one part and leave the other for a count.

import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { verifyMath } from '../dist/reward/math.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { mode: { type: 'string', default: 'semantic' } },
});
const [file = '../shared/data/math-verdicts/dev.jsonl'] = positionals;
if (!existsSync(file)) {
  console.error(`There is no ${file}; name a file of labelled pairs.`);
  process.exit(2);
}

const rows = readFileSync(file, 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line));
const judge = (row) =>
  verifyMath(
    { prompt: '', response: row.response, groundTruth: row.ground_truth, extraInfo: {}, dataSource: '' },
    { mode: values.mode },
  );
for (const row of rows) judge(row);

const isHeldBack = (row) => Number.parseInt(createHash('md5').update(row.id).digest('hex').slice(0, 4), 16) % 10 >= 6;
const counts = new Map();
const times = [];
let undeserved = 0;
for (const row of rows) {
  const start = performance.now();
  const isRight = judge(row).score === 1;
  times.push(performance.now() - start);
  if (isRight && !row.label) undeserved += 1;
  if (isRight !== row.label) console.log(`differs: ${row.id} ${row.kind} (label ${row.label})`);
  for (const key of [row.kind, isHeldBack(row) ? '[held back]' : '[looked at]', '[all]']) {
    const [agree, all] = counts.get(key) ?? [0, 0];
    counts.set(key, [agree + (isRight === row.label ? 1 : 0), all + 1]);
  }
}
for (const [key, [agree, all]] of [...counts].sort()) {
  console.log(`${key.padEnd(20)} ${agree} of ${all} (${((100 * agree) / all).toFixed(1)} %)`);
}
times.sort((a, b) => a - b);
const quantile = (share) => times[Math.min(times.length - 1, Math.floor(share * times.length))].toFixed(3);
console.log(`undeserved rewards: ${undeserved}`);
console.log(`ms a pair: median ${quantile(0.5)}, 99 % ${quantile(0.99)}, most ${quantile(1)}`);
