// The process in which responses are judged, one at a time: by a built-in verifier, or by a module of the user's that it
// loads once. Plain JavaScript, started by worker-pool.ts by its path, so that it is the same file in lib/ (tests) and in
// dist/; the built-in verifiers are those of dist/ for both.
//
// argument: JSON, { module: path } or { builtin: options of builtin.ts }
// parent → worker: { id, input }
// worker → parent: { type: 'ready' | 'refused' | 'verdict' | 'threw' | 'stage' | 'notice' | 'stray', … }

import { pathToFileURL } from 'node:url';

const { module: file, builtin } = JSON.parse(process.argv[2]);
// Without a parent there is nobody to work for. Told by an event, the failure would be an exception to be sent in its turn, for ever.
const send = (message, sent = (error) => error && process.exit(0)) => process.send(message, sent);

const textOf = (error) => {
  if (!(error instanceof Error)) return String(error);
  return error.name === 'ArcherError' ? error.message : `${error.name}: ${error.message}`;
};

// An exception that belongs to no pending call (a forgotten promise, a timer) must not cost another response.
process.on('uncaughtException', (error) => send({ type: 'stray', message: textOf(error) }));
process.on('unhandledRejection', (error) => send({ type: 'stray', message: textOf(error) }));
process.on('disconnect', () => process.exit(0));

async function loadModule() {
  const module = await import(pathToFileURL(file).href);
  // `export default` compiled to CommonJS arrives as default.default.
  const fn = typeof module.default === 'function' ? module.default : module.default?.default;
  if (typeof fn !== 'function') {
    const names = Object.keys(module).join(', ');
    throw new Error(`it has no default export that is a function${names === '' ? '' : ` (it exports ${names})`}`);
  }
  return (input) => {
    const verl = { ground_truth: input.groundTruth, extra_info: input.extraInfo, data_source: input.dataSource };
    return fn({ ...input, ...verl });
  };
}

async function loadBuiltin() {
  const { createBuiltin } = await import(new URL('../../dist/reward/builtin.js', import.meta.url).href);
  return createBuiltin(builtin, (message) => send({ type: 'notice', message }));
}

/** Only what a verdict is made of crosses the channel: a result may hold anything, and may be large. */
function parts(result) {
  if (typeof result !== 'object' || result === null || Array.isArray(result)) {
    return typeof result === 'function' || typeof result === 'symbol' ? String(result).slice(0, 100) : result;
  }
  const { score, outcome, extracted, detail, message } = result;
  const text = (value) => (value === undefined ? undefined : String(value).slice(0, 10_000));
  const scoreParts =
    typeof score === 'number' || typeof score === 'boolean' || score === undefined ? score : text(score);
  return {
    score: scoreParts,
    outcome: text(outcome),
    extracted: text(extracted),
    detail: text(detail),
    message: text(message),
  };
}

try {
  const judge = await (file === undefined ? loadBuiltin() : loadModule());
  process.on('message', async ({ id, input }) => {
    try {
      const stage = (message) => send({ type: 'stage', id, message });
      send({ type: 'verdict', id, value: parts(await judge(input, stage)) });
    } catch (error) {
      send({ type: 'threw', id, message: textOf(error) });
    }
  });
  send({ type: 'ready' });
} catch (error) {
  send({ type: 'refused', message: textOf(error) }, () => process.exit(1));
}
