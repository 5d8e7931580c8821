// Lines of a stream as they come, split at 0x0A only (U+2028 and a lone CR are text), one at a time in memory.

export interface StreamLine {
  bytes: Buffer;
  /** From 1. */
  line: number;
  /** Byte offset just behind the line and its line end. */
  end: number;
  /** false: the stream ended before the line did. */
  complete: boolean;
}

const newline = 0x0a;

/** Every line, also an empty one. */
export async function* readLines(stream: AsyncIterable<Uint8Array>): AsyncGenerator<StreamLine> {
  let pending: Buffer[] = [];
  let line = 1;
  let end = 0;
  for await (const chunk of stream) {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    let from = 0;
    for (let at = bytes.indexOf(newline); at !== -1; at = bytes.indexOf(newline, from)) {
      const whole = Buffer.concat([...pending, bytes.subarray(from, at)]);
      pending = [];
      end += whole.length + 1;
      yield { bytes: whole, line, end, complete: true };
      line += 1;
      from = at + 1;
    }
    if (from < bytes.length) pending.push(bytes.subarray(from));
  }
  if (pending.length === 0) return;
  const rest = Buffer.concat(pending);
  yield { bytes: rest, line, end: end + rest.length, complete: false };
}
