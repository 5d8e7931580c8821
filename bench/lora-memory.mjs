// What one training step takes: peak memory and the update's seconds of a whole model beside adapters over the same one and
// over one eight times larger. Random weights, a process of its own per case, bfloat16, KL against the initial model.
//
//   node bench/lora-memory.mjs [--cases full,lora,lora-large] [--threads 1] [--rank 16] [--out bench/results/lora-memory.json]
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { buildInfo, memoryStats, train } from 'archer-native';
import { makeRandomModel, smollm2 } from '../dist/bench/random-model.js';

const { values: options } = parseArgs({
  options: {
    cases: { type: 'string', default: 'full,lora,lora-large' },
    threads: { type: 'string', default: '1' },
    rank: { type: 'string', default: '16' },
    out: { type: 'string', default: '' },
    run: { type: 'string' },
  },
});

// 1.10e9 parameters beside the 1.35e8 of SmolLM2-135M: a Llama with the sizes of TinyLlama and a tied head.
const large = {
  ...smollm2,
  hidden_size: 2048,
  intermediate_size: 5632,
  num_hidden_layers: 24,
  num_attention_heads: 32,
  num_key_value_heads: 4,
  vocab_size: 32_000,
};
const cases = {
  full: { shape: smollm2, rank: 0 },
  lora: { shape: smollm2, rank: Number(options.rank) },
  'lora-large': { shape: large, rank: Number(options.rank) },
};

async function measure(name) {
  const { shape, rank } = cases[name];
  const dir = mkdtempSync(join(tmpdir(), 'archer-lora-'));
  try {
    const data = join(dir, 'data.jsonl');
    writeFileSync(data, `${JSON.stringify({ prompt: 'word '.repeat(64).trim(), answer: '1' })}\n`);
    const run = train({
      config: {
        num_threads: Number(options.threads),
        model: { path: makeRandomModel(join(dir, 'model'), shape), dtype: 'bfloat16' },
        lora: { rank },
        data: { train_files: [data], train_batch_size: 1, max_response_length: 32 },
        rollout: { n: 8 },
        reward: { self_test: false },
        actor: { ppo_max_token_len: 512 },
        trainer: { total_training_steps: 1, save_freq: -1, logger: ['jsonl'], default_local_dir: dir },
      },
      reward: () => Math.random(),
    });
    for await (const { timings } of run) {
      const { rssBytes, peakRssBytes } = memoryStats();
      return { case: name, rank, rss_bytes: rssBytes, peak_rss_bytes: peakRssBytes, timings };
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

if (options.run) {
  process.stdout.write(JSON.stringify(await measure(options.run)));
} else {
  const rows = options.cases.split(',').map((name) => {
    const flags = ['--run', name, '--threads', options.threads, '--rank', options.rank];
    const { stdout, stderr, status } = spawnSync(process.execPath, [fileURLToPath(import.meta.url), ...flags], { encoding: 'utf8' });
    if (status !== 0) throw new Error(`case ${name} failed: ${stderr}`);
    const row = JSON.parse(stdout);
    console.log(name, (row.peak_rss_bytes / 2 ** 30).toFixed(2), 'GiB at most; update', row.timings['timing_s/update_actor'].toFixed(1), 's');
    return row;
  });
  const report = {
    about: 'one training step: 1 prompt of 64 tokens, 8 responses of 32, micro-batches of 512 tokens, bfloat16, KL against the initial model',
    machine: { cpu: cpus()[0]?.model, cores: availableParallelism(), node: process.version, ...buildInfo() },
    load: Number(loadavg()[0].toFixed(2)),
    rows,
  };
  if (options.out) {
    mkdirSync(dirname(options.out), { recursive: true });
    writeFileSync(options.out, `${JSON.stringify(report, null, 2)}\n`);
  }
}
