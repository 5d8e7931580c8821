// The model, the data, sampling and the reward: what is trained on what. See schema.ts.

import { z } from 'zod';
import { bool, boolOrAuto, int, ints, mapOf, num, nums, oneOf, text, texts, textOrNull } from './option.js';

export const modelOptions = {
  path: text(
    'bundled',
    'Hugging Face model folder, or `owner/name` of one that `archer-native pull` has fetched; `bundled` is the small model that comes with the package.',
    {
      aliases: ['model_name_or_path'],
    },
  ),
  dtype: oneOf('float32', ['float32', 'bfloat16'], 'Arithmetic of the model; master weights stay float32.'),
  gradient_checkpointing: boolOrAuto(
    'Compute each layer’s forward again in the backward: the same bits from less memory, in more time. auto: the memory plan decides.',
    { aliases: ['gradient_checkpointing'] },
  ),
};

export const dataOptions = {
  train_files: texts(['bundled'], 'JSONL or parquet files; `bundled` is the task that comes with the package.'),
  train_file_weights: nums(
    [],
    { above: 0 },
    'Share of the prompts that each training file gives, in the order of train_files and in any unit; empty: every row once an epoch.',
  ),
  val_files: texts(['bundled'], 'Held-out problems; an empty list switches validation off.', {
    defaultText: '`bundled` with the bundled task, else none',
  }),
  train_batch_size: int(64, { min: 1 }, 'Prompts per step (prompts, never responses).'),
  max_prompt_length: int(2048, { min: 1 }, 'Tokens of a prompt, chat template included.', {
    aliases: ['max_prompt_length'],
  }),
  max_response_length: int(8192, { min: 1 }, 'Tokens of a response; a longer one is cut.', {
    aliases: ['max_completion_length'],
  }),
  overlong_prompts: oneOf('error', ['error', 'drop', 'truncate_left'], 'What happens to a prompt that is too long.'),
  columns: {
    prompt: textOrNull(null, 'Field that holds the prompt.', { defaultText: 'verl’s and the short shape' }),
    answer: textOrNull(null, 'Field that holds the gold answer; GSM8K’s `#### n` is understood.', {
      defaultText: 'verl’s and the short shape',
    }),
    source: textOrNull(null, 'Field that names the data set (verl’s data_source).', { defaultText: '`data_source`' }),
  },
  shuffle: bool(true, 'Draw the prompts of every epoch in a new order, keyed by trainer.seed.', {
    aliases: ['shuffle_dataset'],
  }),
  apply_chat_template: bool(true, 'Wrap prompts in the tokenizer’s chat template; off: the text as it is.'),
  system_prompt: textOrNull(null, 'System message put before every prompt that has none.'),
  apply_chat_template_kwargs: mapOf(
    z.unknown(),
    'a map',
    'Further variables of the chat template, such as `{ enable_thinking: false }` for Qwen3.',
  ),
  instruction: textOrNull(null, 'Text appended to the user’s message, such as how to write the answer.'),
  prompt_templates: mapOf(
    z.string().refine((template) => template.includes('{prompt}')),
    'a map of texts with {prompt}',
    'Text around the user’s message by data source; `default` is for the other sources and wins over instruction.',
  ),
  pass_rates: {
    file: textOrNull(
      null,
      'Pass rates of the training prompts, as `eval` writes them; prompts are kept by them (docs/data.md).',
    ),
    above: num(0, { min: 0, max: 1 }, 'Only prompts with a pass rate above this.'),
    below: num(1, { min: 0, max: 1 }, 'Only prompts with a pass rate below this.'),
  },
};

export const rolloutOptions = {
  n: int(16, { min: 1 }, 'Responses per prompt: the group.', { symbol: 'G', aliases: ['num_generations'] }),
  temperature: num(1, { min: 0 }, 'Sampling temperature; the loss divides logits by the same number.', {
    symbol: 'T',
    aliases: ['temperature'],
  }),
  top_p: num(1, { above: 0, max: 1 }, 'Nucleus sampling; 1 is off.', { aliases: ['top_p'] }),
  top_k: int(-1, { min: -1 }, 'Sample from the k likeliest tokens; −1 or 0 is off.', { aliases: ['top_k'] }),
  min_p: num(0, { min: 0, max: 1 }, 'Drop tokens below this share of the likeliest one; 0 is off.', {
    aliases: ['min_p'],
  }),
  stop: texts([], 'Strings that end a response, besides the model’s EOS.'),
  stop_token_ids: ints([], { min: 0 }, 'Token ids that end a response, besides the model’s EOS.'),
  max_slots: int(0, { min: 0 }, 'Sequences decoded together; 0: as many as kv_budget_bytes allows.'),
  kv_budget_bytes: int(0, { min: 0 }, 'Bytes for the KV cache; 0: what the memory plan leaves.'),
  batch_invariant: bool(
    false,
    'Samples bit-equal whatever is decoded beside them: no arithmetic depends on the batch.',
  ),
};

export const rewardOptions = {
  name: oneOf(
    'auto',
    ['auto', 'exact', 'numeric', 'math', 'code'],
    'Built-in verifier; auto: by the row’s data_source, else math.',
  ),
  path: textOrNull(
    null,
    'Module whose default export scores (prompt, response, ground_truth, extra_info); wins over name.',
  ),
  timeout_seconds: num(10, { above: 0 }, 'Time for one response; then its worker is ended and the outcome is timeout.'),
  workers: int(0, { min: 0 }, 'Verifier processes; 0: one per core.'),
  math: {
    mode: oneOf(
      'semantic',
      ['semantic', 'archer'],
      'How math judges: by docs/math-verifier.md, or as the reference’s own grader.',
    ),
  },
  code: {
    test_seconds: num(
      6,
      { above: 0 },
      'Processor time, and wall-clock time without waiting for a processor, of one test.',
    ),
    memory_mb: int(1024, { min: 64 }, 'Address space of a judged program, in MiB.'),
    max_tests: int(0, { min: 0 }, 'Tests of a program at most, spread evenly over all; 0: all.'),
    interpreter: oneOf(
      'auto',
      ['auto', 'python3', 'pyodide'],
      'What runs judged programs; auto: python3, and where none can be isolated the npm package pyodide.',
    ),
    isolation: oneOf(
      'auto',
      ['auto', 'bubblewrap', 'rlimits'],
      'What keeps judged programs apart; auto: the strongest that works on this machine.',
    ),
  },
  self_test: bool(true, 'Before training the verifier must give 1 to gold answers and 0 to a wrong one.'),
};
