// Rows of a benchmark as text for people.
import type { BenchRow } from './statistics.js';

// A column that says nothing of any row is left out.
const columns: [string, (row: BenchRow) => string | undefined][] = [
  ['shape', (row) => row.shape],
  ['dtype', (row) => row.dtype],
  ['threads', (row) => String(row.threads)],
  ['memory', (row) => row.memory],
  ['against', (row) => row.against],
  ['ours', (row) => duration(row.seconds)],
  ['theirs', (row) => duration(row.rival_seconds)],
  ['tokens/s', tokensPerSecond],
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
  const shown = columns.filter(([, cell]) => rows.some((row) => cell(row) !== undefined));
  const titles = [...shown.map(([title]) => title), 'quotable'];
  const lines = aligned([titles, ...rows.map((row) => [...shown.map(([, cell]) => cell(row) ?? '-'), mark(row)])]);
  return [...lines, ...phaseLines(rows), ...notes.map((note, i) => `[${i + 1}] not quotable: ${note}`), ''].join('\n');
}

/** A line per row and phase, where rows have phases. */
function phaseLines(rows: BenchRow[]): string[] {
  const cells = rows.flatMap((row) =>
    Object.entries(row.phases ?? {}).map(([phase, cost]) => [
      `${row.shape} ${row.dtype}`,
      String(row.threads),
      row.memory,
      row.against,
      phase,
      duration(cost.seconds),
      duration(cost.rival_seconds),
      cost.ratio.toFixed(3),
      `${megabytes(cost.peak_bytes)} : ${megabytes(cost.rival_peak_bytes)}`,
    ]),
  );
  const titles = ['shape', 'threads', 'memory', 'against', 'phase', 'ours', 'theirs', 'ratio', 'extra MB'];
  return cells.length === 0 ? [] : ['', ...aligned([titles, ...cells])];
}

function aligned(cells: string[][]): string[] {
  const widths = cells[0]!.map((_, i) => Math.max(...cells.map((line) => line[i]!.length)));
  return cells.map((line) =>
    line
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd(),
  );
}

const rate = (value: number) => (value < 100 ? value.toPrecision(3) : value.toFixed(0));

function tokensPerSecond({ tokens_per_second: ours, rival_tokens_per_second: theirs }: BenchRow): string | undefined {
  return ours === undefined || theirs === undefined ? undefined : `${rate(ours)} : ${rate(theirs)}`;
}
