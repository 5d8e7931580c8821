// The bytes that each token id stands for, so that a stop string can be looked for across token borders without
// decoding. Three families: ByteLevel (GPT-2's map of bytes to printable characters), byte fallback with ▁ for the
// space (SentencePiece: <0x0A> is one byte), and plain text. Added tokens are their own text in all of them.

/** The bytes of id `i` are bytes[offsets[i]] … bytes[offsets[i + 1] − 1]. */
export interface TokenBytes {
  bytes: Uint8Array;
  /** vocabSize + 1 entries. */
  offsets: Int32Array;
}

type Json = Record<string, unknown>;

export function bytesOfTokens(vocab: Record<string, number>, tokenizerJson: Json, vocabSize: number): TokenBytes {
  const toBytes = converterFor(tokenizerJson);
  const added = new Set<string>();
  for (const entry of (tokenizerJson.added_tokens as Json[] | undefined) ?? []) {
    if (typeof entry?.content === 'string') added.add(entry.content);
  }
  const perId: (Uint8Array | undefined)[] = new Array(vocabSize);
  let total = 0;
  for (const [token, id] of Object.entries(vocab)) {
    const bytes = added.has(token) ? Buffer.from(token, 'utf8') : toBytes(token);
    perId[id] = bytes;
    total += bytes.length;
  }
  const bytes = new Uint8Array(total);
  const offsets = new Int32Array(vocabSize + 1);
  let at = 0;
  for (let id = 0; id < vocabSize; id += 1) {
    offsets[id] = at;
    const own = perId[id];
    if (own !== undefined) {
      bytes.set(own, at);
      at += own.length;
    }
  }
  offsets[vocabSize] = at;
  return { bytes, offsets };
}

function converterFor(tokenizerJson: Json): (token: string) => Uint8Array {
  const decoders = typesIn(tokenizerJson.decoder);
  if (decoders.has('ByteLevel') || typesIn(tokenizerJson.pre_tokenizer).has('ByteLevel')) {
    const byteOf = byteLevelMap();
    return (token) => byteLevelBytes(token, byteOf);
  }
  const spaced = decoders.has('Metaspace') || decoders.has('Replace');
  const fallback = decoders.has('ByteFallback') || (tokenizerJson.model as Json | undefined)?.byte_fallback === true;
  return (token) => {
    const byte = fallback ? /^<0x([0-9A-Fa-f]{2})>$/.exec(token) : null;
    if (byte !== null) return Uint8Array.of(Number.parseInt(byte[1] as string, 16));
    return Buffer.from(spaced ? token.replaceAll('\u2581', ' ') : token, 'utf8');
  };
}

/** All "type" names of a (possibly nested) decoder or pre-tokenizer description. */
function typesIn(value: unknown, found = new Set<string>()): Set<string> {
  if (Array.isArray(value)) {
    for (const entry of value) typesIn(entry, found);
  } else if (typeof value === 'object' && value !== null) {
    const node = value as Json;
    if (typeof node.type === 'string') found.add(node.type);
    typesIn(node.decoders, found);
    typesIn(node.pretokenizers, found);
  }
  return found;
}

/** GPT-2's table: printable bytes stand for themselves, the others for the characters from U+0100 on. */
function byteLevelMap(): Map<string, number> {
  const byteOf = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte += 1) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    byteOf.set(String.fromCharCode(printable ? byte : next), byte);
    if (!printable) next += 1;
  }
  return byteOf;
}

function byteLevelBytes(token: string, byteOf: Map<string, number>): Uint8Array {
  const bytes = new Uint8Array(token.length);
  let i = 0;
  for (const character of token) {
    const byte = byteOf.get(character);
    if (byte === undefined) return Buffer.from(token, 'utf8'); // not written in the byte alphabet: plain text
    bytes[i] = byte;
    i += 1;
  }
  return bytes;
}
