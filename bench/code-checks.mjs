// The code verifier's checks per second: a trivial program with one test, through the pool of workers. Needs a built
// dist/ (npm run build:ts).
//
//   node bench/code-checks.mjs [--checks 100] [--workers 2] [--interpreter auto|python3|pyodide]
//                              [--isolation auto|bubblewrap|rlimits]

import { parseArgs } from 'node:util';
import { createScorer } from '../dist/reward/score.js';

const { values } = parseArgs({
  options: {
    checks: { type: 'string', default: '100' },
    workers: { type: 'string', default: '2' },
    interpreter: { type: 'string', default: 'auto' },
    isolation: { type: 'string', default: 'auto' },
  },
});
const workers = Number(values.workers);
const { interpreter, isolation } = values;
const scorer = await createScorer({ name: 'code', workers, code: { interpreter, isolation } });
const input = {
  prompt: '',
  response: '```python\nprint(sum(map(int, input().split())))\n```',
  groundTruth: JSON.stringify({ inputs: ['3 4\n'], outputs: ['7\n'] }),
  extraInfo: {},
  dataSource: 'code',
};
try {
  await scorer.score(new Array(2 * workers).fill(input)); // starts every worker
  const start = performance.now();
  const verdicts = await scorer.score(new Array(Number(values.checks)).fill(input));
  const seconds = (performance.now() - start) / 1000;
  const passed = verdicts.filter(({ outcome }) => outcome === 'ok').length;
  console.log(
    `${(verdicts.length / seconds).toFixed(1)} checks/s (${workers} workers), ${passed} of ${verdicts.length} pass`,
  );
  if (passed < verdicts.length) process.exitCode = 1;
} finally {
  await scorer.dispose();
}
