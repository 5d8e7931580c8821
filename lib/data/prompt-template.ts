// Prompt templates by data source: a text around the last user message, such as how to write the answer.

import type { Dataset } from './dataset.js';
import type { Row } from './types.js';

/** What a template puts in the place of the prompt. */
export const promptPlace = '{prompt}';

/** data_source -> text with {prompt}; `default` is for the sources that are not named. */
export type PromptTemplates = Readonly<Record<string, string>>;

/** The data set with every prompt in its source's template. */
export function withTemplates(dataset: Dataset, templates: PromptTemplates): Dataset {
  if (Object.keys(templates).length === 0) return dataset;
  return { ...dataset, get: (i) => filled(dataset.get(i), templates) };
}

/** Rows by the template that they get, for the start-up report: { default: 12, 'gsm8k/train': 7473 }. */
export function rowsByTemplate(sources: Record<string, number>, templates: PromptTemplates): Record<string, number> {
  const rows: Record<string, number> = Object.fromEntries(Object.keys(templates).map((name) => [name, 0]));
  for (const [source, count] of Object.entries(sources)) {
    const name = templateName(source, templates);
    if (name !== undefined) rows[name] = (rows[name] as number) + count;
  }
  return rows;
}

function templateName(source: string, templates: PromptTemplates): string | undefined {
  if (Object.hasOwn(templates, source)) return source;
  return Object.hasOwn(templates, 'default') ? 'default' : undefined;
}

function filled(row: Row, templates: PromptTemplates): Row {
  const name = templateName(row.dataSource, templates);
  const last = row.prompt.findLastIndex((message) => message.role === 'user');
  if (name === undefined || last === -1) return row;
  const prompt = row.prompt.map((message, at) =>
    at === last
      ? { ...message, content: (templates[name] as string).replaceAll(promptPlace, () => message.content) }
      : message,
  );
  return { ...row, prompt };
}
