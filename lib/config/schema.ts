// The configuration, as one table: every key with its type, range, default, one-line doc, paper symbol and aliases.
// A key is here only if this version does what it says. docs/configuration.md is generated from this table.

import { int, isOption, num, oneOf, type Input, type Option, type Resolved, type Section } from './option.js';
import { actorOptions, algorithmOptions } from './schema-actor.js';
import { loraKeys } from './schema-lora.js';
import { dataOptions, modelOptions, rewardOptions, rolloutOptions } from './schema-data.js';
import { trainerOptions, valOptions } from './schema-run.js';

export const schema = {
  model: modelOptions,
  data: dataOptions,
  device: oneOf('auto', ['auto', 'cpu'], 'Where tensors live; this version computes on the CPU.'),
  num_threads: int(0, { min: 0, max: 1024 }, 'Threads of the native engine; 0: one per core.'),
  memory_budget: num(
    0,
    { min: 0 },
    'Memory that a run may take: bytes, or up to 1 a share of the machine’s; 0: what is free when it starts.',
  ),
  rollout: rolloutOptions,
  reward: rewardOptions,
  lora: loraKeys,
  algorithm: algorithmOptions,
  actor: actorOptions,
  trainer: trainerOptions,
  val: valOptions,
};

/** Every key with its value: what `loadConfig` returns. */
export type ResolvedConfig = Resolved<typeof schema>;

/** What a user may pass: any part of it. Aliases are accepted too, hence the index signature. */
export type ConfigInput = Input<typeof schema> & Record<string, unknown>;

function collect(section: Section, prefix: string, into: Map<string, Option<any, any>>): void {
  for (const [name, node] of Object.entries(section)) {
    if (isOption(node)) into.set(prefix + name, node);
    else collect(node, `${prefix}${name}.`, into);
  }
}

/** Every option by its dotted key, in the order of the table. */
export const options: ReadonlyMap<string, Option<any, any>> = (() => {
  const all = new Map<string, Option<any, any>>();
  collect(schema, '', all);
  return all;
})();

/** 'actor', 'actor.optim', …: what may only hold a map. */
export const sections: ReadonlySet<string> = new Set(
  [...options.keys()].flatMap((key) => {
    const parts = key.split('.');
    return parts.slice(1).map((_, depth) => parts.slice(0, depth + 1).join('.'));
  }),
);

/** Reads a dotted key of a configuration. */
export function valueAt(config: ResolvedConfig, key: string): unknown {
  return key.split('.').reduce<unknown>((node, part) => (node as Record<string, unknown>)[part], config);
}
