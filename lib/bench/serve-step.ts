// Ours in `bench step`: the trainer of `archer-native train` on prompts given as ids; nothing ends a response before its full
// length. Phases are what is taken from the addon and from the reward; what TypeScript does between them is in none.
import { setMaxListeners } from 'node:events';
import { loadConfig } from '../config/index.js';
import { createSampler } from '../data/sampler.js';
import { ArcherError } from '../errors.js';
import { combineSinks } from '../metrics/sink.js';
import { buildInfo } from '../native/engine.js';
import { Weights } from '../native/policy.js';
import { Optimizer } from '../native/trainer.js';
import { createScorer } from '../reward/score.js';
import { LocalEngine } from '../rollout/local-engine.js';
import { loadModelAndTokenizer } from '../rollout/policy.js';
import { Trainer } from '../train/trainer.js';
import type { TrainPrompt } from '../train/types.js';
import { Meter } from './meter.js';
import { randomSequences, readSamplingTask, type Served, serve } from './serve.js';
import { tokensPerPass } from './step.js';

await serve('archer', make);

async function make(): Promise<Served> {
  const task = readSamplingTask();
  const { libtorch, cpuCapability } = buildInfo();
  const meter = new Meter(); // after the libraries; the model counts
  const { config } = loadConfig({
    object: {
      num_threads: task.threads,
      model: { path: task.model, dtype: task.dtype === 'bf16' ? 'bfloat16' : 'float32' },
      data: { train_batch_size: task.batch, max_response_length: task.newTokens },
      rollout: { n: task.n },
      actor: {
        old_log_prob: task.recompute ? 'recompute' : 'auto',
        ppo_mini_batch_size: task.batch,
        ppo_max_token_len: tokensPerPass,
      },
      trainer: { save_freq: -1, test_freq: -1 },
    },
  });
  const { folder: found, tokenizer } = await loadModelAndTokenizer(task.model);
  const folder = { ...found, eosTokenIds: [] };
  const { dtype } = config.model;
  const weights = await Weights.load(folder, { dtype, numThreads: task.threads, trainable: true });
  const reference = await Weights.load(folder, { dtype, numThreads: task.threads });
  const { optim } = config.actor;
  const optimizer = await Optimizer.create(weights, {
    beta1: optim.betas[0],
    beta2: optim.betas[1],
    eps: optim.eps,
    weightDecay: optim.weight_decay,
    decayAll: optim.decay_norms_and_biases,
    gradientCheckpointing: false,
  });
  const engine = new LocalEngine({ weights, tokenizer, maxSlots: 0, kvBudgetBytes: 0 });
  let judged = 0;
  const scorer = await createScorer({ fn: () => judged++ % 2 }); // every group has both, so no advantage is 0
  meter.wrap(engine, 'generate', 'generate');
  meter.wrap(scorer, 'score', 'score');
  meter.wrap(weights, 'score', 'score');
  meter.wrap(reference, 'score', 'score');
  meter.wrap(optimizer, 'forwardBackward', 'forward_backward');
  meter.wrap(optimizer, 'step', 'optimizer');
  const trainer = new Trainer({
    config,
    weights,
    optimizer,
    reference,
    initialModel: { path: folder.path, hash: '' },
    engine,
    scorer,
    sampler: createSampler({ size: task.batch, seed: config.trainer.seed }),
    memory: { microBatchTokens: tokensPerPass, kvBudgetBytes: 0 },
    keepBuffers: true, // as a run does where memory is not short
    prompts: randomSequences(task.batch, task.promptTokens, folder.nativeConfig.vocabSize).map(promptOf),
    validation: [],
    runDir: '',
    totalSteps: Number.MAX_SAFE_INTEGER,
    createdBy: '',
    sinks: combineSinks([]),
    jsonl: undefined,
  });
  const { signal } = new AbortController();
  setMaxListeners(0, signal); // one per response that is judged
  const tokens = task.batch * (task.promptTokens + task.newTokens) * task.n;
  return {
    details: { libtorch, cpuCapability },
    meter,
    iterate: async () => {
      const { metrics } = await trainer.step(signal);
      if (metrics['perf/total_num_tokens'] === tokens && metrics['batch/kept_groups'] === task.batch) return;
      throw new ArcherError(
        'ARCHER_E_INTERNAL',
        `${metrics['perf/total_num_tokens']} tokens in ${metrics['batch/kept_groups']} groups were trained on in place of ${tokens} in ${task.batch}.`,
      );
    },
  };
}

function promptOf(ids: number[], index: number): TrainPrompt {
  const row = {
    index,
    id: String(index),
    prompt: [],
    groundTruth: '',
    dataSource: 'random',
    extraInfo: {},
    origin: { file: 'random', line: index + 1 },
  };
  return { promptKey: index, ids: Int32Array.from(ids), row, text: '' };
}
