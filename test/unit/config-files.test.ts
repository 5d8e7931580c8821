// The recipes and the generated reference page.

import { describe, expect, test } from '@jest/globals';
import { readdirSync, readFileSync } from 'node:fs';
import { configReference, loadConfig, options } from '../../lib/config/index.js';

const recipes = readdirSync('recipes').filter((name) => name.endsWith('.yaml'));
const load = (name: string) => loadConfig({ file: `recipes/${name}` });

describe('recipes', () => {
  test('the first ones are there', () => {
    expect(recipes).toEqual(
      expect.arrayContaining(['quickstart.yaml', 'grpo.yaml', 'dapo.yaml', 'archer-math-1.5b.yaml']),
    );
  });

  test.each(recipes)('%s loads without a warning', (name) => {
    expect(load(name).warnings).toEqual([]);
  });

  test('grpo has the budget of quickstart: it differs in the objective alone', () => {
    const [archer, grpo] = [load('quickstart.yaml').config, load('grpo.yaml').config];
    for (const section of ['model', 'data', 'rollout', 'reward', 'val'] as const)
      expect(grpo[section]).toEqual(archer[section]);
    expect(grpo.actor.optim).toEqual(archer.actor.optim);
    expect({ ...grpo.trainer, experiment_name: '' }).toEqual({ ...archer.trainer, experiment_name: '' });
    for (const key of ['ppo_epochs', 'ppo_mini_batch_size', 'grad_clip'] as const)
      expect(grpo.actor[key]).toBe(archer.actor[key]);
  });

  test('archer-math-1.5b has the hyperparameters of the paper', () => {
    const { data, rollout, actor, trainer, val } = load('archer-math-1.5b.yaml').config;
    expect([rollout.n, data.train_batch_size, actor.ppo_mini_batch_size, trainer.total_training_steps]).toEqual([
      16, 64, 32, 520,
    ]);
    expect([data.max_prompt_length, data.max_response_length]).toEqual([2048, 32768]);
    expect(actor.optim).toMatchObject({
      lr: 1e-6,
      betas: [0.9, 0.999],
      eps: 1e-8,
      weight_decay: 0.1,
      lr_warmup_steps: 10,
    });
    expect([val.n, val.temperature, val.top_p]).toEqual([64, 0.8, 1]);
  });
});

describe('docs/configuration.md', () => {
  test('is what the schema says (npm run build:ts && npm run docs)', () => {
    expect(readFileSync('docs/configuration.md', 'utf8')).toBe(configReference());
  });

  test('has every key once, and no broken table row', () => {
    const rows = configReference()
      .split('\n')
      .filter((line) => line.startsWith('| `'));
    const tables = rows.filter((row) => row.split(/(?<!\\)\|/).length === 8);
    for (const key of options.keys())
      expect(rows.filter((row) => row.startsWith(`| \`${key}\` |`)).length).toBeGreaterThan(0);
    expect(rows.every((row) => row.split(/(?<!\\)\|/).length === 8)).toBe(true);
    expect(tables.length).toBeGreaterThanOrEqual(options.size);
  });
});
