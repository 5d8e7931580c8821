import type { Command } from 'commander';
import pc from 'picocolors';
import { type PullProgress, pull } from '../hub/pull.js';
import { hubSettings } from '../hub/settings.js';
import { formatDuration } from '../metrics/format.js';
import { type CommonOptions, printJson, runCommand } from './command.js';

interface Options extends CommonOptions {
  dataset?: boolean;
  revision: string;
  include?: string[];
  exclude?: string[];
}

const environment = `
Environment, as in Python: HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME, HF_HUB_CACHE.
Without --include a model's safetensors, configuration and tokenizer are fetched, and all of a data set.`;

export function addPull(program: Command): void {
  program
    .command('pull')
    .argument('<owner/name>', 'a model of the Hugging Face hub, or a data set with --dataset')
    .description('download into the cache that is shared with Python; the same command goes on after an interruption')
    .option('--dataset', 'a data set')
    .option('--revision <revision>', 'branch, tag or commit', 'main')
    .option('--include <glob...>', 'only these files')
    .option('--exclude <glob...>', 'none of these files')
    .option('--json', 'print JSON for machines instead of text')
    .addHelpText('after', environment)
    .action((name: string, options: Options) =>
      runCommand(options, ({ signal }) => run(name, options, signal), 'Interrupted: what is downloaded is kept.'),
    );
}

async function run(name: string, options: Options, signal: AbortSignal): Promise<void> {
  const isShown = !options.json && process.stderr.isTTY;
  const settings = hubSettings();
  const result = await pull({
    name,
    type: options.dataset ? 'dataset' : 'model',
    revision: options.revision,
    include: options.include,
    exclude: options.exclude,
    settings,
    signal,
    onWait: (reason, ms) => {
      if (ms >= 2000)
        process.stderr.write(`${isShown ? '\r\x1b[K' : ''}${reason}; waiting ${formatDuration(ms / 1000)}\n`);
    },
    onProgress: isShown ? statusLine() : undefined,
    onFile: ({ path, bytes, cached }) => {
      if (isShown) process.stderr.write('\r\x1b[K');
      if (!options.json) process.stdout.write(`  ${path}  ${pc.dim(`${size(bytes)}${cached ? ', cached' : ''}`)}\n`);
    },
  });
  if (options.json) printJson({ repo: name, revision: options.revision, ...result });
  else process.stdout.write(`${result.folder}\n`);
}

/** One line, ten times a second: 45 %  1.20 of 2.69 GB, 34 MB/s, 44s left */
function statusLine(): (progress: PullProgress) => void {
  const beganMs = performance.now();
  let shownMs = 0;
  return ({ bytes, totalBytes, received }) => {
    const nowMs = performance.now();
    if (nowMs - shownMs < 100) return;
    shownMs = nowMs;
    const rate = received / ((nowMs - beganMs) / 1000);
    const percent = Math.floor((100 * bytes) / totalBytes);
    const left = formatDuration((totalBytes - bytes) / rate);
    process.stderr.write(`\r${percent} %  ${size(bytes)} of ${size(totalBytes)}, ${size(rate)}/s, ${left} left\x1b[K`);
  };
}

function size(bytes: number): string {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(2)} GB`;
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.ceil(bytes / 1e3)} kB`;
}
