// DAPO's soft overlong punishment (2503.14476, eq. 13; verl's overlong_buffer): nothing until the buffer begins, then a
// straight line down to −factor at the limit.

export interface OverlongBuffer {
  /** data.max_response_length, in tokens. */
  maxLength: number;
  /** algorithm.overlong_buffer.len, in tokens. */
  bufferLength: number;
  /** algorithm.overlong_buffer.penalty_factor, in units of reward. */
  factor: number;
}

/** What is added to the reward of a response of `length` tokens: 0 or negative. */
export function overlongPenalty(length: number, { maxLength, bufferLength, factor }: OverlongBuffer): number {
  const excess = Math.min(length, maxLength) - (maxLength - bufferLength);
  return excess <= 0 ? 0 : (-excess / bufferLength) * factor;
}
