// The header of a GGUF file (version 2 or 3, little-endian): metadata and the table of tensors. Nothing that the file
// says of itself is believed: every length is held against the bytes that are there before anything is allocated.
//
//   "GGUF" · u32 version · u64 tensors · u64 pairs · pairs (key, u32 type, value) · tensors (name, u32 dimensions,
//   u64 each, u32 type, u64 offset) · padding to the alignment · data.     A string is a u64 length and its bytes.
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { ArcherError } from '../errors.js';
import { ioError } from '../io-error.js';
import { type BlockTypeName, blockTypes, otherTypeNames } from './blocks.js';

export type MetadataValue = string | number | boolean | string[] | number[];

export interface GgufTensor {
  name: string;
  type: BlockTypeName;
  /** Outermost dimension first, as Hugging Face writes it (the file has it the other way round). */
  shape: number[];
  /** Byte range in the file. */
  begin: number;
  end: number;
}

export interface GgufFile {
  path: string;
  metadata: Map<string, MetadataValue>;
  tensors: Map<string, GgufTensor>;
}

// Vocabularies of a quarter million tokens with their merges take about 12 MB.
const maxHeaderBytes = 1 << 26;
const windowBytes = 1 << 20;
const maxDimensions = 4;
const maxArrayLength = 1 << 22;

/**
 * @throws ArcherError ARCHER_E_MODEL: no GGUF file, another version, truncated, damaged, a type that is not read;
 *   ARCHER_E_IO: the file cannot be read
 */
