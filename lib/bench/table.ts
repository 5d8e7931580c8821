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
  ['theirs / floor', (row) => row.rival_over_floor?.toFixed(2) ?? '-'],
  ['extra MB', (row) => `${megabytes(row.peak_bytes)} : ${megabytes(row.rival_peak_bytes)}`],
  ['memory ratio', (row) => row.memory_ratio?.toFixed(1) ?? '-'],
  ['quotable', (row) => (row.quotable ? 'yes' : `no: ${row.reasons.join('; ')}`)],
];

const duration = (seconds: number) =>
  seconds < 1 ? `${(1000 * seconds).toPrecision(4)} ms` : `${seconds.toPrecision(4)} s`;
const megabytes = (bytes: number | null) => (bytes === null ? '-' : (bytes / 1e6).toFixed(0));

/** A line per row under a line of titles; the last column is ragged. */
export function benchTable(rows: BenchRow[]): string {
  const cells = [columns.map(([title]) => title), ...rows.map((row) => columns.map(([, cell]) => cell(row)))];
  const widths = columns.map((_, i) => Math.max(...cells.map((line) => line[i]!.length)));
  return cells
    .map(
      (line) =>
        `${line
          .map((cell, i) => cell.padEnd(i < line.length - 1 ? widths[i]! : 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}
