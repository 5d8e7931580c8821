// trainer.rollout_data_dir: every response of every step as JSON lines, one file per step, for looking at and for tests.
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ioError } from '../io-error.js';
import type { Collected } from './collect.js';
import type { Sample } from './types.js';

export async function writeRollouts(dir: string, step: number, collected: Collected, samples: Sample[]): Promise<void> {
  const advantages = new Map(samples.map((sample) => [sample.response, sample.advantage]));
  const lines = collected.sampled.flatMap((group) =>
    group.responses.map((response, i) =>
      JSON.stringify({
        step,
        prompt_key: group.prompt.promptKey,
        sample: i,
        prompt: group.prompt.text,
        response: response.text,
        ids: Array.from(response.ids),
        finish: response.finish,
        outcome: group.verdicts[i]?.outcome,
        reward: group.rewards[i],
        advantage: advantages.get(response) ?? null,
      }),
    ),
  );
  const path = join(dir, `step_${String(step).padStart(6, '0')}.jsonl`);
  try {
    await mkdir(dir, { recursive: true });
    await writeFile(path, `${lines.join('\n')}\n`);
  } catch (error) {
    throw ioError('write the responses to', path, error);
  }
}
