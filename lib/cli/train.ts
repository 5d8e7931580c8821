import { join } from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import { describe } from '../config/index.js';
import type { StepRecord } from '../metrics/sink.js';
import { packageRoot } from '../package-root.js';
import { TrainingRun } from '../train/run.js';
import { type CommonOptions, loadFor, printJson, runCommand, withCommonOptions } from './command.js';

interface Options extends CommonOptions {
  printConfig?: boolean;
  profile?: string | true;
}

export const quickstart = join(packageRoot, 'recipes/quickstart.yaml');

/** `--profile my.yaml` means a configuration that stands in the wrong place, and must not write over it. */
function traceFile(path: string): string {
  if (path.endsWith('.json')) return path;
  throw new InvalidArgumentError(`${path} does not end in .json; the configuration stands before --profile.`);
}

export function addTrain(program: Command): void {
  withCommonOptions(
    program
      .command('train')
      .argument('[config]', 'YAML file; without one the quickstart recipe runs')
      .description('train a model; an unfinished run of the same configuration goes on where it was'),
  )
    .option('--print-config', 'print the resolved configuration with the source of every value, and stop')
    .option(
      '--profile [file.json]',
      'write a Chrome trace of where the time goes (default: trace.json in the run’s folder)',
      traceFile,
    )
    .action((file: string | undefined, options: Options) =>
      runCommand(options, async ({ signal, begin }) => {
        // stdout belongs to the machine then: the table would be in its way
        const loaded = loadFor(
          file ?? quickstart,
          options,
          options.json ? { trainer: { logger: ['jsonl', 'tensorboard'] } } : {},
        );
        if (options.printConfig) {
          process.stdout.write(describe(loaded.config, loaded.sources));
          return;
        }
        const onPrepared = () => {
          begin();
          if (options.json) printJson({ event: 'plan', memory: run.memoryPlan });
        };
        const run = new TrainingRun(loaded, { signal, onPrepared, profile: options.profile });
        let last: StepRecord | undefined;
        for await (const record of run) {
          last = record;
          if (options.json) printJson({ event: 'step', ...record });
        }
        if (options.json) printJson({ event: 'finished', run_dir: run.runDir, step: last?.step ?? null });
      }),
    );
}
