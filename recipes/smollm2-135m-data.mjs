// Writes the problems of smollm2-135m.yaml: sums, differences, products and one-step word problems over small numbers.
//   node recipes/smollm2-135m-data.mjs [FOLDER]     ->  FOLDER/train.jsonl, FOLDER/test.jsonl
// Every problem is drawn once, in one fixed order, and no problem of the held-out file is in the training file.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const folder = process.argv[2] ?? 'arithmetic';
const held = 256;
const trained = 2048;

// Marsaglia's xorshift32: the same numbers on every machine.
let state = 20260101;
function random(low, high) {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return low + ((state >>> 0) % (high - low + 1));
}
const one = (list) => list[random(0, list.length - 1)];

const names = ['Anna', 'Ben', 'Carla', 'David', 'Emma', 'Farid', 'Grace', 'Hugo', 'Ines', 'Jun', 'Kofi', 'Lena'];
const things = ['apples', 'books', 'cards', 'coins', 'marbles', 'pencils', 'shells', 'stamps', 'stickers', 'tickets'];
const boxes = ['bag', 'box', 'crate', 'jar', 'packet', 'tray'];

const kinds = [
  () => {
    const [a, b] = [random(2, 49), random(2, 49)];
    return [`What is ${a} + ${b}?`, a + b];
  },
  () => {
    const [a, b] = [random(10, 79), random(2, 19)];
    return a > b ? [`What is ${a} - ${b}?`, a - b] : undefined;
  },
  () => {
    const [a, b] = [random(2, 12), random(2, 12)];
    return [`What is ${a} × ${b}?`, a * b];
  },
  () => {
    const [a, b, name, thing] = [random(2, 49), random(2, 29), one(names), one(things)];
    return [`${name} has ${a} ${thing} and buys ${b} more. How many ${thing} does ${name} have now?`, a + b];
  },
  () => {
    const [a, b, name, thing] = [random(10, 59), random(2, 19), one(names), one(things)];
    return a > b ? [`${name} has ${a} ${thing} and gives ${b} to a friend. How many ${thing} are left?`, a - b] : undefined;
  },
  () => {
    const [a, b, box, thing] = [random(2, 12), random(2, 10), one(boxes), one(things)];
    return [`Each ${box} holds ${a} ${thing}. How many ${thing} are in ${b} such ${box === 'box' ? 'boxes' : `${box}s`}?`, a * b];
  },
];

const problems = new Map();
for (let i = 0; problems.size < held + trained; i++) {
  const [question, answer] = kinds[i % kinds.length]() ?? [];
  if (question !== undefined) problems.set(question, String(answer));
}
const rows = [...problems].map(([question, answer]) => JSON.stringify({ question, answer }));
mkdirSync(folder, { recursive: true });
writeFileSync(join(folder, 'test.jsonl'), `${rows.slice(0, held).join('\n')}\n`);
writeFileSync(join(folder, 'train.jsonl'), `${rows.slice(held).join('\n')}\n`);
