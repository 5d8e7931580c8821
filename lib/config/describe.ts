// The resolved configuration for people (YAML, each value with its source) and for programs (a hash).

import { createHash } from 'node:crypto';
import { stringify } from 'yaml';
import type { Source } from './resolve.js';
import { options, valueAt, type ResolvedConfig } from './schema.js';

/** 1e-6 rather than 0.000001. */
export function numberText(value: number): string {
  return value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential() : String(value);
}

/** One line of YAML. Text stays bare only where YAML reads it as that text in a list too; JSON's quotes are YAML's. */
function inline(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(inline).join(', ')}]`;
  if (typeof value === 'number') return numberText(value);
  if (typeof value === 'object' && value !== null) {
    const pairs = Object.entries(value).filter(([, entry]) => entry !== undefined);
    return `{ ${pairs.map(([name, entry]) => `${inline(name)}: ${inline(entry)}`).join(', ')} }`;
  }
  if (typeof value !== 'string') return String(value);
  const bare = /^[\w./-]+$/.test(value) && stringify(value).trimEnd() === value;
  return bare ? value : JSON.stringify(value);
}

/** YAML that loads again as the same configuration; every line ends with where its value came from. */
export function describe(config: ResolvedConfig, sources: ReadonlyMap<string, Source>): string {
  const lines: [string, string][] = [];
  let open: string[] = [];
  for (const key of options.keys()) {
    const parts = key.split('.');
    const path = parts.slice(0, -1);
    const shared = path.findIndex((part, depth) => open[depth] !== part);
    for (let depth = shared === -1 ? path.length : shared; depth < path.length; ++depth) {
      lines.push([`${'  '.repeat(depth)}${path[depth]}:`, '']);
    }
    open = path;
    const text = `${'  '.repeat(path.length)}${parts.at(-1)}: ${inline(valueAt(config, key))}`;
    lines.push([text, sources.get(key) ?? 'default']);
  }
  const width = Math.min(60, Math.max(...lines.map(([text]) => text.length)));
  return lines.map(([text, source]) => `${source === '' ? text : `${text.padEnd(width)}  # ${source}`}\n`).join('');
}

/**
 * Keys that change no number of a step that both runs have: where output goes, how often it is saved, how long the run
 * is (so that it can be extended), how many processes verify.
 */
const withoutNumbers = new Set([
  'trainer.save_freq',
  'trainer.max_ckpt_to_keep',
  'trainer.default_local_dir',
  'trainer.resume_mode',
  'trainer.logger',
  'trainer.project_name',
  'trainer.experiment_name',
  'trainer.rollout_data_dir',
  'reward.workers',
  'reward.self_test',
]);
/** What `eval` alone reads. */
const ofEvalAlone = /^val\.(benchmarks$|served\.)/;
const lengths = new Set(['trainer.total_training_steps', 'trainer.total_epochs']);

/**
 * SHA-256 (hex) of everything in the configuration that determines the computation. The run's length belongs to it only
 * where the learning rate depends on it (actor.optim.lr_scheduler other than constant).
 */
export function configHash(config: ResolvedConfig): string {
  const constant = config.actor.optim.lr_scheduler === 'constant';
  const kept = [...options.keys()].filter(
    (key) => !withoutNumbers.has(key) && !ofEvalAlone.test(key) && !(constant && lengths.has(key)),
  );
  const pairs = kept.sort().map((key) => [key, valueAt(config, key)]);
  return createHash('sha256').update(JSON.stringify(pairs)).digest('hex');
}
