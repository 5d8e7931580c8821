// Numbers, durations and rows for people.

/** About four significant digits in at most 8 characters: 0.4531, 12.35, 1234, 2.0e-6, 1.25M. Not finite: "-". */
export function formatNumber(value: number | undefined): string {
  if (value === undefined || !Number.isFinite(value)) return '-';
  const size = Math.abs(value);
  if (size === 0) return '0';
  if (size < 0.001) return value.toExponential(1);
  if (size < 10) return value.toFixed(size < 1 ? 4 : 3);
  if (size < 100) return value.toFixed(2);
  if (size < 1000) return value.toFixed(1);
  if (size < 100_000) return value.toFixed(0);
  if (size < 1e9) return `${(value / 1e6).toFixed(2)}M`;
  return value.toExponential(1);
}

/** 4.2s, 45s, 3m12s, 2h05m, 1d03h. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '-';
  if (seconds < 9.95) return `${seconds.toFixed(1)}s`;
  const whole = Math.round(seconds);
  const pad = (value: number) => String(value).padStart(2, '0');
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m${pad(whole % 60)}s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)}h${pad(minutes % 60)}m`;
  return `${Math.floor(minutes / 1440)}d${pad(Math.floor((minutes % 1440) / 60))}h`;
}

/** Cells flushed right, each at least as wide as its column. */
export function formatRow(cells: readonly string[], widths: readonly number[]): string {
  return cells.map((cell, i) => cell.padStart(widths[i] ?? 0)).join('  ');
}

/** ████░░░░, `width` characters. */
export function formatBar(fraction: number, width: number): string {
  const full = Math.round(Math.min(1, Math.max(0, fraction)) * width);
  return '█'.repeat(full) + '░'.repeat(width - full);
}
