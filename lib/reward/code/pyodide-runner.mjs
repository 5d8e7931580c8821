// One Node process that runs Python in WebAssembly, as pyodide.ts starts it:
//
//   node … pyodide-runner.mjs FOLDER TEXT   boots Python, runs TEXT (the harness) and sends the memory image as one line
//   node … pyodide-runner.mjs FOLDER        starts from the image on descriptor 4 and runs the job on descriptor 3
//
// Booting takes seconds, starting from the image a fraction of one.
import fs from 'node:fs';
import { pathToFileURL } from 'node:url';

const [folder, text] = process.argv.slice(2);
const imageDescriptor = 4;
process.title = 'pyodide'; // as ps shows it

// Without the line of source that Node would print: it is a megabyte long.
process.on('uncaughtException', (error) => process.exit(statusOf(error)));

// Emscripten asks for the constants of open() in a way that the permission model forbids.
process.binding = () => ({ fs: fs.constants });

const { loadPyodide } = await import(pathToFileURL(`${folder}/pyodide.mjs`).href);
const pyodide = await loadPyodide({
  indexURL: folder,
  // What `import js` would give: nothing.
  jsglobals: Object.create(null),
  env: { HOME: '/tmp', LC_ALL: 'C.UTF-8', PYTHONHASHSEED: '0', PYTHONIOENCODING: 'utf-8' },
  enableRunUntilComplete: false,
  ...(text === undefined ? { _loadSnapshot: readImage() } : { _makeSnapshot: true }),
});

if (text === undefined) {
  connect();
  process.exit(run());
} else {
  pyodide.runPython(text);
  fs.writeSync(3, '\n');
  writeAll(3, Buffer.from(`${Buffer.from(pyodide.makeMemorySnapshot()).toString('base64')}\n`));
}

function readImage() {
  const image = new Uint8Array(fs.fstatSync(imageDescriptor).size);
  fs.readSync(imageDescriptor, image, 0, image.length, 0);
  fs.closeSync(imageDescriptor);
  return image;
}

/** Python's descriptors 0 to 3 are those of this process. */
function connect() {
  const read = (buffer) => fs.readSync(0, buffer);
  const writer = (descriptor) => ({ write: (buffer) => fs.writeSync(descriptor, buffer) });
  pyodide.setStdin({ read, isatty: false });
  pyodide.setStdout({ ...writer(1), isatty: false });
  pyodide.setStderr({ ...writer(2), isatty: false });
  const { FS } = pyodide;
  const device = FS.makedev(200, 0);
  FS.registerDevice(device, {
    read: (_stream, buffer, offset, length) => fs.readSync(3, buffer, offset, length),
    write: (_stream, buffer, offset, length) => fs.writeSync(3, buffer, offset, length),
  });
  FS.mkdev('/dev/channel', device);
  if (FS.open('/dev/channel', 'r+').fd !== 3) throw new Error('descriptor 3 is taken');
}

function run() {
  try {
    return pyodide.globals.get('run')();
  } catch (error) {
    return statusOf(error);
  }
}

/** What ends the interpreter itself, in the words of Python where it has them. */
function statusOf(error) {
  if (error.name === 'Exit') return process.exitCode; // os._exit(); Emscripten has noted its status there
  if (error instanceof WebAssembly.RuntimeError) process.abort();
  const kind =
    error instanceof RangeError ? (/stack/.test(error.message) ? 'RecursionError' : 'MemoryError') : error.name;
  fs.writeSync(2, `\n${kind}: ${error.message.split('\n')[0]}\n`);
  return 1;
}

function writeAll(descriptor, bytes) {
  for (let at = 0; at < bytes.length; ) at += fs.writeSync(descriptor, bytes, at);
}
