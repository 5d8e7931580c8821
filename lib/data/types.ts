// What a data set hands to the rest of the package: one row = one prompt with its ground truth.

/** One turn of a conversation. `role` is system, user, assistant or whatever the model's chat template knows. */
export interface ChatMessage {
  role: string;
  content: string;
}

/** One prompt of a data set, in the shape every reward and every rollout sees, whatever the file looked like. */
export interface Row {
  /** Position over all files, in the order in which they were named; stable as long as the files are. */
  index: number;
  /** Names the prompt by its content, wherever it stands: 16 hex digits of the SHA-256 of the file's messages. */
  id: string;
  /** A string prompt becomes one user message. */
  prompt: ChatMessage[];
  /** The accepted answer, or a list of accepted answers. Numbers and objects of the file arrive as (JSON) text. */
  groundTruth: string | string[];
  /** verl's `data_source`; without one `<folder>/<file name>`, so that metrics of two files stay apart. */
  dataSource: string;
  /** verl's `extra_info`; for the short form every field that is not prompt, answer or source. */
  extraInfo: Record<string, unknown>;
  /** For messages: `line` is the line of a JSONL file or the row of a parquet file, both from 1. */
  origin: { file: string; line: number };
}

/** Which fields hold what. A dotted name reaches into objects (`reward_model.ground_truth`). */
export interface DataColumns {
  prompt?: string;
  answer?: string;
  source?: string;
}
