import { mkdir, readdir } from 'node:fs/promises';
import type { Command } from 'commander';
import { ArcherError } from '../errors.js';
import { readModelFolder } from '../model/folder.js';
import { resolveModelPath } from '../hub/resolve.js';
import { Weights } from '../native/policy.js';
import { writeModelFiles } from '../train/model-files.js';
import { printJson, runCommand } from './command.js';

interface Options {
  dtype: 'float32' | 'bfloat16';
  json?: boolean;
}

export function addExport(program: Command): void {
  program
    .command('export')
    .argument('<model>', 'Hugging Face folder, a checkpoint, or an adapter folder')
    .argument('<folder>', 'where the Hugging Face folder is written; new or empty')
    .description('write a model as one Hugging Face folder, its adapters merged into its weights')
    .option('--dtype <dtype>', 'float32 or bfloat16', 'bfloat16')
    .option('--json', 'print JSON for machines instead of text')
    .action((model: string, target: string, options: Options) =>
      runCommand(options, async ({ signal, begin }) => {
        if (!['float32', 'bfloat16'].includes(options.dtype)) {
          throw new ArcherError('ARCHER_E_CONFIG', `--dtype ${options.dtype}: it must be float32 or bfloat16.`);
        }
        const folder = await readModelFolder(resolveModelPath(model));
        await mkdir(target, { recursive: true });
        if ((await readdir(target)).length > 0) {
          throw new ArcherError('ARCHER_E_CONFIG', `${target} is not empty; name a new folder.`);
        }
        const weights = await Weights.load(folder, { dtype: options.dtype, signal });
        begin();
        await writeModelFiles(target, weights);
        weights.dispose();
        if (options.json) printJson({ folder: target, dtype: options.dtype, merged: folder.adapter !== undefined });
        else process.stdout.write(`${target}: ${options.dtype}${folder.adapter ? ', adapters merged' : ''}\n`);
      }),
    );
}
