// TensorBoard's event files: TFRecord framing around hand-encoded protobuf messages.
//   record  = length u64, masked CRC of the length u32, data, masked CRC of the data u32; little endian
//   Event   = wall_time 1 double, step 2 varint, file_version 3 string, summary 5 message, session_log 7 message
//   Summary = value 1 (repeated); Summary.Value = tag 1 string, simple_value 2 float
//   SessionLog = status 1 (START = 1)
import { maskedCrc32c } from './crc32c.js';

const wireVarint = 0;
const wire64 = 1;
const wireBytes = 2;
const wire32 = 5;

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  bytes.push(rest);
  return Buffer.from(bytes);
}

function key(field: number, wire: number): Buffer {
  return varint(field * 8 + wire);
}

function bytesField(field: number, data: Uint8Array): Buffer {
  return Buffer.concat([key(field, wireBytes), varint(data.length), data]);
}

function doubleField(field: number, value: number): Buffer {
  const data = Buffer.alloc(8);
  data.writeDoubleLE(value);
  return Buffer.concat([key(field, wire64), data]);
}

function floatField(field: number, value: number): Buffer {
  const data = Buffer.alloc(4);
  data.writeFloatLE(value);
  return Buffer.concat([key(field, wire32), data]);
}

function varintField(field: number, value: number): Buffer {
  return Buffer.concat([key(field, wireVarint), varint(value)]);
}

/** A framed record. */
export function tfRecord(data: Uint8Array): Buffer {
  const record = Buffer.alloc(16 + data.length);
  record.writeBigUInt64LE(BigInt(data.length), 0);
  record.writeUInt32LE(maskedCrc32c(record.subarray(0, 8)), 8);
  record.set(data, 12);
  record.writeUInt32LE(maskedCrc32c(data), 12 + data.length);
  return record;
}

/** The event that a file begins with. `wallTime` in seconds since 1970. */
export function versionEvent(wallTime: number): Buffer {
  return Buffer.concat([doubleField(1, wallTime), bytesField(3, Buffer.from('brain.Event:2'))]);
}

/** Tells TensorBoard that a run begins again here: what it read before for this step and later ones is dropped. */
export function restartEvent(wallTime: number, step: number): Buffer {
  return Buffer.concat([doubleField(1, wallTime), varintField(2, step), bytesField(7, varintField(1, 1))]);
}

/** One scalar per name, at one step. Values are rounded to float32. */
export function scalarsEvent(wallTime: number, step: number, scalars: Record<string, number>): Buffer {
  const values = Object.entries(scalars).map(([tag, value]) =>
    bytesField(1, Buffer.concat([bytesField(1, Buffer.from(tag)), floatField(2, value)])),
  );
  return Buffer.concat([doubleField(1, wallTime), varintField(2, step), bytesField(5, Buffer.concat(values))]);
}
