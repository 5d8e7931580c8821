// tokenizer.json and tokenizer_config.json from a GGUF file's metadata. It names its pre-tokenizer and does not hold it,
// so what is rebuilt here is what the original files of these families say; any other is refused.
import type { JsonObject } from '../model/config.js';
import { Metadata } from './metadata.js';
import type { GgufFile } from './reader.js';

// tokenizer.ggml.token_type
const control = 3;
const userDefined = 4;
const unused = 5; // fills the embedding up to a round number of rows

interface Family {
  normalizer: JsonObject | null;
  split: JsonObject[];
  /** GPT-2's own regular expression, after the splits. */
  byteLevelRegex?: boolean;
  ignoreMerges?: boolean;
  /** Where the file does not say it. */
  addsBos?: boolean;
}

const isolated = (Regex: string) => ({ type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false });
const words = (digits: string) =>
  isolated(
    `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`,
  );

const llama3: Family = { normalizer: null, split: [words('\\p{N}{1,3}')], ignoreMerges: true, addsBos: true };
const families: Record<string, Family> = {
  smollm: { normalizer: null, split: [{ type: 'Digits', individual_digits: true }], byteLevelRegex: true },
  qwen2: { normalizer: { type: 'NFC' }, split: [words('\\p{N}')] },
  'llama-bpe': llama3,
  llama3,
  'deepseek-v3': {
    normalizer: null,
    split: [
      isolated('\\p{N}{1,3}'),
      isolated('[一-龥\u3040-ゟ゠-ヿ]+'),
      isolated(
        '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+',
      ),
    ],
  },
};

/** @throws ArcherError ARCHER_E_MODEL: a tokenizer that cannot be rebuilt exactly, or damaged lists */
export function tokenizerFrom(file: GgufFile): { json: JsonObject; config: JsonObject } {
  const meta = new Metadata(file);
  const key = (name: string) => `tokenizer.ggml.${name}`;
  const instead = '; for another one name the folder of its original files with --tokenizer';
  const model = meta.string(key('model'));
  if (model !== 'gpt2') meta.refuse(key('model'), model, `gpt2 (byte-level BPE)${instead}`);
  const pre = meta.string(key('pre'));
  const family = families[pre] ?? meta.refuse(key('pre'), pre, `${Object.keys(families).join(', ')}${instead}`);

  const tokens = meta.strings(key('tokens'));
  const types = meta.numbers(key('token_type'));
  if (types.length !== tokens.length)
    meta.refuse(key('token_type'), types.length, `${tokens.length} types, one a token`);
  const merges = meta.strings(key('merges')).map((merge) => {
    const pair = merge.split(' ');
    return pair.length === 2 ? pair : meta.refuse(key('merges'), merge, 'two tokens with one blank between them');
  });
  const ids = tokens.map((content, id) => ({ content, id, type: types[id] })).filter(({ type }) => type !== unused);
  const vocab = Object.fromEntries(ids.map(({ content, id }) => [content, id]));
  const numDistinct = Object.keys(vocab).length;
  if (numDistinct !== ids.length)
    meta.refuse(key('tokens'), `${ids.length - numDistinct} times double`, 'distinct tokens');
  const tokenOf = (name: string) => {
    const id = meta.optional(key(`${name}_token_id`));
    if (id === undefined) return undefined;
    return tokens[id] ?? meta.refuse(key(`${name}_token_id`), id, `less than ${tokens.length}, the number of tokens`);
  };
  const bos = tokenOf('bos');
  const eos = tokenOf('eos');
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
  const json = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: ids
      .filter(({ type }) => type === control || type === userDefined)
      .map(({ id, content, type }) => ({ id, content, ...flags, special: type === control })),
    normalizer: family.normalizer,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [...family.split, { ...byteLevel, use_regex: family.byteLevelRegex ?? false }],
    },
    post_processor: templateOf([
      meta.boolean(key('add_bos_token'), family.addsBos ?? false) ? bos : undefined,
      meta.boolean(key('add_eos_token'), false) ? eos : undefined,
    ]),
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: family.ignoreMerges ?? false,
      vocab,
      merges,
    },
  };
  const config = {
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: bos ?? null,
    eos_token: eos ?? null,
    pad_token: tokenOf('padding') ?? null,
    unk_token: tokenOf('unknown') ?? null,
    additional_special_tokens: ids.filter(({ type }) => type === control).map(({ content }) => content),
    add_prefix_space: false,
    clean_up_tokenization_spaces: false,
    model_max_length: meta.number(`${meta.string('general.architecture')}.context_length`),
    ...(meta.get('tokenizer.chat_template') === undefined
      ? {}
      : { chat_template: meta.string('tokenizer.chat_template') }),
  };
  return { json, config };

  /** What is put before and behind a text that is encoded with special tokens. */
  function templateOf([before, behind]: [string | undefined, string | undefined]): JsonObject | null {
    const special = [before, behind].filter((token) => token !== undefined);
    if (special.length === 0) return null;
    const item = (id: string) => ({ SpecialToken: { id, type_id: 0 } });
    const sequence = (id: string) => [
      ...(before === undefined ? [] : [item(before)]),
      { Sequence: { id, type_id: 0 } },
      ...(behind === undefined ? [] : [item(behind)]),
    ];
    return {
      type: 'TemplateProcessing',
      single: sequence('A'),
      pair: [...sequence('A'), ...sequence('B')],
      special_tokens: Object.fromEntries(
        special.map((token) => [token, { id: token, ids: [tokens.indexOf(token)], tokens: [token] }]),
      ),
    };
  }
}
