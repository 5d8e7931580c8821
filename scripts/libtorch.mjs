// Where libtorch is. In this order:
//   1. ARCHER_LIBTORCH (or LIBTORCH): a folder with lib/ and include/, or its parent. No fallback from here.
//   2. our own cache, ~/.cache/archer-native/libtorch-<version>-cpu/torch, once its .complete stamp is there
//   3. a PyTorch that python3 has (found, never imported)
//   4. fetched into that cache: by pip with the exact local label, else by the URL in cmake/libtorch.json
// ARCHER_LIBTORCH_URL names another archive (a wheel or an official libtorch zip) with ARCHER_LIBTORCH_SHA256; being a
// choice of the user it goes before 3 and has a cache folder of its own.
// A fetched archive is unpacked into a temporary folder, only the members that compiling and running need, and renamed:
// of two processes that race, one's work is used and none sees half a folder.
import { createHash, randomBytes } from 'node:crypto';
import {
  createReadStream,
  createWriteStream,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import {
  capture,
  formatBytes,
  isMain,
  log,
  Progress,
  packageRoot,
  readJson,
  run,
  runMain,
  SetupError,
} from './tools.mjs';

const remedy =
  'Or point ARCHER_LIBTORCH at a folder that holds lib/libtorch_cpu.so and include/torch ' +
  '(a PyTorch from pip has it in site-packages/torch).';

export function readSpec() {
  return readJson(join(packageRoot, 'cmake', 'libtorch.json'));
}

function holdsLibtorch(folder) {
  return existsSync(join(folder, 'lib', 'libtorch_cpu.so')) && existsSync(join(folder, 'include', 'torch'));
}

/** "2.13.0+cpu" out of version.py (wheels), build-version (official archives) or version.h; undefined without any. */
export function libtorchVersion(folder) {
  const read = (path) => (existsSync(join(folder, path)) ? readFileSync(join(folder, path), 'utf8') : '');
  const fromWheel = /__version__\s*=\s*['"]([^'"]+)['"]/.exec(read('version.py'))?.[1];
  const header = read('include/torch/headeronly/version.h') + read('include/torch/csrc/api/include/torch/version.h');
  const parts = ['MAJOR', 'MINOR', 'PATCH'].map(
    (part) => new RegExp(`#define TORCH_VERSION_${part} (\\d+)`).exec(header)?.[1],
  );
  const fromHeader = parts[0] && parts[1] ? parts.filter(Boolean).join('.') : undefined;
  return fromWheel ?? (read('build-version').trim() || fromHeader);
}

/** "" when the version is supported, else a sentence that says why not. */
export function versionFault(version, spec) {
  const number = (text) => {
    const match = /^(\d+)\.(\d+)/.exec(text ?? '');
    return match ? Number(match[1]) * 1000 + Number(match[2]) : Number.NaN;
  };
  const { from, to } = spec.supported;
  if (version === undefined) return `its version cannot be told; supported are ${from} to ${to}`;
  const ok = number(version) >= number(from) && number(version) <= number(to);
  return ok ? '' : `it is version ${version}; supported are ${from} to ${to}`;
}

function checkVersion(folder, spec, env, what) {
  const version = libtorchVersion(folder);
  const fault = versionFault(version, spec);
  if (fault && env.ARCHER_LIBTORCH_ANY_VERSION !== '1') {
    throw new SetupError(
      `${what} cannot be used: ${fault}. Choose another one, or set ARCHER_LIBTORCH_ANY_VERSION=1 to try it all the same.`,
    );
  }
  return version ?? 'unknown';
}

function fromEnvironment(env, spec) {
  const name = env.ARCHER_LIBTORCH ? 'ARCHER_LIBTORCH' : 'LIBTORCH';
  const value = env[name];
  if (!value) return undefined;
  const given = resolve(value);
  const root = [given, join(given, 'torch'), join(given, 'libtorch')].find(holdsLibtorch);
  if (!root) {
    const missing = ['lib/libtorch_cpu.so', 'include/torch'].filter((part) => !existsSync(join(given, part)));
    throw new SetupError(
      `${name}=${value} holds no ${missing.join(' and no ')}. Name a libtorch folder (a PyTorch's site-packages/torch ` +
        'or an unpacked libtorch archive), or unset it to have libtorch found or fetched.',
    );
  }
  return { root, version: checkVersion(root, spec, env, `The libtorch in ${name}=${value}`), source: name };
}

export function cacheRoot(env) {
  return join(env.XDG_CACHE_HOME || join(env.HOME || homedir(), '.cache'), 'archer-native');
}

/** What would be fetched here: an archive's address, hash and cache folder. */
export function wantedArchive(env, spec) {
  const pinned = spec.wheels[`${process.platform}-${process.arch}`];
  const label = `${spec.version}-${spec.label}`;
  const url = env.ARCHER_LIBTORCH_URL;
  if (!url) return pinned && { ...pinned, folder: join(cacheRoot(env), `libtorch-${label}`) };
  const sha256 = env.ARCHER_LIBTORCH_SHA256?.toLowerCase();
  if (sha256 !== 'skip' && !/^[0-9a-f]{64}$/.test(sha256 ?? '')) {
    throw new SetupError(
      `ARCHER_LIBTORCH_URL needs ARCHER_LIBTORCH_SHA256 beside it: ${sha256 ? `"${sha256}" is not` : 'the'} 64 hexadecimal ` +
        'digits of the archive\'s SHA-256, or "skip" to use the archive unchecked.',
    );
  }
  const key =
    sha256 === 'skip' ? `url-${createHash('sha256').update(url).digest('hex').slice(0, 12)}` : sha256.slice(0, 12);
  const name = sha256 === pinned?.sha256 ? label : key;
  let file;
  try {
    file = basename(decodeURIComponent(new URL(url).pathname)) || 'libtorch.zip';
  } catch {
    throw new SetupError(
      `ARCHER_LIBTORCH_URL=${url} is not a URL. Give http(s)://…, the address of a wheel or libtorch zip.`,
    );
  }
  return { file, url, sha256, bytes: 0, override: true, folder: join(cacheRoot(env), `libtorch-${name}`) };
}

function fromCache(wanted) {
  const root = join(wanted.folder, 'torch');
  try {
    const stamp = readJson(join(wanted.folder, '.complete'));
    const same = wanted.sha256 === 'skip' || stamp.sha256 === wanted.sha256;
    return same && holdsLibtorch(root) ? { root, version: stamp.version, source: 'cache' } : undefined;
  } catch {
    return undefined;
  }
}

function fromPython(env, spec, say) {
  const code = 'import importlib.util as u; s = u.find_spec("torch"); print(s.origin if s and s.origin else "")';
  const origin = capture('python3', ['-c', code], { env, cwd: '/', timeout: 20_000 })?.trim();
  if (!origin) return undefined;
  const root = dirname(origin);
  if (!holdsLibtorch(root)) return undefined;
  const version = libtorchVersion(root);
  const fault = versionFault(version, spec);
  if (fault) {
    say(`python3 has a PyTorch in ${root}, but ${fault}; going on without it.`);
    return undefined;
  }
  return { root, version, source: 'python' };
}

function checkSpace(folder, bytes) {
  const { bavail, bsize } = statfsSync(folder);
  if (bavail * bsize < bytes) {
    throw new SetupError(
      `libtorch needs ${formatBytes(bytes)} in ${folder}, which has ${formatBytes(bavail * bsize)} free. ` +
        `Make room, or name another cache folder with XDG_CACHE_HOME. ${remedy}`,
    );
  }
}

/** pip knows the user's index, mirror, proxy and certificates. The exact local label: without it an ordinary index
 *  would give the CUDA build of gigabytes. Its temporary files go into `folder`, where their growth is the progress. */
async function downloadByPip(wanted, folder, env, spec) {
  const requirement = `torch==${spec.version}+${spec.label}`;
  const args = ['-m', 'pip', 'download', '--no-deps', '--no-cache-dir', '--progress-bar', 'off', requirement];
  args.push(
    '--only-binary=:all:',
    '--implementation',
    'cp',
    '--python-version',
    wanted.python,
    '--platform',
    wanted.platform,
  );
  const largest = (path) => {
    let bytes = 0;
    try {
      for (const entry of readdirSync(path, { withFileTypes: true, recursive: true })) {
        if (entry.isFile()) bytes = Math.max(bytes, statSync(join(entry.parentPath ?? entry.path, entry.name)).size);
      }
    } catch {} // files come and go while pip works
    return bytes;
  };
  const progress = new Progress('libtorch (pip)', wanted.bytes);
  const timer = setInterval(() => progress.update(largest(folder)), 250);
  let output = '';
  const status = await run('python3', [...args, '--dest', folder], {
    env: { ...env, PIP_RETRIES: '0', PIP_DISABLE_PIP_VERSION_CHECK: '1', TMPDIR: folder },
    onData: (data) => (output += data),
  });
  clearInterval(timer);
  progress.end();
  const path = join(folder, wanted.file);
  if (status === 0 && existsSync(path)) return { path };
  const lines = output.trim().split('\n');
  const reason = lines.findLast((line) => /^ERROR|Error|No module/.test(line)) ?? lines.at(-1) ?? `status ${status}`;
  return { failure: reason.replace(/^ERROR:\s*/, '').slice(0, 300) };
}

/** One file over HTTP. A broken connection is taken up again twice where it stopped; then the failure is returned. */
async function downloadByUrl(wanted, folder) {
  const path = join(folder, wanted.file);
  const progress = new Progress('libtorch', wanted.bytes);
  let done = 0;
  let total = wanted.bytes;
  let failure = '';
  for (let attempt = 0; attempt < 3; attempt++) {
    const stalled = new AbortController();
    let timer = setTimeout(() => stalled.abort(), 60_000);
    try {
      const headers = done > 0 ? { range: `bytes=${done}-` } : {};
      const response = await fetch(wanted.url, { headers, signal: stalled.signal });
      if (!response.ok) {
        failure = `the server answered ${response.status} ${response.statusText}`.trim();
        if (response.status < 500) break;
        continue;
      }
      const resumed = response.status === 206;
      if (!resumed) done = 0;
      const length = Number(response.headers.get('content-length') ?? 0);
      if (length > 0) total = done + length;
      const file = createWriteStream(path, { flags: resumed ? 'a' : 'w' });
      const failed = new Promise((_, reject) => file.on('error', reject));
      failed.catch(() => {}); // awaited below
      try {
        for await (const chunk of response.body) {
          clearTimeout(timer);
          timer = setTimeout(() => stalled.abort(), 60_000);
          if (!file.write(chunk)) await Promise.race([new Promise((go) => file.once('drain', go)), failed]);
          done += chunk.length;
          progress.update(done);
        }
      } finally {
        await Promise.race([new Promise((go) => file.end(go)), failed]);
      }
      if (total === 0 || done >= total) {
        progress.end();
        return { path };
      }
      failure = `the connection ended at ${done} of ${total} bytes`;
    } catch (error) {
      if (error.code === 'ENOSPC') {
        throw new SetupError(
          `The disk of ${folder} is full. Make room, or name another cache folder with XDG_CACHE_HOME.`,
        );
      }
      const cause = stalled.signal.aborted
        ? 'no data for 60 s'
        : (error.cause?.code ?? error.cause?.message ?? error.message);
      failure = done > 0 ? `the connection broke at ${done} of ${total || 'unknown'} bytes (${cause})` : cause;
      if (done === 0 && !stalled.signal.aborted) break;
    } finally {
      clearTimeout(timer);
    }
  }
  progress.end();
  return { failure };
}

function sha256Of(path) {
  return new Promise((done, fail) => {
    const hash = createHash('sha256');
    createReadStream(path, { highWaterMark: 1 << 20 })
      .on('data', (chunk) => hash.update(chunk))
      .on('error', fail)
      .on('end', () => done(hash.digest('hex')));
  });
}

/** The members to unpack: those of cmake/libtorch.json under the folder that holds lib/libtorch_cpu.so. */
export function neededMembers(names, spec) {
  const anchor = names.find((name) => name.endsWith('lib/libtorch_cpu.so'));
  if (anchor === undefined) return undefined;
  const prefix = anchor.slice(0, -'lib/libtorch_cpu.so'.length);
  const patterns = spec.members.map((member) => {
    const escaped = member.replace(/[.+]/g, '\\$&').replaceAll('*', '[^/]*');
    return new RegExp(`^${escaped}${member.endsWith('/') ? '' : '$'}`);
  });
  const members = names.filter((name) => {
    if (!name.startsWith(prefix) || name.endsWith('/')) return false;
    const inner = name.slice(prefix.length);
    return !spec.without.includes(inner) && patterns.some((pattern) => pattern.test(inner));
  });
  return { prefix, members };
}

/** Wheels and libtorch archives are zip files; cmake, which the build needs anyway, unpacks them by member names. */
async function unpack(archive, folder, spec, cmake) {
  const listing = capture(cmake, ['-E', 'tar', 'tf', archive]);
  const needed = neededMembers(listing?.split('\n') ?? [], spec);
  if (!needed) {
    throw new SetupError(
      `${basename(archive)} is no libtorch: ${listing ? 'lib/libtorch_cpu.so is not in it' : 'it cannot be read as a zip file'}. ${remedy}`,
    );
  }
  // --files-from instead of arguments: twelve thousand names are too many for one command line.
  const list = join(folder, 'members.txt');
  writeFileSync(list, `${needed.members.join('\n')}\n`);
  const out = join(folder, 'unpacked');
  mkdirSync(out);
  let output = '';
  const status = await run(cmake, ['-E', 'tar', 'xf', archive, `--files-from=${list}`], {
    cwd: out,
    onData: (data) => (output += data),
  });
  const root = join(out, needed.prefix);
  if (status !== 0 || !holdsLibtorch(root)) {
    const reason = /No space/i.test(output)
      ? 'the disk is full'
      : output.trim().split('\n').at(-1) || `cmake -E tar ended with ${status}`;
    throw new SetupError(
      `${basename(archive)} could not be unpacked in ${folder}: ${reason}. Make room or try again. ${remedy}`,
    );
  }
  return root;
}

async function fetchArchive(wanted, env, spec, say, cmake) {
  const parent = dirname(wanted.folder);
  const temporary = join(parent, `tmp-${process.pid}-${randomBytes(4).toString('hex')}`);
  try {
    mkdirSync(temporary, { recursive: true });
  } catch (error) {
    throw new SetupError(
      `The cache folder ${parent} cannot be made (${error.code}). Set XDG_CACHE_HOME to one that can. ${remedy}`,
    );
  }
  // A fetch that Ctrl-C ends leaves nothing behind.
  const clean = () => rmSync(temporary, { recursive: true, force: true });
  const interrupted = (signal) => {
    clean();
    process.exit(signal === 'SIGINT' ? 130 : 143);
  };
  process.once('SIGINT', interrupted).once('SIGTERM', interrupted);
  try {
    checkSpace(temporary, wanted.bytes + spec.unpackedBytes * (wanted.override ? 0 : 1));
    const failures = [];
    let archive;
    if (!wanted.override) {
      say(`fetching libtorch ${spec.version}+${spec.label} (${formatBytes(wanted.bytes)}) into ${wanted.folder}.`);
      const result = await downloadByPip(wanted, temporary, env, spec);
      archive = result.path;
      if (!archive) failures.push(`pip: ${result.failure}`);
    }
    if (!archive) {
      say(`${failures.length > 0 ? `pip could not fetch it (${failures[0].slice(5)}); ` : ''}fetching ${wanted.url}.`);
      const result = await downloadByUrl(wanted, temporary);
      archive = result.path;
      if (!archive) failures.push(`${wanted.url}: ${result.failure}`);
    }
    if (!archive) {
      throw new SetupError(
        `libtorch could not be fetched (${failures.join('; ')}). Check the network and try again, or name a reachable ` +
          `archive with ARCHER_LIBTORCH_URL and ARCHER_LIBTORCH_SHA256. ${remedy}`,
      );
    }
    const sha256 = await sha256Of(archive);
    if (wanted.sha256 !== 'skip' && sha256 !== wanted.sha256) {
      throw new SetupError(
        `${basename(archive)} has SHA-256 ${sha256}, expected ${wanted.sha256}: it is damaged or another file, and was not ` +
          `used. Try again, or correct ${wanted.override ? 'ARCHER_LIBTORCH_SHA256' : 'the index or mirror that gave it'}.`,
      );
    }
    const root = await unpack(archive, temporary, spec, cmake);
    const version = checkVersion(root, spec, env, `The libtorch in ${basename(archive)}`);
    const done = join(temporary, 'done');
    mkdirSync(done);
    renameSync(root, join(done, 'torch'));
    writeFileSync(join(done, '.complete'), `${JSON.stringify({ version, sha256, file: basename(archive) })}\n`);
    for (let attempt = 0; attempt < 2 && !fromCache(wanted); attempt++) {
      try {
        renameSync(done, wanted.folder);
      } catch (error) {
        if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
        // An incomplete folder is in the way.
        if (!fromCache(wanted)) rmSync(wanted.folder, { recursive: true, force: true });
      }
    }
    return { ...fromCache(wanted), source: 'fetched' };
  } finally {
    process.off('SIGINT', interrupted).off('SIGTERM', interrupted);
    clean();
  }
}

/**
 * Finds libtorch, or fetches it.
 * @param {{ env?: object, spec?: object, say?: (line: string) => void, fetch?: boolean, cmake?: string }} options
 *   fetch: false stops before the network and gives undefined.
 * @returns {Promise<{ root: string, version: string, source: string } | undefined>}
 * @throws SetupError with a sentence and the remedy
 */
export async function resolveLibtorch({
  env = process.env,
  spec = readSpec(),
  say = log,
  fetch = true,
  cmake = 'cmake',
} = {}) {
  const named = fromEnvironment(env, spec);
  if (named) return named;
  const wanted = wantedArchive(env, spec);
  const found = (wanted && fromCache(wanted)) ?? (wanted?.override ? undefined : fromPython(env, spec, say));
  if (found || !fetch) return found;
  if (!wanted) {
    throw new SetupError(
      `There is no libtorch to fetch for ${process.platform}-${process.arch}. Install PyTorch ${spec.version} for python3. ${remedy}`,
    );
  }
  return await fetchArchive(wanted, env, spec, say, cmake);
}

async function main(args) {
  const found = await resolveLibtorch({ fetch: !args.includes('--print') });
  if (!found) {
    process.stdout.write('not here yet: `node scripts/libtorch.mjs` fetches it\n');
    return 1;
  }
  process.stdout.write(
    args.includes('--json') ? `${JSON.stringify(found)}\n` : `${found.root} (${found.version}, ${found.source})\n`,
  );
  return 0;
}

if (isMain(import.meta.url)) await runMain(main);
