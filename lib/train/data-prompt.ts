// A prompt of a data set whose row is read when it is asked for: a large data set keeps token ids alone in memory.
import type { Dataset } from '../data/dataset.js';
import type { EncodedPrompt } from '../data/encode-prompts.js';
import type { Row } from '../data/types.js';
import type { TrainPrompt } from './types.js';

export class DataPrompt implements TrainPrompt {
  readonly promptKey: number;
  readonly ids: Int32Array;
  readonly #index: number;
  readonly #dataset: Dataset;
  #known: WeakRef<Row> | undefined;

  constructor(dataset: Dataset, { index, promptKey, ids }: EncodedPrompt) {
    this.promptKey = promptKey;
    this.ids = ids;
    this.#index = index;
    this.#dataset = dataset;
  }

  get row(): Row {
    const known = this.#known?.deref();
    if (known) return known;
    const row = this.#dataset.get(this.#index);
    this.#known = new WeakRef(row);
    return row;
  }

  get text(): string {
    return this.row.prompt.findLast((message) => message.role === 'user')?.content ?? '';
  }
}
