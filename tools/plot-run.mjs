// Draws a run's metrics.jsonl (mean reward; entropy of reasoning and knowledge tokens) and prints its means over tenths of the
// run as a Markdown table.
//   node tools/plot-run.mjs RUN/metrics.jsonl OUT.svg
import { readFileSync, writeFileSync } from 'node:fs';

const [source, target] = process.argv.slice(2);
if (!source || !target) {
  console.error('node tools/plot-run.mjs RUN/metrics.jsonl OUT.svg');
  process.exit(2);
}
const steps = readFileSync(source, 'utf8')
  .split('\n')
  .filter(Boolean)
  .map((line) => JSON.parse(line))
  .filter((row) => row['critic/rewards/mean'] !== undefined);
const last = Math.max(...steps.map((row) => row.step));

const panels = [
  { title: 'mean reward of the sampled responses', lines: [['reward', 'critic/rewards/mean', '#1b6ca8']] },
  {
    title: 'entropy by class, nats',
    lines: [
      ['reasoning tokens', 'actor/reasoning/entropy', '#c4622d'],
      ['knowledge tokens', 'actor/knowledge/entropy', '#3a7d44'],
    ],
  },
];
const [width, height, left, top] = [440, 220, 44, 34];
const panelWidth = width + left + 28;

const svg = panels.map(({ title, lines }, at) => {
  const high = niceCeiling(Math.max(...lines.flatMap(([, key]) => steps.map((row) => row[key]))));
  const x = (step) => left + at * panelWidth + (width * step) / last;
  const y = (value) => top + height * (1 - value / high);
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => {
    const value = part * high;
    return (
      `<line x1="${x(0)}" x2="${x(last)}" y1="${y(value)}" y2="${y(value)}" stroke="#ddd"/>` +
      `<text x="${x(0) - 6}" y="${y(value) + 4}" text-anchor="end">${Number(value.toPrecision(3))}</text>` +
      `<text x="${x(part * last)}" y="${top + height + 16}" text-anchor="middle">${Math.round(part * last)}</text>`
    );
  });
  const drawn = lines.map(([name, key, colour], i) => {
    const points = steps.map((row) => `${x(row.step).toFixed(1)},${y(row[key]).toFixed(1)}`).join(' ');
    return (
      `<polyline points="${points}" fill="none" stroke="${colour}" stroke-width="1.8"/>` +
      `<text x="${x(last) - 8}" y="${top + 16 + 15 * i}" text-anchor="end" fill="${colour}">${name}</text>`
    );
  });
  return `<text x="${x(0)}" y="${top - 14}" font-weight="bold">${title}</text>${ticks.join('')}${drawn.join('')}`;
});
const size = `${panels.length * panelWidth} ${top + height + 40}`;
writeFileSync(
  target,
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size}" font-family="sans-serif" font-size="12">` +
    `<rect width="100%" height="100%" fill="white"/>${svg.join('')}` +
    `<text x="${left + width / 2}" y="${top + height + 33}" text-anchor="middle">training step</text></svg>\n`,
);

const columns = [
  ['reward', 'critic/rewards/mean', 3],
  ['entropy, reasoning', 'actor/reasoning/entropy', 2],
  ['entropy, knowledge', 'actor/knowledge/entropy', 3],
  ['tokens a response', 'response_length/mean', 1],
  ['groups that teach', 'batch/kept_groups', 1],
];
console.log(`| steps | ${columns.map(([name]) => name).join(' | ')} |\n|---${'|---'.repeat(columns.length)}|`);
const size10 = Math.ceil(steps.length / 10);
for (let from = 0; from < steps.length; from += size10) {
  const part = steps.slice(from, from + size10);
  const means = columns.map(([, key, digits]) => (part.reduce((sum, row) => sum + row[key], 0) / part.length).toFixed(digits));
  console.log(`| ${part[0].step} to ${part.at(-1).step} | ${means.join(' | ')} |`);
}

/** The next of 1, 2, 2.5, 5 × 10ⁿ. */
function niceCeiling(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return unit * [1, 2, 2.5, 5, 10].find((factor) => factor * unit >= value);
}
