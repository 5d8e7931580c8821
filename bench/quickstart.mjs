// The quickstart's claim, measured: held-out accuracy before and after, Archer beside GRPO at the same budget, and a
// control whose rewards are shuffled among the responses of a step (it must not learn).
//
//   node bench/quickstart.mjs [--seeds 1,2,3] [--arms archer,grpo,shuffled] [--out bench/results/quickstart.json]
//                             [--append: keep the file's runs and add to them] [--merge other.json,…: and theirs] [--set k=v …]
//   node bench/quickstart.mjs --append --merge other.json --arms none     brings measurements together
//
// Each run is the shipped recipe with another seed. test.jsonl and hard.jsonl are evaluated with n = 8 at T = 1 before and
// after. Intervals: over problems by bootstrap for one run, over seeds by Student's t for an arm. Every run records its
// own --set: arms whose seconds are of no interest may run with num_threads=1 beside each other. Writes after every run, so that an interrupted measurement keeps what it has.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, tmpdir, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { execFile } from 'node:child_process';
import { buildInfo, train } from 'archer-native';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { values: options } = parseArgs({
  options: {
    seeds: { type: 'string', default: '1,2,3' },
    arms: { type: 'string', default: 'archer,grpo,shuffled' },
    out: { type: 'string', default: join(root, 'bench/results/quickstart.json') },
    append: { type: 'boolean', default: false },
    merge: { type: 'string', default: '' },
    set: { type: 'string', multiple: true, default: [] },
  },
});

const recipes = { archer: 'quickstart.yaml', grpo: 'grpo.yaml', shuffled: 'quickstart.yaml' };
const run = promisify(execFile);

/** The true verdicts of a step, handed out to the wrong responses. All responses of a step are asked for in one turn. */
function shuffledRewards(seed) {
  let state = (seed * 2654435761 + 1) >>> 0;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  let waiting = [];
  return ({ response, groundTruth }) =>
    new Promise((resolve) => {
      const boxed = [...response.matchAll(/\\boxed\{(-?\d+)\}/g)].at(-1)?.[1];
      waiting.push({ right: boxed === groundTruth ? 1 : 0, resolve });
      if (waiting.length > 1) return;
      setImmediate(() => {
        const batch = waiting;
        waiting = [];
        const verdicts = batch.map(({ right }) => right);
        for (let i = verdicts.length - 1; i > 0; i--) {
          const j = Math.floor(random() * (i + 1));
          [verdicts[i], verdicts[j]] = [verdicts[j], verdicts[i]];
        }
        batch.forEach((one, i) => one.resolve(verdicts[i]));
      });
    });
}

async function evaluate(model, split, seed) {
  const args = ['bin/archer-native.js', 'eval', '--json', '-m', model, '-d', join(root, `assets/task/${split}.jsonl`), '-n', '8', '-t', '1'];
  const sets = [`trainer.seed=${seed}`, 'data.max_response_length=128', ...options.set.filter((one) => one.startsWith('num_threads'))];
  const { stdout } = await run(process.execPath, [...args, ...sets.flatMap((one) => ['--set', one])], { cwd: root, maxBuffer: 1 << 26 });
  const result = JSON.parse(stdout);
  const [metrics] = Object.values(result.bySource);
  const { ok = 0, wrong = 0 } = result.outcomes;
  return {
    avg8: metrics['avg@8'],
    interval: [metrics['avg@8/ci_low'], metrics['avg@8/ci_high']],
    pass8: metrics['pass@8'],
    maj8: metrics['maj@8'],
    well_formed: ok + wrong,
    median_tokens: result.responseLength.median,
    truncated: result.truncated,
  };
}

