// What a data set has become, for the start-up report: rows by file, templates, and every kind of row that was left out
// or cut, counted and named.
import type { ResolvedConfig } from '../config/index.js';
import type { Dataset } from '../data/dataset.js';
import type { EncodedPrompts } from '../data/encode-prompts.js';
import type { PassRateFilter } from '../data/pass-rates.js';
import { rowsByTemplate } from '../data/prompt-template.js';
import { placeOf } from '../data/row.js';

/** So many rows are named in the report; dropped_rows.jsonl in the run's folder has all that were left out. */
const named = 3;

export function describeData(
  { rows, report }: Dataset,
  data: ResolvedConfig['data'],
  { lengths, dropped, truncated, kept }: EncodedPrompts['report'],
  filter: PassRateFilter | undefined,
): string[] {
  const lines = [
    `${kept} prompts of ${rows} rows, ${lengths.min} to ${lengths.max} tokens (mean ${lengths.mean.toFixed(0)})`,
  ];
  if (report.files.length > 1) lines.push(report.files.map((one) => `${one.file} ${one.rows} rows`).join(', '));
  const templates = Object.entries(rowsByTemplate(report.sources, data.prompt_templates));
  if (templates.length > 0) {
    lines.push(`prompt templates: ${templates.map(([name, count]) => `${name} ${count} rows`).join(', ')}`);
  }
  const limit = `longer than ${data.max_prompt_length} tokens`;
  const withLength = (one: { length: number }) => `${one.length} tokens`;
  const overlong = { dropped: `dropped as ${limit}`, truncated: `cut at the left as ${limit}` };
  if (dropped.length > 0) lines.push(countAndName(dropped, overlong.dropped, withLength));
  if (truncated.length > 0) lines.push(countAndName(truncated, overlong.truncated, withLength));
  if (filter) {
    const { above, below } = filter.bounds;
    lines.push(
      countAndName(
        filter.dropped,
        `left out, not solved more than ${above} and less than ${below} of the time`,
        (one) => `${one.passRate}`,
      ),
    );
    if (filter.withoutRate > 0) lines.push(`${filter.withoutRate} rows have no pass rate and are kept`);
  }
  if (report.emptyGroundTruth.length > 0) {
    lines.push(countAndName(report.emptyGroundTruth, 'with an empty ground truth: no verifier can reward them'));
  }
  return lines;
}

function countAndName<Where extends { file: string; line: number }>(
  cases: Where[],
  what: string,
  detail?: (one: Where) => string,
): string {
  const places = cases.slice(0, named).map((one) => (detail ? `${placeOf(one)} (${detail(one)})` : placeOf(one)));
  const list = places.length === 0 ? '' : `: ${places.join('; ')}${cases.length > named ? '; …' : ''}`;
  return `${cases.length} ${cases.length === 1 ? 'row' : 'rows'} ${what}${list}`;
}
