// One entry of val.benchmarks: where its problems are, how they are asked, and what differs from val, data and reward.
import { z } from 'zod';
import { dataOptions, rewardOptions, rolloutOptions } from './schema-data.js';

const words = z.string().min(1);

const benchmark = z.strictObject({
  /** In the report, and in the id of every response. */
  name: words,
  files: dataOptions.val_files.type,
  columns: z.strictObject({ prompt: words.optional(), answer: words.optional(), source: words.optional() }).optional(),
  /** Stands around the user's message; wins over data.prompt_templates and data.instruction. */
  prompt_template: z.string().includes('{prompt}', 'a template has {prompt} in it').optional(),
  system_prompt: z.string().optional(),
  n: rolloutOptions.n.type.optional(),
  temperature: rolloutOptions.temperature.type.optional(),
  top_p: rolloutOptions.top_p.type.optional(),
  max_response_length: dataOptions.max_response_length.type.optional(),
  max_samples: z.number().int().min(0).optional(),
  reward: rewardOptions.name.type.optional(),
});

export type BenchmarkEntry = z.infer<typeof benchmark>;

export const benchmarkList = z.array(benchmark).superRefine((entries, context) => {
  entries.forEach(({ name }, i) => {
    if (entries.findIndex((other) => other.name === name) === i) return;
    context.addIssue({ code: 'custom', path: [i, 'name'], message: `two benchmarks are called ${name}` });
  });
});
