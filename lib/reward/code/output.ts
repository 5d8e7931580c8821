// When the printed output of a program is the expected one: line by line, white space at line ends and empty lines at the
// end ignored; where a line differs, word by word, numbers as numbers.

import { close } from './wire.js';

const number = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/;

/** Where a whole number is expected it must be the same at any size; where a decimal is, 1e-6 (relative above 1). */
export function sameOutput(output: string, expected: string): boolean {
  const lines = linesOf(output);
  const wanted = linesOf(expected);
  return lines.length === wanted.length && wanted.every((line, i) => sameLine(lines[i] as string, line));
}

function linesOf(text: string): string[] {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => line.trim());
}

function sameLine(line: string, wanted: string): boolean {
  if (line === wanted) return true;
  const words = line.split(/\s+/);
  const others = wanted.split(/\s+/);
  return words.length === others.length && words.every((word, i) => sameWord(word, others[i] as string));
}

function sameWord(word: string, wanted: string): boolean {
  if (word === wanted) return true;
  if (!number.test(word) || !number.test(wanted)) return false;
  if (/^[+-]?\d+$/.test(wanted)) {
    const whole = /^([+-]?\d+)(?:\.0*)?$/.exec(word)?.[1];
    // Two spellings of whole numbers that differ ("07") are not the same output; 7.0 is 7.
    if (whole !== undefined) return word.includes('.') && BigInt(whole) === BigInt(wanted);
  }
  return close(Number(word), Number(wanted));
}
