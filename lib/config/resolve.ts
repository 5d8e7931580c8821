// Entries to a resolved configuration: aliases become keys, values are checked, and defaults < preset < file < flag.

import { ArcherError } from '../errors.js';
import { crossCheck } from './checks.js';
import { placed, type Entry, type Origin, type Reading } from './entries.js';
import { aliases, unknownKey } from './names.js';
import type { Option } from './option.js';
import { presetOf } from './presets.js';
import type { AlgorithmName } from './schema-actor.js';
import { options, type ResolvedConfig } from './schema.js';

/** Where a value came from. An object that was passed in counts as a file. */
export type Source = 'default' | 'preset' | 'file' | 'flag';

export interface LoadedConfig {
  config: ResolvedConfig;
  sources: Map<string, Source>;
  /** What is allowed but surely not meant: a key without effect, a truncated sampling distribution. */
  warnings: string[];
}

interface Given {
  value: unknown;
  path: string;
  where: string;
  source: Origin;
}

export function show(value: unknown): string {
  const text = typeof value === 'number' ? String(value) : (JSON.stringify(value) ?? String(value));
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

/** Why a text that looks like the right thing is not: YAML reads it as text. */
function textHint(option: Option<any, any>, value: unknown): string {
  if (typeof value !== 'string') return '';
  const number = value.replace(/(?<=\d)[_,](?=\d)/g, '');
  if (number.trim() === '' || !option.type.safeParse(Number(number)).success) return '';
  return `; ${show(value)} is text in YAML: write ${Number(number)}${number === value ? ' without quotes' : ''}`;
}

function checkValue(key: string, given: Given, problems: string[]): unknown {
  const option = options.get(key)!;
  const parsed = option.type.safeParse(given.value);
  if (parsed.success) return parsed.data;
  const hint = textHint(option, given.value);
  const name = given.path === key ? key : `${given.path} (${key})`;
  const inner = parsed.error.issues.filter(({ path, code }) => path.length > 1 || code === 'unrecognized_keys');
  for (const { path, message } of inner) {
    problems.push(
      `${name}${path.map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`)).join('')}: ${message}${placed(given.where)}.`,
    );
  }
  if (inner.length === 0)
    problems.push(`${name} takes ${option.range}, not ${show(given.value)}${hint}${placed(given.where)}.`);
  return option.default;
}

/** The given values of one origin by key. The last of several equal flags counts. */
function gather(entries: Entry[], problems: string[]): Map<string, Given> {
  const given = new Map<string, Given>();
  const soft: [string, Given][] = [];
  for (const { path, value, where, origin } of entries) {
    const renamed = aliases.get(path);
    const key = renamed?.key ?? path;
    if (!options.has(key)) {
      problems.push(`${unknownKey(path)}${placed(where)}`);
      continue;
    }
    const before = given.get(key);
    if (before !== undefined && before.path !== path) {
      problems.push(`${path} and ${before.path} are the same key, ${key}: give one of them${placed(where)}.`);
      continue;
    }
    const converted = renamed?.alias.convert ? renamed.alias.convert(value) : value;
    const entry: Given = { value: converted, path, where, source: origin };
    given.set(key, entry);
    for (const other of renamed?.alias.also ?? []) soft.push([other, entry]);
  }
  for (const [key, entry] of soft) if (!given.has(key)) given.set(key, entry);
  return given;
}

function assign(config: Record<string, any>, key: string, value: unknown): void {
  const parts = key.split('.');
  const last = parts.pop()!;
  let node = config;
  for (const part of parts) node = node[part] ??= {};
  node[last] = value;
}

/** Defaults that depend on other values. */
function derive(config: ResolvedConfig, isGiven: (key: string) => boolean, warnings: string[]): void {
  if (!isGiven('actor.ppo_mini_batch_size')) {
    config.actor.ppo_mini_batch_size = Math.min(config.actor.ppo_mini_batch_size, config.data.train_batch_size);
  }
  if (!isGiven('trainer.experiment_name')) config.trainer.experiment_name = config.algorithm.name;
  if (isGiven('data.train_files') && !isGiven('data.val_files') && config.data.train_files.join() !== 'bundled') {
    config.data.val_files = [];
    warnings.push('There is no validation: data.train_files is given and data.val_files is not.');
  }
}

export function fail(problems: string[]): never {
  const [first] = problems;
  if (problems.length === 1) throw new ArcherError('ARCHER_E_CONFIG', first!);
  const list = problems.map((problem) => `  - ${problem}`).join('\n');
  throw new ArcherError('ARCHER_E_CONFIG', `The configuration has ${problems.length} faults:\n${list}`);
}

export function resolve({ entries, problems }: Reading): LoadedConfig {
  const warnings: string[] = [];
  const given = new Map<string, Given>();
  for (const origin of ['file', 'flag'] as const) {
    const some = gather(
      entries.filter((entry) => entry.origin === origin),
      problems,
    );
    for (const [key, entry] of some) given.set(key, entry);
  }
  const values = new Map<string, unknown>();
  for (const [key, entry] of given) values.set(key, checkValue(key, entry, problems));

  const name = (values.get('algorithm.name') ?? options.get('algorithm.name')!.default) as AlgorithmName;
  const fidelity = (values.get('algorithm.fidelity') ?? 'paper') as 'paper' | 'reference';
  const preset = presetOf(name, fidelity);

  const config = {} as ResolvedConfig;
  const sources = new Map<string, Source>();
  for (const [key, option] of options) {
    const entry = given.get(key);
    const inPreset = Object.hasOwn(preset, key);
    sources.set(key, entry?.source ?? (inPreset ? 'preset' : 'default'));
    assign(config, key, entry ? values.get(key) : structuredClone(inPreset ? preset[key] : option.default));
  }
  if (config.actor.kl_loss_type === 'k3') config.actor.kl_loss_type = 'low_var_kl';
  derive(config, (key) => given.has(key), warnings);

  // A value that is wrong by itself has been named; what follows from it would only repeat that.
  if (problems.length === 0) {
    crossCheck({
      config,
      isGiven: (key) => given.has(key),
      place: (key) => placed(given.get(key)?.where ?? ''),
      problems,
      warnings,
    });
  }
  if (problems.length > 0) fail(problems);
  return { config, sources, warnings };
}
