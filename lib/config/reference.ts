// docs/configuration.md, generated from the schema and the presets.

import { numberText } from './describe.js';
import type { Option } from './option.js';
import { presets } from './presets.js';
import { options } from './schema.js';

const head = `# Configuration

This page is generated from \`lib/config/schema.ts\` (\`npm run docs\`). A configuration is YAML, \`--set key=value\` on
the command line, or an object in TypeScript; the keys are the same everywhere. Each value comes from the strongest of:
default < preset (\`algorithm.name\`, \`algorithm.fidelity\`) < file < \`--set\`. Relative paths start at the working
directory.

- Names are verl's. TRL's words are accepted too, at the top level or in the key's section; a key and its alias together
  are an error.
- An unknown key is an error that names the nearest known one. All faults are reported at once, with file, line and
  column.
- A key without effect under the chosen algorithm is a warning.
- \`train_batch_size\` and \`ppo_mini_batch_size\` count prompts; a step has \`train_batch_size × rollout.n\` responses.
- YAML reads \`1_000\` and \`"8"\` as text: write \`1000\` and \`8\`.
`;

const presetNotes = `## Presets

\`algorithm.name\` stands for these values; any of them can still be set. \`archer\` with \`fidelity: paper\` is what
the paper says (arXiv 2507.15778), with \`fidelity: reference\` what its authors' code computes. \`grpo\` is
DeepSeekMath's form with verl's KL weight of 0.001 (DeepSeekMath took 0.04). The GRPO baseline of the Archer paper is
\`grpo\` with \`actor.clip_ratio_high: 0.28\` and \`actor.kl_loss_coef: 0\`.
`;

/** Vertical bars and line ends would break a table. */
function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('\n', ' ');
}

function valueText(value: unknown): string {
  if (value === null) return '`null`';
  if (Array.isArray(value)) return value.length === 0 ? '`[]`' : `\`[${value.map(itemText).join(', ')}]\``;
  if (typeof value === 'object') return '`{}`';
  return `\`${itemText(value)}\``;
}

function itemText(value: unknown): string {
  return typeof value === 'number' ? numberText(value) : String(value);
}

function aliasText({ aliases }: Option<any, any>): string {
  return aliases.map(({ word, note }) => `\`${word}\`${note === undefined ? '' : ` (${note})`}`).join(', ');
}

function table(header: string[], rows: string[][]): string {
  const line = (cells: string[]) => `| ${cells.map(cell).join(' | ')} |`;
  return [line(header), `|${header.map(() => '---|').join('')}`, ...rows.map(line)].join('\n');
}

function optionTable(keys: string[]): string {
  const rows = keys.map((key) => {
    const option = options.get(key)!;
    const inPreset = Object.values(presets).some((preset) => Object.hasOwn(preset, key)) ? ' (preset)' : '';
    const fallback = (option.defaultText ?? valueText(option.default)) + inPreset;
    return [`\`${key}\``, option.range, fallback, option.doc, option.symbol ?? '', aliasText(option)];
  });
  return table(['key', 'values', 'default', 'meaning', 'symbol', 'also'], rows);
}

function presetTable(): string {
  const keys = [...options.keys()].filter((key) => Object.values(presets).some((preset) => Object.hasOwn(preset, key)));
  const rows = keys.map((key) => [
    `\`${key}\``,
    ...Object.values(presets).map((preset) => (Object.hasOwn(preset, key) ? valueText(preset[key]) : '')),
  ]);
  return table(['key', ...Object.keys(presets)], rows);
}

/** The Markdown text of the reference page. */
export function configReference(): string {
  const bySection = new Map<string, string[]>();
  for (const key of options.keys()) {
    const section = key.includes('.') ? key.slice(0, key.indexOf('.')) : '';
    bySection.set(section, [...(bySection.get(section) ?? []), key]);
  }
  const parts = [...bySection].map(
    ([section, keys]) => `## ${section === '' ? 'Machine' : section}\n\n${optionTable(keys)}\n`,
  );
  return [head, `${presetNotes}\n${presetTable()}\n`, ...parts].join('\n');
}
