// The model and the task that come with the package: what `bundled` stands for in model.path and the data files.
import { join } from 'node:path';
import { packageRoot } from '../package-root.js';

export const bundledModel = join(packageRoot, 'assets/model');

/** train: what the quickstart trains on; test: held out; hard: held out and longer. Disjoint by content. */
export function bundledTask(split: 'train' | 'test' | 'hard'): string {
  return join(packageRoot, 'assets/task', `${split}.jsonl`);
}
