// The run itself: how long, where to, what is logged, and how it is evaluated. See schema.ts.

import { benchmarkList } from './benchmark.js';
import { bool, int, intOrNull, make, num, someOf, text, textOrNull } from './option.js';

export const trainerOptions = {
  total_training_steps: intOrNull(null, { min: 1 }, 'Training steps in all.', {
    aliases: ['max_steps'],
    defaultText: 'total_epochs decides',
  }),
  total_epochs: int(1, { min: 1 }, 'Passes over the training prompts, where total_training_steps is not given.', {
    aliases: ['num_train_epochs'],
  }),
  save_freq: int(10, { min: -1 }, 'Checkpoint every so many steps and after the last one; −1 or 0: never.', {
    aliases: ['save_steps'],
  }),
  test_freq: int(10, { min: -1 }, 'Validate every so many steps and after the last one; −1 or 0: never.', {
    aliases: ['eval_steps'],
  }),
  val_before_train: bool(true, 'Validate the initial model first.'),
  max_ckpt_to_keep: intOrNull(3, { min: 1 }, 'Older checkpoints are deleted; null keeps all.', {
    aliases: ['save_total_limit'],
  }),
  default_local_dir: text('runs', 'Folder that gets one folder per run.', { aliases: ['output_dir'] }),
  resume_mode: text(
    'auto',
    'auto: go on with an unfinished run of the same configuration and data; disable; or a run’s path.',
  ),
  logger: someOf(['console', 'jsonl', 'tensorboard'], ['console', 'jsonl', 'tensorboard'], 'Where metrics go.', {
    aliases: ['report_to'],
  }),
  project_name: text('archer-native', 'Name for loggers.'),
  experiment_name: text('archer', 'Name of the run and of its folder.', {
    defaultText: 'algorithm.name',
    aliases: ['run_name'],
  }),
  seed: int(42, { min: 0, max: Number.MAX_SAFE_INTEGER }, 'Every random number is keyed by it.', { aliases: ['seed'] }),
  rollout_data_dir: textOrNull(null, 'Folder that gets every response of every step as JSONL.'),
};

export const valOptions = {
  n: int(4, { min: 1 }, 'Responses per held-out prompt.'),
  temperature: num(0.8, { min: 0 }, 'Sampling temperature of validation; 0 is greedy.'),
  top_p: num(1, { above: 0, max: 1 }, 'Nucleus sampling of validation.'),
  metrics: someOf(
    ['avg@n', 'pass@k', 'maj@n'],
    ['avg@n', 'pass@k', 'maj@n'],
    'What is reported; pass@k for k = 1, 2, 4, … n.',
  ),
  max_samples: int(0, { min: 0 }, 'Validate on the first so many problems; 0: all.'),
  benchmarks: make(
    benchmarkList,
    'a list of {name, files} with columns, prompt_template, system_prompt, n, temperature, top_p, ' +
      'max_response_length, max_samples, reward as wanted',
    [],
    'What `eval` measures on (docs/evaluation.md); a key that a benchmark leaves out has the value of val, data and ' +
      'reward. Empty: data.val_files.',
  ),
  served: {
    url: textOrNull(null, 'OpenAI-compatible server that `eval` asks instead of model.path: http://host:port/v1.'),
    model: textOrNull(null, 'Name of the model on that server.'),
    api_key_env: text('OPENAI_API_KEY', 'Environment variable that holds the server’s key; unset: none is sent.'),
    concurrency: int(16, { min: 1, max: 1024 }, 'Requests under way at a time.'),
    timeout_seconds: num(3600, { above: 0 }, 'Time for one response; then the request is sent anew.'),
    max_retries: int(8, { min: 0 }, 'Further attempts of one request (429, 5xx, cut connections) before `eval` stops.'),
  },
};
