// The command line: one file per command. Nothing here loads the addon; a command does when it needs it.
import { Command } from 'commander';
import { packageVersion } from '../package-root.js';
import { addBench } from './bench.js';
import { addDoctor } from './doctor.js';
import { addEval } from './eval.js';
import { addExport } from './export.js';
import { addGenerate } from './generate.js';
import { addImport } from './import.js';
import { addPlan } from './plan.js';
import { addPull } from './pull.js';
import { addReward } from './reward.js';
import { addSetup } from './setup.js';
import { addTrain } from './train.js';

const epilogue = `
Examples:
  $ archer-native pull Qwen/Qwen2.5-1.5B-Instruct        a model of the Hugging Face hub
  $ archer-native train                                  the quickstart: bundled model, bundled task
  $ archer-native train recipes/grpo.yaml --set trainer.seed=1
  $ archer-native plan my.yaml                           what a run will cost, before anything is spent
  $ archer-native eval --model runs/archer-native/archer/global_step_50
  $ archer-native reward responses.jsonl                 score responses without a model
  $ archer-native doctor                                 is everything in working order?
  $ archer-native bench loss                             this machine, beside what people use now

Exit codes: 0 done, 1 failed, 2 wrong usage, configuration, data or model, 130 interrupted after saving.
Configuration keys: docs/configuration.md`;

export async function run(argv: string[]): Promise<void> {
  const program = new Command('archer-native')
    .description("Trains language models with verifiable rewards and Archer's entropy-aware objective.")
    .version(packageVersion)
    .showSuggestionAfterError()
    .showHelpAfterError('(--help lists the commands and their options)')
    .addHelpText('after', epilogue)
    .exitOverride();
  const commands = [
    addTrain,
    addEval,
    addGenerate,
    addExport,
    addPlan,
    addReward,
    addDoctor,
    addBench,
    addPull,
    addImport,
    addSetup,
  ];
  for (const add of commands) add(program);
  for (const command of program.commands) command.exitOverride();
  try {
    await program.parseAsync(argv);
  } catch (error) {
    // commander has printed what is wrong; its own exit code for wrong usage is 1, ours is 2
    const { exitCode } = error as { exitCode?: number };
    if (exitCode === undefined) throw error;
    process.exitCode = exitCode === 0 ? 0 : 2;
  }
}