async function trainOnce(arm, seed, dir) {
  const started = performance.now();
  const training = train({
    file: join(root, 'recipes', recipes[arm]),
    sets: [
      `trainer.seed=${seed}`,
      `trainer.default_local_dir=${dir}`,
      'trainer.experiment_name=run',
      'trainer.logger=[jsonl]',
      ...(arm === 'shuffled' ? ['reward.self_test=false'] : []),
      ...options.set,
    ],
    ...(arm === 'shuffled' ? { reward: shuffledRewards(seed) } : {}),
  });
  const curve = [];
  let last;
  for await (const record of training) {
    last = record;
    const reward = record.metrics['critic/score/mean'];
    if (reward !== undefined) curve.push(Number(reward.toFixed(4)));
    process.stderr.write(`\r${arm} seed ${seed}: step ${record.step}, reward ${reward?.toFixed(3) ?? '-'}   `);
  }
  process.stderr.write('\n');
  return { seconds: (performance.now() - started) / 1000, steps: last.step, curve, model: join(training.runDir, `global_step_${last.step}`) };
}

// 97.5 % quantiles of Student's t for n − 1 degrees of freedom
const student = { 2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262 };

function overSeeds(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, values.length - 1));
  const half = student[values.length] === undefined ? null : (student[values.length] * deviation) / Math.sqrt(values.length);
  return { mean, half_width_95: half };
}

const report = {
  about: 'avg@8 at T = 1 on held-out problems, before and after the quickstart',
  machine: { cpu: cpus()[0]?.model, cores: cpus().length, memory_gib: Math.round(totalmem() / 2 ** 30), node: process.version, ...buildInfo() },
  load_before: loadavg().map((value) => Number(value.toFixed(2))),
  runs: [],
  summary: {},
};
const bases = new Map();
const earlier = [...(options.append && existsSync(options.out) ? [options.out] : []), ...options.merge.split(',').filter(Boolean)];
report.runs = earlier.flatMap((file) => JSON.parse(readFileSync(file, 'utf8')).runs);
for (const { seed, before } of report.runs) bases.set(seed, before);
const arms = options.arms === 'none' ? [] : options.arms.split(',');

function write() {
  for (const name of new Set(report.runs.map((one) => one.arm))) {
    const runs = report.runs.filter((one) => one.arm === name);
    report.summary[name] = Object.fromEntries(
      ['test', 'hard'].map((split) => [
        split,
        {
          before: overSeeds(runs.map((one) => one.before[split].avg8)),
          after: overSeeds(runs.map((one) => one.after[split].avg8)),
          gain: overSeeds(runs.map((one) => one.after[split].avg8 - one.before[split].avg8)),
        },
      ]),
    );
  }
  mkdirSync(dirname(options.out), { recursive: true });
  writeFileSync(options.out, `${JSON.stringify(report, null, 2)}\n`);
}

for (const seed of options.seeds.split(',').map(Number)) {
  for (const arm of arms) {
    if (!bases.has(seed)) bases.set(seed, { test: await evaluate('bundled', 'test', seed), hard: await evaluate('bundled', 'hard', seed) });
    const dir = mkdtempSync(join(tmpdir(), 'archer-quickstart-'));
    const { model, ...training } = await trainOnce(arm, seed, dir);
    const after = { test: await evaluate(model, 'test', seed), hard: await evaluate(model, 'hard', seed) };
    rmSync(dir, { recursive: true, force: true });
    report.runs.push({ arm, seed, set: options.set, ...training, load: Number(loadavg()[0].toFixed(2)), before: bases.get(seed), after });
    write();
    const gain = after.test.avg8 - bases.get(seed).test.avg8;
    console.log(
      `${arm} seed ${seed}: test ${bases.get(seed).test.avg8.toFixed(3)} -> ${after.test.avg8.toFixed(3)} (${(100 * gain).toFixed(1)} points), ` +
        `hard ${bases.get(seed).hard.avg8.toFixed(3)} -> ${after.hard.avg8.toFixed(3)}, ${training.seconds.toFixed(0)} s`,
    );
  }
}

write();
const percent = ({ mean, half_width_95: half }) => `${(100 * mean).toFixed(1)}${half === null ? '' : ` ± ${(100 * half).toFixed(1)}`}`;
console.log('\n| | held out, before | after | gain | harder split, before | after |\n|---|---|---|---|---|---|');
for (const [name, { test, hard }] of Object.entries(report.summary)) {
  console.log(`| ${name} | ${percent(test.before)} | ${percent(test.after)} | ${percent(test.gain)} | ${percent(hard.before)} | ${percent(hard.after)} |`);
}
