import type { Command } from 'commander';
import { ArcherError } from '../errors.js';
import { importGguf } from '../gguf/import.js';
import { resolveModelPath } from '../hub/resolve.js';
import { type CommonOptions, printJson, runCommand } from './command.js';

interface Options extends CommonOptions {
  out: string;
  dtype: string;
  tokenizer?: string;
}

export function addImport(program: Command): void {
  program
    .command('import')
    .argument('<file>', 'GGUF file: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K, Q6_K; Llama, Qwen2, Qwen3')
    .description('turn a GGUF file into a Hugging Face model folder')
    .requiredOption('-o, --out <folder>', 'the folder to make')
    .option('--dtype <dtype>', 'of the weights: bfloat16, or float32 to keep every bit', 'bfloat16')
    .option(
      '--tokenizer <folder>',
      'take the tokenizer files of this folder, or of a pulled owner/name, instead of rebuilding them',
    )
    .option('--json', 'print JSON for machines instead of text')
    .action((file: string, options: Options) =>
      runCommand(options, ({ signal }) => run(file, options, signal), 'Interrupted: the draft is removed.'),
    );
}

async function run(file: string, { out, dtype, tokenizer, json }: Options, signal: AbortSignal): Promise<void> {
  if (dtype !== 'float32' && dtype !== 'bfloat16') {
    throw new ArcherError('ARCHER_E_CONFIG', `--dtype ${dtype}: it must be float32 or bfloat16.`);
  }
  const isShown = !json && process.stderr.isTTY;
  let shown = -1;
  const parameters = await importGguf({
    file,
    out,
    dtype,
    tokenizerFolder: tokenizer === undefined ? undefined : resolveModelPath(tokenizer),
    signal,
    onProgress: (done, total) => {
      const percent = Math.floor((100 * done) / total);
      if (!isShown || percent === shown) return;
      shown = percent;
      process.stderr.write(`\r${percent} %${done === total ? '\r\x1b[K' : ''}`);
    },
  });
  if (json) printJson({ folder: out, parameters, dtype });
  else process.stdout.write(`${out}: ${(parameters / 1e6).toFixed(2)} M parameters, ${dtype}\n`);
}
