import type { Command } from 'commander';
import pc from 'picocolors';
import { loadModelAndTokenizer } from '../rollout/policy.js';
import { makePlan, type Plan } from '../train/plan.js';
import { loadTrainingData } from '../train/setup.js';
import { type CommonOptions, loadFor, printJson, runCommand, withCommonOptions } from './command.js';
import { quickstart } from './train.js';

export function addPlan(program: Command): void {
  withCommonOptions(
    program
      .command('plan')
      .argument('[config]', 'YAML file; without one the quickstart recipe is planned')
      .description('everything that a configuration amounts to, before anything is spent'),
  ).action((file: string | undefined, options: CommonOptions) =>
    runCommand(options, async ({ signal }) => {
      const loaded = loadFor(file ?? quickstart, options);
      const { folder, tokenizer } = await loadModelAndTokenizer(loaded.config.model.path);
      const { data, validation } = await loadTrainingData(loaded.config, tokenizer, signal);
      const plan = makePlan(loaded, folder, data, validation?.prompts ?? []);
      if (options.json) printJson(plan);
      else process.stdout.write(describePlan(plan));
    }),
  );
}

function describePlan(plan: Plan): string {
  const lines: string[] = [];
  for (const [title, rows] of Object.entries(plan.sections)) {
    lines.push(pc.bold(title), ...Object.entries(rows).map(([name, value]) => `  ${name.padEnd(32)} ${value}`), '');
  }
  for (const note of plan.notes) lines.push(`${pc.yellow('note')} ${note}`);
  return `${lines.join('\n').trimEnd()}\n`;
}
