// The text of an answer and a place in it. Every step that reads or descends is paid for, so nesting and length are
// bounded here, once.

import { BoundError, type Budget } from '../rational.js';

/** What is not understood: the answer becomes an opaque node. */
export class ParseFailure extends Error {}

/** A pair of brackets is three to five deep. */
const maxDepth = 160;

export interface ReaderOptions {
  budget: Budget;
  /** Read `1,234` outside of brackets as one number. Default true. */
  grouping?: boolean;
}

export class Reader {
  readonly text: string;
  readonly budget: Budget;
  readonly grouping: boolean;
  at = 0;
  /** Open ( [ \{: inside them a comma separates, whatever digits follow. */
  brackets = 0;
  /** Open |: the next one closes. */
  bars = 0;
  #depth = 0;

  constructor(text: string, { budget, grouping = true }: ReaderOptions) {
    this.text = text;
    this.budget = budget;
    this.grouping = grouping;
  }

  /** The character here, behind spaces; undefined at the end. */
  next(): string | undefined {
    while (this.text[this.at] === ' ') this.at += 1;
    return this.text[this.at];
  }

  /** What a sticky pattern matches here, which is then behind us; undefined for nothing or the empty text. */
  take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.at;
    const match = pattern.exec(this.text);
    if (match === null || match[0] === '') return undefined;
    this.at += match[0].length;
    return match[0];
  }

  /** Like take, where nothing is a failure. */
  expect(pattern: RegExp): string {
    const taken = this.take(pattern);
    if (taken === undefined) throw new ParseFailure();
    return taken;
  }

  peek(pattern: RegExp): boolean {
    pattern.lastIndex = this.at;
    return pattern.test(this.text);
  }

  nested<T>(read: () => T): T {
    const depth = this.#depth;
    this.deepen();
    const result = read();
    this.#depth = depth;
    return result;
  }

  /** One level more, until the enclosing `nested` ends: 5!!!! and 1/2/3/4 are nested too. */
  deepen(): void {
    this.budget.spend();
    this.#depth += 1;
    if (this.#depth > maxDepth) throw new BoundError(`the answer is nested more than ${maxDepth} deep`);
  }

  /** Inside ( [ \{, where | opens anew. */
  bracketed<T>(read: () => T): T {
    const { bars } = this;
    this.bars = 0;
    this.brackets += 1;
    const result = this.nested(read);
    this.brackets -= 1;
    this.bars = bars;
    return result;
  }

  /** Reads a part of the text that was taken raw. */
  inner<T>(text: string, read: (reader: Reader) => T): T {
    return this.nested(() => {
      const reader = new Reader(text, this);
      reader.#depth = this.#depth;
      return read(reader);
    });
  }

  /** The argument of a command as text: `{…}` without its braces, or one command, number or character. */
  rawArgument(): string {
    if (this.next() !== '{') return this.expect(/\\(?:text|textrm|mathrm)\s*\{[^{}]*\}|\\[a-zA-Z]+|\d+|\S/y);
    let depth = 0;
    for (let i = this.at; i < this.text.length; i += 1) {
      const character = this.text[i];
      if (character === '\\') i += 1;
      else if (character === '{') depth += 1;
      else if (character === '}') {
        depth -= 1;
        if (depth === 0) {
          const raw = this.text.slice(this.at + 1, i);
          this.at = i + 1;
          return raw;
        }
      }
    }
    throw new ParseFailure();
  }
}
