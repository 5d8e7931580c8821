// Adapters instead of the whole model, in PEFT's words. See schema.ts.

import type { LoraOptions } from '../native/types.js';
import { int, num, type Resolved, texts } from './option.js';

/** The projections of a layer, by PEFT's names. */
export const loraModules = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'] as const;
export const allLinear = 'all-linear';

export const loraKeys = {
  rank: int(0, { min: 0 }, 'Trains adapters of this rank over the frozen model; 0: the whole model is trained.', {
    symbol: 'r',
    aliases: ['lora_rank', 'lora_r'],
  }),
  alpha: num(16, { above: 0 }, 'The adapters’ product is scaled by alpha / rank.', { aliases: ['lora_alpha'] }),
  target_modules: texts(
    [allLinear],
    `Which projections get adapters: \`all-linear\`, or a list out of ${loraModules.join(', ')}.`,
    {
      aliases: ['lora_target_modules'],
    },
  ),
};

/** Of fresh adapters; undefined where the whole model is trained. */
export function loraOptions(config: {
  lora: Resolved<typeof loraKeys>;
  trainer: { seed: number };
}): LoraOptions | undefined {
  const { rank, alpha, target_modules: targets } = config.lora;
  if (rank === 0) return undefined;
  const isTarget = (name: string) => targets.includes(name) || targets.includes(allLinear);
  return { rank, alpha, targetModules: loraModules.filter(isTarget), seed: config.trainer.seed };
}
