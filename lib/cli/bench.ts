// `archer-native bench <what>`: one subcommand per benchmark; progress, table and JSON are common to all.
import type { Command } from 'commander';
import { addBenchLoss } from './bench-loss.js';
import { addBenchRollout } from './bench-rollout.js';
import { addBenchStep } from './bench-step.js';
import { addBenchUpdate } from './bench-update.js';

export function addBench(program: Command): void {
  const bench = program
    .command('bench')
    .description('measure this machine: our time and memory beside what people use now')
    .addHelpText('after', '\nWhat is measured, and how: docs/benchmarks.md');
  addBenchLoss(bench);
  addBenchRollout(bench);
  addBenchStep(bench);
  addBenchUpdate(bench);
}
