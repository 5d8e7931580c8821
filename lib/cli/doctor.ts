import type { Command } from 'commander';
import pc from 'picocolors';
import { messageOf } from '../errors.js';
import { type CheckResult, doctorChecks } from '../train/doctor.js';
import { type CommonOptions, loadFor, printJson, runCommand, withCommonOptions } from './command.js';
import { quickstart } from './train.js';

export function addDoctor(program: Command): void {
  withCommonOptions(
    program
      .command('doctor')
      .argument('[config]', 'YAML file; without one the quickstart recipe is examined')
      .description('check addon, libtorch, threads, model, tokenizer, chat template, reward and every gradient of the loss'),
  ).action((file: string | undefined, options: CommonOptions) =>
    runCommand(options, async ({ signal }) => {
      const { config } = loadFor(file ?? quickstart, options);
      const results: CheckResult[] = [];
      for (const { name, run } of doctorChecks(config, signal)) {
        let result: CheckResult;
        try {
          result = { name, ok: true, detail: await run() };
        } catch (error) {
          result = { name, ok: false, detail: messageOf(error) };
        }
        results.push(result);
        if (!options.json) {
          const mark = result.ok ? pc.green('ok  ') : pc.red('FAIL');
          process.stdout.write(`${mark} ${name.padEnd(18)} ${result.detail}\n`);
        }
      }
      const failed = results.filter((result) => !result.ok).length;
      if (options.json) printJson({ ok: failed === 0, checks: results });
      if (failed > 0) process.exitCode = 1;
    }),
  );
}
