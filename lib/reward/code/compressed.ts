// LiveCodeBench's private tests: base64 of zlib of a pickle that holds one string, which is JSON. Only that one kind of
// pickle is read, by its few opcodes: nothing in it is executed.

import { inflateSync } from 'node:zlib';

const maxBytes = 256 * 2 ** 20;

/** The JSON text inside, or undefined where the text is nothing of the kind. */
export function decompressTests(text: string): string | undefined {
  if (text.length < 16 || !/^[A-Za-z0-9+/\s]+={0,2}\s*$/.test(text)) return undefined;
  try {
    return pickledString(inflateSync(Buffer.from(text, 'base64'), { maxOutputLength: maxBytes }));
  } catch {
    return undefined;
  }
}

function pickledString(bytes: Buffer): string | undefined {
  if (bytes[0] === 0x5b || bytes[0] === 0x7b) return bytes.toString('utf8'); // JSON without a pickle around it
  let at = 0;
  while (at < bytes.length) {
    const opcode = bytes[at];
    at += 1;
    if (opcode === 0x80)
      at += 1; // PROTO
    else if (opcode === 0x95)
      at += 8; // FRAME
    else if (opcode === 0x8c)
      return bytes.toString('utf8', at + 1, at + 1 + bytes.readUInt8(at)); // SHORT_BINUNICODE
    else if (opcode === 0x58)
      return bytes.toString('utf8', at + 4, at + 4 + bytes.readUInt32LE(at)); // BINUNICODE
    else if (opcode === 0x8d)
      return bytes.toString('utf8', at + 8, at + 8 + Number(bytes.readBigUInt64LE(at))); // BINUNICODE8
    else return undefined;
  }
  return undefined;
}
