// Tokenizers and chat templates of model folders against Python's: ids, decodings and renderings of awkward strings and
// conversations, and text that is streamed token by token. `npm run build:ts` first.
//
//   node tools/tokenizers/check.mjs FOLDER... [--python venv/bin/python] [--strings 10000] [--chats 500] [--seed 6]
//
// One row a folder; exit status 1 where anything differs, with the first difference of each kind.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { setImmediate as turn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { renderPrompt } from '../../dist/data/chat-template.js';
import { loadTokenizer } from '../../dist/data/tokenizer.js';
import { isArcherError } from '../../dist/errors.js';
import { TextStream } from '../../dist/rollout/text-stream.js';

const here = dirname(fileURLToPath(import.meta.url));
const { values: options, positionals: folders } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string', default: 'python3' },
    strings: { type: 'string', default: '10000' },
    chats: { type: 'string', default: '500' },
    seed: { type: 'string', default: '6' },
  },
});

const factNames = [
  'ids',
  'ids with special tokens',
  'decoding',
  'decoding without special tokens',
  'decoding of a part',
];

/** Counts differences by kind and keeps the first of each. */
class Tally {
  counts = {};
  firsts = [];

  compare(kind, subject, expected, found) {
    this.counts[kind] ??= { compared: 0, wrong: 0 };
    this.counts[kind].compared += 1;
    if (JSON.stringify(expected) === JSON.stringify(found)) return;
    this.counts[kind].wrong += 1;
    if (this.counts[kind].wrong === 1) this.firsts.push({ kind, subject, python: expected, node: found });
  }
}

async function* pythonSays(folder) {
  const args = [join(here, 'oracle.py'), folder];
  for (const name of ['strings', 'chats', 'seed']) args.push(`--${name}`, options[name]);
  const child = spawn(options.python, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'close');
  for await (const line of createInterface({ input: child.stdout })) yield JSON.parse(line);
  const [status] = await ended;
  if (status !== 0) throw new Error(`${options.python} oracle.py ended with status ${status}; see requirements.txt.`);
}

async function factsOf(tokenizer, text) {
  const ids = [...(await tokenizer.encode(text))];
  const part = ids.slice(Math.floor(ids.length / 3), Math.floor((2 * ids.length) / 3) + 1);
  return [
    ids,
    [...(await tokenizer.encode(text, { addSpecial: true }))],
    await tokenizer.decode(ids),
    await tokenizer.decode(ids, { skipSpecial: true }),
    await tokenizer.decode(part),
  ];
}

function render(tokenizer, { chat, generation }) {
  try {
    return renderPrompt(chat, tokenizer, { addGenerationPrompt: generation });
  } catch (error) {
    if (isArcherError(error) && error.code === 'ARCHER_E_DATA') return null;
    throw error;
  }
}

/** Each row's tokens one by one: pieces must be a beginning of the whole text, and whole with the end. */
async function streamAll(tokenizer, rows, tally) {
  const emitted = rows.map(() => '');
  const stream = new TextStream({
    tokenizer,
    stop: [],
    onText: ({ prompt, text }) => {
      emitted[prompt] += text;
    },
    onFailure: () => {},
  });
  const longest = Math.max(...rows.map(({ facts }) => facts[0].length));
  for (let at = 0; at < longest; at += 1) {
    stream.push(Int32Array.from(rows.flatMap(({ facts: [ids] }, i) => (at < ids.length ? [i, 0, ids[at]] : []))));
    await turn();
  }
  const whole = rows.map(({ facts }) => facts[3]);
  const before = [...emitted];
  await stream.finish(whole.map((text) => [text]));
  rows.forEach(({ text }, i) => {
    tally.compare('streamed beginning', text, whole[i].slice(0, before[i].length), before[i]);
    tally.compare('streamed text', text, whole[i], emitted[i]);
  });
}

async function check(folder) {
  const tokenizer = await loadTokenizer(folder);
  const tally = new Tally();
  let rows = [];
  for await (const said of pythonSays(folder)) {
    if (said.chat !== undefined) {
      tally.compare('chat', said.chat, said.rendered, render(tokenizer, said));
      continue;
    }
    const found = await factsOf(tokenizer, said.text);
    factNames.forEach((name, i) => {
      tally.compare(name, said.text, said.facts[i], found[i]);
    });
    rows.push(said);
    if (rows.length === 500) {
      await streamAll(tokenizer, rows, tally);
      rows = [];
    }
  }
  if (rows.length > 0) await streamAll(tokenizer, rows, tally);
  return tally;
}

if (folders.length === 0) {
  console.error('Name the model folders to check; tools/tokenizers/fetch.py gets some.');
  process.exitCode = 2;
}
for (const folder of folders) {
  const { counts, firsts } = await check(folder);
  const cells = Object.entries(counts).map(([kind, { compared, wrong }]) => `${kind} ${wrong} of ${compared} differ`);
  console.log(`${folder}: ${cells.join('; ')}`);
  for (const first of firsts) console.log(JSON.stringify(first, null, 1));
  if (firsts.length > 0) process.exitCode = 1;
}
