// Rows of a benchmark as text for people.
import type { BenchRow } from './statistics.js';

const columns: [string, (row: BenchRow) => string][] = [
  ['shape', (row) => row.shape],
  ['dtype', (row) => row.dtype],
  ['threads', (row) => String(row.threads)],
  ['memory', (row) => row.memory],
  ['against', (row) => row.against],
  ['ours', (row) => duration(row.seconds)],
  ['theirs', (row) => duration(row.rival_seconds)],
  ['ratio', (row) => row.ratio.toFixed(3)],
  ['min to max', (row) => `${row.ratio_min.toFixed(3)} to ${row.ratio_max.toFixed(3)}`],
  ['by CPU time', (row) => row.cpu_ratio.toFixed(3)],
  ['theirs / floor', (row) => row.rival_over_floor?.toFixed(2) ?? '-'],
  ['extra MB', (row) => `${megabytes(row.peak_bytes)} : ${megabytes(row.rival_peak_bytes)}`],
  ['memory ratio', (row) => row.memory_ratio?.toFixed(1) ?? '-'],
];

const duration = (seconds: number) =>
  seconds < 1 ? `${(1000 * seconds).toPrecision(4)} ms` : `${seconds.toPrecision(4)} s`;
const megabytes = (bytes: number | null) => (bytes === null ? '-' : (bytes / 1e6).toFixed(0));

/** A line per row under a line of titles, and below the reasons why some rows may not be quoted. */
export function benchTable(rows: BenchRow[]): string {
  const notes = [...new Set(rows.filter((row) => !row.quotable).map((row) => row.reasons.join('; ')))];
  const mark = (row: BenchRow) => (row.quotable ? 'yes' : `no [${notes.indexOf(row.reasons.join('; ')) + 1}]`);
  const titles = [...columns.map(([title]) => title), 'quotable'];
  const cells = [titles, ...rows.map((row) => [...columns.map(([, cell]) => cell(row)), mark(row)])];
  const widths = titles.map((_, i) => Math.max(...cells.map((line) => line[i]!.length)));
  const lines = cells.map((line) =>
    line
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd(),
  );
  return [...lines, ...notes.map((note, i) => `[${i + 1}] not quotable: ${note}`), ''].join('\n');
}
