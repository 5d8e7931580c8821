// The model folder's tokenizer: tokenizer.json through Hugging Face's own library, the special tokens and the chat
// template from tokenizer_config.json. Encoding and decoding are asynchronous (they run on the library's threads);
// tokenBytes() is the synchronous side: the bytes of every id, for stop strings that cross token borders.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ArcherError, messageOf } from '../errors.js';
import { bytesOfTokens, type TokenBytes } from './token-bytes.js';

export interface Tokenizer {
  /** The folder it came from. */
  readonly folder: string;
  /** Token ids of a text. `addSpecial` (default false) lets the tokenizer add its own begin or end tokens. */
  encode(text: string, options?: { addSpecial?: boolean }): Promise<Int32Array>;
  /** encode() for many texts at once, in order. */
  encodeBatch(texts: readonly string[], options?: { addSpecial?: boolean }): Promise<Int32Array[]>;
  /** The text of ids. `skipSpecial` (default false) leaves special tokens out. */
  decode(ids: ArrayLike<number>, options?: { skipSpecial?: boolean }): Promise<string>;
  /** decode() for many responses at once, in order. */
  decodeBatch(ids: readonly ArrayLike<number>[], options?: { skipSpecial?: boolean }): Promise<string[]>;
  /** The bytes of every id, `vocabSize` entries; ids that the tokenizer does not have are empty. Computed once. */
  tokenBytes(): TokenBytes;
  /** The id of a token by its text, for example `<|im_end|>`. */
  tokenId(token: string): number | undefined;
  /** The special tokens that the model's files name; chat templates see them. */
  readonly specialTokens: SpecialTokens;
  readonly eosTokenId?: number;
  readonly bosTokenId?: number;
  readonly padTokenId?: number;
  /** Jinja source of the model's chat template, if it has one. */
  readonly chatTemplate?: string;
  /** The model's vocabulary if it was given, else one more than the tokenizer's largest id. */
  readonly vocabSize: number;
}

/** By the names of tokenizer_config.json. */
export type SpecialTokens = Partial<Record<(typeof specialNames)[number], string>>;

const specialNames = ['bos_token', 'eos_token', 'pad_token', 'unk_token'] as const;

/**
 * Loads the tokenizer of a Hugging Face model folder.
 *
 * @param folder holds tokenizer.json and, usually, tokenizer_config.json (and chat_template.jinja)
 * @param options.vocabSize the model's vocab_size; an id beyond it is an error here, not a crash in an embedding
 * @throws ArcherError ARCHER_E_MODEL: no or a corrupt tokenizer.json, or ids beyond the model's vocabulary.
 */
export async function loadTokenizer(folder: string, options: { vocabSize?: number } = {}): Promise<Tokenizer> {
  const file = join(folder, 'tokenizer.json');
  if (!existsSync(file)) {
    throw new ArcherError(
      'ARCHER_E_MODEL',
      `${folder} has no tokenizer.json; a model folder needs the fast tokenizer that transformers writes with save_pretrained.`,
    );
  }
  const source = readText(file);
  const parsed = parseJson(source, file);
  const library = await import('tokenizers');
  let native: InstanceType<typeof library.Tokenizer>;
  try {
    native = library.Tokenizer.fromString(source);
  } catch (error) {
    throw new ArcherError('ARCHER_E_MODEL', `${file} is not a usable tokenizer: ${messageOf(error)}.`, {
      cause: error,
    });
  }
  // A file written after training with padding or truncation switched on would silently cut prompts.
  native.disableTruncation();
  native.disablePadding();

  const vocab = native.getVocab(true);
  let largestId = -1;
  let largestToken = '';
  for (const [token, id] of Object.entries(vocab)) {
    if (id > largestId) [largestId, largestToken] = [id, token];
  }
  const vocabSize = options.vocabSize ?? largestId + 1;
  if (largestId >= vocabSize) {
    throw new ArcherError(
      'ARCHER_E_MODEL',
      `The tokenizer in ${folder} has id ${largestId} (${JSON.stringify(largestToken)}) but the model's vocab_size is ${vocabSize}; the tokenizer belongs to another model, or the embedding was never resized.`,
    );
  }

  const configFile = join(folder, 'tokenizer_config.json');
  const config = existsSync(configFile) ? parseJson(readText(configFile), configFile) : {};
  const special = readSpecialTokens(folder, config);
  const idOf = (token: string | undefined) => (token === undefined ? undefined : (vocab[token] ?? undefined));
  let bytes: TokenBytes | undefined;

  return {
    folder,
    vocabSize,
    chatTemplate: readChatTemplate(folder, config),
    specialTokens: special,
    eosTokenId: idOf(special.eos_token),
    bosTokenId: idOf(special.bos_token),
    padTokenId: idOf(special.pad_token),
    tokenId: idOf,
    async encode(text, { addSpecial = false } = {}) {
      const encoding = await native.encode(text, null, { addSpecialTokens: addSpecial });
      return Int32Array.from(encoding.getIds());
    },
    async encodeBatch(texts, { addSpecial = false } = {}) {
      if (texts.length === 0) return [];
      const encodings = await native.encodeBatch([...texts], { addSpecialTokens: addSpecial });
      return encodings.map((encoding) => Int32Array.from(encoding.getIds()));
    },
    async decode(ids, { skipSpecial = false } = {}) {
      if (ids.length === 0) return '';
      return native.decode(Array.from(ids), skipSpecial);
    },
    async decodeBatch(ids, { skipSpecial = false } = {}) {
      if (ids.length === 0) return [];
      return native.decodeBatch(
        ids.map((entry) => Array.from(entry)),
        skipSpecial,
      );
    },
    tokenBytes() {
      bytes ??= bytesOfTokens(vocab, parsed, vocabSize);
      return bytes;
    },
  };
}

type Json = Record<string, unknown>;

/** Strings or {content} objects, in tokenizer_config.json or in the older special_tokens_map.json. */
function readSpecialTokens(folder: string, config: Json): SpecialTokens {
  const mapFile = join(folder, 'special_tokens_map.json');
  const map = existsSync(mapFile) ? parseJson(readText(mapFile), mapFile) : {};
  const found: SpecialTokens = {};
  for (const name of specialNames) {
    const value = config[name] ?? map[name];
    const content = typeof value === 'object' && value !== null ? (value as Json).content : value;
    if (typeof content === 'string') found[name] = content;
  }
  return found;
}

/** chat_template.jinja (as transformers 5 writes it) wins over tokenizer_config.json, as it does in transformers. */
function readChatTemplate(folder: string, config: Json): string | undefined {
  const file = join(folder, 'chat_template.jinja');
  if (existsSync(file)) return readText(file);
  const value = config.chat_template;
  if (typeof value === 'string') return value;
  if (Array.isArray(value)) {
    const named = value.filter((entry): entry is { name: string; template: string } => {
      return typeof entry?.name === 'string' && typeof entry?.template === 'string';
    });
    return (named.find((entry) => entry.name === 'default') ?? named[0])?.template;
  }
  return undefined;
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new ArcherError('ARCHER_E_MODEL', `${file} cannot be read: ${messageOf(error)}.`, { cause: error });
  }
}

function parseJson(source: string, file: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(source);
  } catch (error) {
    throw new ArcherError(
      'ARCHER_E_MODEL',
      `${file} is not valid JSON (${messageOf(error)}); the file is damaged or cut short: copy or download it again.`,
      { cause: error },
    );
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ArcherError('ARCHER_E_MODEL', `${file} holds no JSON object; copy or download it again.`);
  }
  return value as Json;
}
