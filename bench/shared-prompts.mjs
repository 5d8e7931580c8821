// What sharing a prompt among its responses saves: forward, loss and backward of one group with its prompt once, in turn with
// the same responses that have a copy each, beside the ratio of the tokens computed, n(P + R) / (P + nR). Random weights.
//
//   node bench/shared-prompts.mjs [--n 8] [--prompt 256] [--response 256] [--dtype bfloat16] [--threads 1] [--layers 30]
//                                 [--pairs 5] [--out FILE]
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { buildInfo, loadConfig } from 'archer-native';
import { makeRandomModel, smollm2 } from '../dist/bench/random-model.js';
import { lossOptions } from '../dist/config/index.js';
import { readModelFolder } from '../dist/model/folder.js';
import { Weights } from '../dist/native/policy.js';
import { Optimizer } from '../dist/native/trainer.js';

const { values: options } = parseArgs({
  options: {
    n: { type: 'string', default: '8' },
    prompt: { type: 'string', default: '256' },
    response: { type: 'string', default: '256' },
    dtype: { type: 'string', default: 'bfloat16' },
    threads: { type: 'string', default: '1' },
    layers: { type: 'string', default: '30' },
    pairs: { type: 'string', default: '5' },
    out: { type: 'string', default: '' },
  },
});
const [n, prompt, response, threads, layers, pairs] = ['n', 'prompt', 'response', 'threads', 'layers', 'pairs'].map((key) =>
  Number(options[key]),
);

const offsets = (count, length) => Int32Array.from({ length: count + 1 }, (_, i) => i * length);
const randomIds = (count) => Int32Array.from({ length: count }, () => Math.floor(Math.random() * smollm2.vocab_size));
const promptIds = randomIds(prompt);
const tokens = n * response;
const ofResponses = {
  responseIds: randomIds(tokens),
  responseOffsets: offsets(n, response),
  lossMask: new Uint8Array(tokens).fill(1),
  oldLogProbs: new Float32Array(tokens).fill(-10),
  oldEntropies: Float32Array.from({ length: tokens }, Math.random),
  refLogProbs: new Float32Array(tokens).fill(-10),
  advantages: Float32Array.from({ length: n }, (_, i) => (i % 2 ? 1 : -1)),
  denominators: { sequences: n, tokens, lossTokens: tokens },
};
const withPrompts = (count) => ({
  ...ofResponses,
  promptIds: Int32Array.from({ length: count * prompt }, (_, t) => promptIds[t % prompt]),
  promptOffsets: offsets(count, prompt),
  promptOf: Int32Array.from({ length: n }, (_, i) => Math.min(i, count - 1)),
});
const batches = { shared: withPrompts(1), copied: withPrompts(n) };

const dir = mkdtempSync(join(tmpdir(), 'archer-shared-prompts-'));
try {
  const folder = makeRandomModel(join(dir, 'model'), { ...smollm2, num_hidden_layers: layers });
  const weights = await Weights.load(await readModelFolder(folder), { dtype: options.dtype, trainable: true, numThreads: threads });
  const adamw = { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.1, decayAll: false, gradientCheckpointing: false };
  const optimizer = await Optimizer.create(weights, adamw);
  const loss = lossOptions(loadConfig().config);

  async function once(batch) {
    const [begin, cpuBegin] = [performance.now(), process.cpuUsage()];
    await optimizer.forwardBackward(batch, loss);
    const { user, system } = process.cpuUsage(cpuBegin);
    return { seconds: (performance.now() - begin) / 1e3, cpu: (user + system) / 1e6 };
  }
  const times = { copied: [], shared: [] };
  for (let round = 0; round <= pairs; round++) {
    for (const name of round % 2 ? ['copied', 'shared'] : ['shared', 'copied']) {
      const time = await once(batches[name]);
      if (round > 0) times[name].push(time); // the first one warms up
    }
  }
  const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
  const of = (name, key) => median(times[name].map((time) => time[key]));
  const least = (name, key) => Math.min(...times[name].map((time) => time[key]));
  const report = {
    about: 'forward, loss and backward of n responses to one prompt: a copy of the prompt for each, over one for all',
    machine: { cpu: cpus()[0]?.model, cores: availableParallelism(), node: process.version, ...buildInfo() },
    load: Number(loadavg()[0].toFixed(2)),
    case: { n, prompt, response, dtype: options.dtype, threads, layers, pairs },
    seconds: { copied: of('copied', 'seconds'), shared: of('shared', 'seconds') },
    ratio: of('copied', 'seconds') / of('shared', 'seconds'),
    cpu_ratio: of('copied', 'cpu') / of('shared', 'cpu'),
    ratio_of_least_cpu: least('copied', 'cpu') / least('shared', 'cpu'),
    ratio_of_tokens: (n * (prompt + response)) / (prompt + n * response),
  };
  console.log(JSON.stringify(report, null, 2));
  if (options.out) {
    mkdirSync(dirname(options.out), { recursive: true });
    writeFileSync(options.out, `${JSON.stringify(report, null, 2)}\n`);
  }
} finally {
  rmSync(dir, { recursive: true, force: true });
}
