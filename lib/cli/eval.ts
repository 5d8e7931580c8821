import { createWriteStream } from 'node:fs';
import type { Command } from 'commander';
import pc from 'picocolors';
import { ArcherError } from '../errors.js';
import { Weights } from '../native/policy.js';
import { LocalEngine } from '../rollout/local-engine.js';
import { loadModelAndTokenizer } from '../rollout/policy.js';
import { type EvaluationResult, evaluate, evaluationSampling } from '../train/evaluate.js';
import { loadPrompts, makeScorer, resolveDataFiles } from '../train/setup.js';
import { type CommonOptions, loadFor, printJson, runCommand, toNumber, withCommonOptions } from './command.js';

interface Options extends CommonOptions {
  model?: string;
  data?: string[];
  n?: number;
  temperature?: number;
  maxTokens?: number;
  out?: string;
}

export function addEval(program: Command): void {
  withCommonOptions(
    program
      .command('eval')
      .argument('[config]', 'YAML file; its val and reward sections say how; without one the defaults hold')
      .description('measure a model on held-out problems: avg@n, unbiased pass@k, maj@n, with 95 % intervals over problems'),
  )
    .option('-m, --model <folder>', 'Hugging Face folder, a checkpoint, owner/name of a pulled model, or bundled (model.path)')
    .option('-d, --data <file...>', 'JSONL or parquet files, or bundled (data.val_files)')
    .option('-n <count>', 'responses per problem (val.n)', toNumber)
    .option('-t, --temperature <value>', 'sampling temperature (val.temperature)', toNumber)
    .option('--max-tokens <count>', 'longest response (data.max_response_length)', toNumber)
    .option('-o, --out <file>', 'write every response with its outcome as JSON lines')
    .action((file: string | undefined, options: Options) =>
      runCommand(options, async ({ signal, begin }) => {
        const { config } = loadFor(file, options, {
          model: { path: options.model },
          data: { val_files: options.data, max_response_length: options.maxTokens },
          val: { n: options.n, temperature: options.temperature },
        });
        const { folder, tokenizer } = await loadModelAndTokenizer(config.model.path);
        if (config.data.val_files.length === 0) {
          throw new ArcherError('ARCHER_E_CONFIG', 'There is nothing to evaluate on; name files with --data or data.val_files.');
        }
        const data = await loadPrompts(resolveDataFiles(config.data.val_files, 'test'), tokenizer, config.data, signal);
        const scorer = await makeScorer(config, undefined);
        try {
          const weights = await Weights.load(folder, { dtype: config.model.dtype, numThreads: config.num_threads, signal });
          begin();
          const out = options.out ? createWriteStream(options.out) : undefined;
          const prompts = config.val.max_samples > 0 ? data.prompts.slice(0, config.val.max_samples) : data.prompts;
          const result = await evaluate({
            prompts,
            engine: new LocalEngine({
              weights,
              tokenizer,
              maxSlots: config.rollout.max_slots,
              kvBudgetBytes: config.rollout.kv_budget_bytes,
              batchInvariant: config.rollout.batch_invariant,
            }),
            scorer,
            sampling: evaluationSampling(config),
            metrics: config.val.metrics,
            seed: config.trainer.seed,
            signal,
            onProgress: progressLine(options.json ?? false),
            onProblem: ({ prompt, responses }) => {
              out?.write(`${JSON.stringify({ index: prompt.row.index, prompt: prompt.text, ground_truth: prompt.row.groundTruth, responses })}\n`);
            },
          });
          await new Promise<void>((resolve, reject) => {
            if (!out) return resolve();
            out.on('error', reject);
            out.end(resolve);
          });
          weights.dispose();
          if (options.json) printJson({ model: folder.path, n: config.val.n, temperature: config.val.temperature, ...result });
          else process.stdout.write(describeResult(result));
        } finally {
          await scorer.dispose();
        }
      }),
    );
}

function progressLine(json: boolean): ((done: number, total: number) => void) | undefined {
  if (json || !process.stderr.isTTY) return undefined;
  return (done, total) => {
    const end = done >= total ? '\r\x1b[K' : '';
    process.stderr.write(`\r${Math.floor(done)} of ${total} problems${end}`);
  };
}

function describeResult(result: EvaluationResult): string {
  const percent = (value: number | undefined) => `${((value ?? 0) * 100).toFixed(1)} %`;
  const lines: string[] = [];
  for (const [source, metrics] of Object.entries(result.bySource)) {
    lines.push(pc.bold(source));
    for (const [name, value] of Object.entries(metrics)) {
      if (name.includes('/ci_')) continue;
      const interval = `${percent(metrics[`${name}/ci_low`])} to ${percent(metrics[`${name}/ci_high`])}`;
      lines.push(`  ${name.padEnd(10)} ${percent(value).padStart(7)}   ${pc.dim(interval)}`);
    }
  }
  const outcomes = Object.entries(result.outcomes).filter(([, share]) => share > 0);
  lines.push(
    `${result.problems} problems, ${result.responses} responses: ${outcomes.map(([name, share]) => `${name} ${percent(share)}`).join(', ')}`,
    `response length: mean ${result.responseLength.mean.toFixed(1)}, median ${result.responseLength.median}, max ${result.responseLength.max} tokens; cut at the limit: ${percent(result.truncated)}`,
  );
  return `${lines.join('\n')}\n`;
}