export function readGguf(path: string): GgufFile {
  let fd: number | undefined;
  try {
    fd = openSync(path, 'r');
    const { size } = fstatSync(fd);
    return parse(new Cursor(fd, path, size));
  } catch (error) {
    throw ioError('read', path, error);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function parse(cursor: Cursor): GgufFile {
  const { path } = cursor;
  if (cursor.take(4, 'its first bytes').toString('latin1') !== 'GGUF') fail(path, 'it is no GGUF file');
  const version = cursor.u32('the version');
  if (version !== 2 && version !== 3) {
    const isSwapped = version !== 0 && version % 65536 === 0;
    fail(path, isSwapped ? 'it is big-endian' : `it has version ${version}; versions 2 and 3 are read`);
  }
  const numTensors = cursor.count('the number of tensors');
  const numPairs = cursor.count('the number of metadata entries');
  const metadata = new Map<string, MetadataValue>();
  for (let i = 0; i < numPairs; i += 1) {
    const key = cursor.string('a metadata key');
    if (metadata.has(key)) fail(path, `the metadata key ${key} is there twice`);
    metadata.set(key, cursor.value(cursor.u32(key), key));
  }
  const infos: TensorInfo[] = [];
  while (infos.length < numTensors) infos.push(readTensorInfo(cursor));
  const alignment = metadata.get('general.alignment') ?? 32;
  if (typeof alignment !== 'number' || !(alignment > 0) || !Number.isInteger(Math.log2(alignment))) {
    fail(path, `general.alignment is ${JSON.stringify(alignment)}; a power of two is needed`);
  }
  const dataStart = Math.ceil(cursor.at / alignment) * alignment;
  return { path, metadata, tensors: placeTensors(path, infos, dataStart, alignment, cursor.fileBytes) };
}

type TensorInfo = Omit<GgufTensor, 'begin' | 'end'> & { offset: number; bytes: number };

function readTensorInfo(cursor: Cursor): TensorInfo {
  const { path } = cursor;
  const name = cursor.string('the name of a tensor');
  const numDimensions = cursor.u32(name);
  if (numDimensions < 1 || numDimensions > maxDimensions) fail(path, `tensor ${name} has ${numDimensions} dimensions`);
  const shape = Array.from({ length: numDimensions }, () => cursor.count(`the shape of ${name}`)).reverse();
  const id = cursor.u32(name);
  const found = Object.entries(blockTypes).find(([, type]) => type.id === id);
  if (!found) {
    const supported = Object.keys(blockTypes).join(', ');
    fail(path, `tensor ${name} has type ${otherTypeNames[id] ?? id}; read are ${supported}`);
  }
  const [type, { size, bytes }] = found;
  const columns = shape.at(-1)!;
  const numWeights = shape.reduce((product, dimension) => product * dimension, 1);
  if (numWeights === 0 || columns % size !== 0 || !Number.isSafeInteger(numWeights * bytes)) {
    fail(path, `tensor ${name} has shape [${shape.join(', ')}], which ${type} (blocks of ${size}) does not allow`);
  }
  const offset = cursor.count(`the offset of ${name}`);
  return { name, type: type as BlockTypeName, shape, offset, bytes: (numWeights / size) * bytes };
}

function placeTensors(
  path: string,
  infos: readonly TensorInfo[],
  dataStart: number,
  alignment: number,
  fileBytes: number,
): Map<string, GgufTensor> {
  const tensors = new Map<string, GgufTensor>();
  let previous: GgufTensor | undefined;
  for (const { offset, bytes, ...info } of [...infos].sort((a, b) => a.offset - b.offset)) {
    const begin = dataStart + offset;
    const tensor = { ...info, begin, end: begin + bytes };
    if (tensors.has(info.name)) fail(path, `tensor ${info.name} is there twice`);
    if (offset % alignment !== 0) fail(path, `tensor ${info.name} begins at ${offset}, no multiple of ${alignment}`);
    if (tensor.end > fileBytes) {
      fail(
        path,
        `tensor ${info.name} ends at byte ${tensor.end}, the file at ${fileBytes}: it is truncated; fetch it again`,
      );
    }
    if (previous && previous.end > begin) fail(path, `the tensors ${previous.name} and ${info.name} overlap`);
    tensors.set(info.name, tensor);
    previous = tensor;
  }
  return tensors;
}

/** Reads on and on through the header, a window of the file at a time. */
class Cursor {
  at = 0;
  #window = Buffer.alloc(0);
  #windowStart = 0;

  constructor(
    readonly fd: number,
    readonly path: string,
    readonly fileBytes: number,
  ) {}

  /** The next bytes: a view that the next call may overwrite. */
  take(bytes: number, what: string): Buffer {
    const end = this.at + bytes;
    if (end > this.fileBytes) {
      fail(
        this.path,
        `${what} would end at byte ${end}, the file ends at ${this.fileBytes}: it is truncated or damaged`,
      );
    }
    if (end > maxHeaderBytes) fail(this.path, `its header is longer than ${maxHeaderBytes} bytes: it is damaged`);
    if (end > this.#windowStart + this.#window.length) {
      const length = Math.min(Math.max(bytes, windowBytes), this.fileBytes - this.at);
      this.#window = Buffer.alloc(length);
      this.#windowStart = this.at;
      for (let done = 0; done < length; ) {
        const read = readSync(this.fd, this.#window, done, length - done, this.at + done);
        if (read === 0) fail(this.path, 'it became shorter while it was read');
        done += read;
      }
    }
    const from = this.at - this.#windowStart;
    this.at = end;
    return this.#window.subarray(from, from + bytes);
  }

  u32(what: string): number {
    return this.take(4, what).readUInt32LE();
  }

  count(what: string): number {
    const value = this.take(8, what).readBigUInt64LE();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) fail(this.path, `${what} is ${value}: it is damaged`);
    return Number(value);
  }

  string(what: string): string {
    return this.take(this.count(`the length of ${what}`), what).toString('utf8');
  }

  value(type: number, key: string): MetadataValue {
    const scalar = scalars[type];
    if (scalar) return scalar.read(this.take(scalar.bytes, key), 0);
    if (type === stringType) return this.string(key);
    if (type !== arrayType) fail(this.path, `the metadata key ${key} has the unknown type ${type}`);
    const elementType = this.u32(key);
    const length = this.count(`the length of ${key}`);
    if (length > maxArrayLength) fail(this.path, `${key} has ${length} elements: it is damaged`);
    const element = scalars[elementType];
    if (element) {
      const bytes = this.take(length * element.bytes, key);
      return Array.from({ length }, (_, i) => Number(element.read(bytes, i * element.bytes)));
    }
    if (elementType !== stringType) fail(this.path, `${key} is an array of type ${elementType}, which is not read`);
    const strings: string[] = [];
    while (strings.length < length) strings.push(this.string(key));
    return strings;
  }
}

const stringType = 8;
const arrayType = 9;

/** Metadata types by number. 64-bit integers lose what a double cannot hold; none that is used is so large. */
const scalars: Record<number, { bytes: number; read: (from: Buffer, at: number) => number | boolean }> = {
  0: { bytes: 1, read: (from, at) => from.readUInt8(at) },
  1: { bytes: 1, read: (from, at) => from.readInt8(at) },
  2: { bytes: 2, read: (from, at) => from.readUInt16LE(at) },
  3: { bytes: 2, read: (from, at) => from.readInt16LE(at) },
  4: { bytes: 4, read: (from, at) => from.readUInt32LE(at) },
  5: { bytes: 4, read: (from, at) => from.readInt32LE(at) },
  6: { bytes: 4, read: (from, at) => from.readFloatLE(at) },
  7: { bytes: 1, read: (from, at) => from.readUInt8(at) !== 0 },
  10: { bytes: 8, read: (from, at) => Number(from.readBigUInt64LE(at)) },
  11: { bytes: 8, read: (from, at) => Number(from.readBigInt64LE(at)) },
  12: { bytes: 8, read: (from, at) => from.readDoubleLE(at) },
};

function fail(path: string, what: string): never {
  throw new ArcherError('ARCHER_E_MODEL', `${path}: ${what}.`);
}
