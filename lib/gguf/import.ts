// A GGUF file as a Hugging Face model folder: config.json, model.safetensors, the tokenizer's files.
import { copyFile, mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { loadTokenizer } from '../data/tokenizer.js';
import { ArcherError } from '../errors.js';
import { ioError } from '../io-error.js';
import { parseModelConfig } from '../model/config.js';
import { isTokenizerFile, readModelFolder } from '../model/folder.js';
import { configFrom, generationConfigFrom } from './config.js';
import { type GgufFile, readGguf } from './reader.js';
import { tokenizerFrom } from './tokenizer.js';
import { type ConvertOptions, convertWeights } from './weights.js';

export interface ImportOptions extends ConvertOptions {
  file: string;
  /** The folder to make; one that is there must be empty. */
  out: string;
  /** A folder whose tokenizer files are taken instead of those rebuilt from the metadata. */
  tokenizerFolder?: string;
}

/**
 * The folder appears when it is complete.
 *
 * @returns the number of weights
 * @throws ArcherError ARCHER_E_MODEL: a damaged file, an architecture, type or tokenizer that is not supported;
 *   ARCHER_E_CONFIG: `out` holds something; ARCHER_E_IO
 */
export async function importGguf(options: ImportOptions): Promise<number> {
  const { file: path, tokenizerFolder, dtype } = options;
  const file = readGguf(path);
  const config = await configFrom(file, dtype);
  const nativeConfig = parseModelConfig(config, path);
  const tokenizer = tokenizerFolder === undefined ? tokenizerFrom(file) : undefined;
  const out = resolve(options.out);
  const draft = `${out}.incomplete-${process.pid}`;
  try {
    await refuseContent(out);
    await mkdir(draft, { recursive: true });
    await writeJson(join(draft, 'config.json'), config);
    await writeJson(join(draft, 'generation_config.json'), generationConfigFrom(file));
    if (tokenizer) {
      await writeJson(join(draft, 'tokenizer.json'), tokenizer.json);
      await writeJson(join(draft, 'tokenizer_config.json'), tokenizer.config);
    } else {
      await copyTokenizer(tokenizerFolder!, draft);
    }
    await writeFile(join(draft, 'README.md'), modelCard(file));
    await loadTokenizer(draft, { vocabSize: nativeConfig.vocabSize });
    const numWeights = await convertWeights(file, nativeConfig, join(draft, 'model.safetensors'), options);
    await readModelFolder(draft);
    await rename(draft, out);
    return numWeights;
  } catch (error) {
    await rm(draft, { recursive: true, force: true });
    throw ioError('write', out, error, '--out');
  }
}

async function refuseContent(out: string): Promise<void> {
  const names = await readdir(out).catch((error: { code?: string }) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  if (names.length > 0) {
    throw new ArcherError('ARCHER_E_CONFIG', `--out ${out} is not empty; name a folder that is not there yet.`);
  }
}

async function copyTokenizer(from: string, to: string): Promise<void> {
  const names = (await readdir(from).catch(() => [])).filter(isTokenizerFile);
  if (!names.includes('tokenizer.json')) {
    throw new ArcherError('ARCHER_E_CONFIG', `--tokenizer ${from} is no folder with a tokenizer.json.`);
  }
  for (const name of names) await copyFile(join(from, name), join(to, name));
}

function modelCard(file: GgufFile): string {
  const license = file.metadata.get('general.license');
  const head = typeof license === 'string' ? `---\nlicense: ${license}\n---\n` : '';
  const name = file.metadata.get('general.name') ?? 'A model';
  return `${head}${name}, from ${basename(file.path)} by \`archer-native import\`. The weights have that file's precision.\n`;
}

async function writeJson(path: string, value: unknown): Promise<void> {
  await writeFile(path, `${JSON.stringify(value, null, 2)}\n`);
}
