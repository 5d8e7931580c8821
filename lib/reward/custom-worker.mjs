// The process in which a reward module of the user's runs: loads the module once, then judges one response at a time.
// Plain JavaScript, started by worker-pool.ts by its path, so that it is the same file in lib/ (tests) and in dist/.
//
// parent → worker: { id, input }   worker → parent: { type: 'ready' | 'refused' | 'verdict' | 'threw' | 'stray', … }

import { pathToFileURL } from 'node:url';

const [file] = process.argv.slice(2);
const send = process.send.bind(process);

const textOf = (error) => (error instanceof Error ? `${error.name}: ${error.message}` : String(error));

// An exception that belongs to no pending call (a forgotten promise, a timer) must not cost another response.
process.on('uncaughtException', (error) => send({ type: 'stray', message: textOf(error) }));
process.on('unhandledRejection', (error) => send({ type: 'stray', message: textOf(error) }));
process.on('disconnect', () => process.exit(0));

async function load() {
  const module = await import(pathToFileURL(file).href);
  // `export default` compiled to CommonJS arrives as default.default.
  const fn = typeof module.default === 'function' ? module.default : module.default?.default;
  if (typeof fn !== 'function') {
    const names = Object.keys(module).join(', ');
    throw new Error(`it has no default export that is a function${names === '' ? '' : ` (it exports ${names})`}`);
  }
  return fn;
}

/** Only what a verdict is made of crosses the channel: a result may hold anything, and may be large. */
function parts(result) {
  if (typeof result !== 'object' || result === null || Array.isArray(result)) {
    return typeof result === 'function' || typeof result === 'symbol' ? String(result).slice(0, 100) : result;
  }
  const { score, outcome, extracted, message } = result;
  const text = (value) => (value === undefined ? undefined : String(value).slice(0, 10_000));
  const scoreParts =
    typeof score === 'number' || typeof score === 'boolean' || score === undefined ? score : text(score);
  return { score: scoreParts, outcome: text(outcome), extracted: text(extracted), message: text(message) };
}

try {
  const fn = await load();
  process.on('message', async ({ id, input }) => {
    const verl = { ground_truth: input.groundTruth, extra_info: input.extraInfo, data_source: input.dataSource };
    try {
      send({ type: 'verdict', id, value: parts(await fn({ ...input, ...verl })) });
    } catch (error) {
      send({ type: 'threw', id, message: textOf(error) });
    }
  });
  send({ type: 'ready' });
} catch (error) {
  send({ type: 'refused', message: textOf(error) }, () => process.exit(1));
}
