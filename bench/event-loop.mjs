// How long the event loop is held up while a run trains: Node's own histogram of its delay, beside the same histogram of an
// idle process. Recorded, not asserted: the test (test/native/engine.test.ts) counts turns instead.
//
//   node bench/event-loop.mjs [--steps 3] [--out bench/results/event-loop.json]
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { buildInfo, train } from 'archer-native';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { values: options } = parseArgs({
  options: {
    steps: { type: 'string', default: '3' },
    out: { type: 'string', default: join(root, 'bench/results/event-loop.json') },
  },
});

const resolutionMs = 1;

/** Delays beyond the timer's own resolution, in milliseconds. */
async function delaysDuring(work) {
  const histogram = monitorEventLoopDelay({ resolution: resolutionMs });
  histogram.enable();
  await work();
  histogram.disable();
  const ms = (nanoseconds) => Number((nanoseconds / 1e6).toFixed(2));
  return { p50: ms(histogram.percentile(50)), p99: ms(histogram.percentile(99)), p999: ms(histogram.percentile(99.9)), max: ms(histogram.max) };
}

const idle = await delaysDuring(() => new Promise((resolve) => setTimeout(resolve, 5000)));
const dir = mkdtempSync(join(tmpdir(), 'archer-event-loop-'));
const sets = [
  `trainer.total_training_steps=${options.steps}`,
  `trainer.default_local_dir=${dir}`,
  'trainer.logger=[jsonl]',
  'trainer.save_freq=-1',
  'data.val_files=[]',
  'trainer.experiment_name=run',
];
const training = await delaysDuring(async () => {
  for await (const _ of train({ file: join(root, 'recipes/quickstart.yaml'), sets }));
});
rmSync(dir, { recursive: true, force: true });
const report = {
  about: 'event loop delay in milliseconds, timer resolution 1 ms, quickstart steps with the default number of threads',
  machine: { cpu: cpus()[0]?.model, cores: availableParallelism(), node: process.version, ...buildInfo() },
  load: Number(loadavg()[0].toFixed(2)),
  steps: Number(options.steps),
  idle_ms: idle,
  training_ms: training,
};
mkdirSync(dirname(options.out), { recursive: true });
writeFileSync(options.out, `${JSON.stringify(report, null, 2)}\n`);
console.log(JSON.stringify(report, null, 2));
