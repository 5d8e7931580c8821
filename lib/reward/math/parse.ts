// A LaTeX subset -> Node, by recursive descent over the characters. Length and nesting are bounded; what is not
// understood throws ParseFailure and becomes an opaque node.

import { BoundError, type Budget, divide, parseDecimal, power, rational, type Rational, add } from '../rational.js';
import type { Node, Relation } from './node.js';
import { unitWords } from './units.js';

export class ParseFailure extends Error {}

export interface ParseOptions {
  budget: Budget;
  /** Read `1,234` outside of brackets as one number. Default true. */
  grouping?: boolean;
}

const maxLength = 4_000;
const maxDepth = 60;

/** Reads a cleaned answer. Throws BoundError past a bound. */
export function parseAnswer(text: string, options: ParseOptions): Node {
  if (text.length > maxLength) throw new BoundError(`the answer has more than ${maxLength} characters`);
  const parser = new Parser(text, options);
  try {
    return parser.parseAll();
  } catch (error) {
    if (error instanceof ParseFailure) return { kind: 'opaque', text: text.replace(/\s+/g, '') };
    throw error;
  }
}

const relations: Record<string, Relation> = {
  '=': '=',
  '<': '<',
  '>': '>',
  '\\approx': '=',
  '\\lt': '<',
  '\\gt': '>',
  '\\le': '<=',
  '\\leq': '<=',
  '\\leqslant': '<=',
  '\\ge': '>=',
  '\\geq': '>=',
  '\\geqslant': '>=',
  '\\ne': '!=',
  '\\neq': '!=',
};

const functionNames = new Set([
  ...['sin', 'cos', 'tan', 'cot', 'sec', 'csc', 'arcsin', 'arccos', 'arctan', 'sinh', 'cosh', 'tanh'],
  ...['ln', 'log', 'lg', 'exp'],
]);
const greek = new Set(
  (
    'alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau ' +
    'upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell hbar'
  ).split(' '),
);
const upright = new Set(['text', 'textrm', 'mathrm', 'textnormal', 'mbox', 'hbox', 'operatorname', 'textsf', 'texttt']);
const fonts = new Set([
  'textbf',
  'textit',
  'mathbf',
  'mathit',
  'mathsf',
  'mathcal',
  'boldsymbol',
  'bm',
  'emph',
  'mathbb',
]);
const decorations = new Set([
  'overline',
  'bar',
  'vec',
  'hat',
  'overrightarrow',
  'widehat',
  'underline',
  'dot',
  'tilde',
]);
const silent = new Set(['angle', 'triangle', 'mathop', 'mathord', 'mathbin', 'mathrel']);
// 1,048,576 or 1{,}048{,}576 or 1 048 576; a group of other than three digits makes the whole a list.
const bySpaces = String.raw`\d{1,3}(?: \d{3})+(?! ?\d| ?\/)(?:\.\d+)?`;
const byCommas = (comma: string) => String.raw`\d{1,3}(?:${comma}\d{3})+(?!\d|${comma}\d)(?:\.\d+)?`;
const groupedByCommas = new RegExp(`${byCommas(String.raw`(?:,|\{,\})`)}|${bySpaces}`, 'y');
const groupedByBraces = new RegExp(`${byCommas(String.raw`\{,\}`)}|${bySpaces}`, 'y');

const closers: Record<string, string> = { '(': ')', '[': ']' };

class Parser {
  readonly #text: string;
  readonly #budget: Budget;
  readonly #grouping: boolean;
  #at = 0;
  #depth = 0;
  #brackets = 0;
  #bars = 0;

  constructor(text: string, options: ParseOptions) {
    this.#text = text;
    this.#budget = options.budget;
    this.#grouping = options.grouping ?? true;
  }

  parseAll(): Node {
    const node = this.#list();
    this.#space();
    if (this.#text[this.#at] === '.' && this.#at === this.#text.length - 1) this.#at += 1;
    if (this.#at < this.#text.length) throw new ParseFailure();
    return node;
  }

  /** item (, item)*, also with ";", "and", "or" between them. */
  #list(): Node {
    const items = this.#items();
    return items.length === 1 ? (items[0] as Node) : { kind: 'list', items };
  }

  #items(): Node[] {
    const items = [this.#relation()];
    while (this.#separator()) items.push(this.#relation());
    return items;
  }

  #separator(): boolean {
    const from = this.#at;
    while (
      this.#take(
        /\s*(?:,|;|\\text\s*\{\s*,?\s*(?:and|or)\s*\}|\\(?:land|lor|wedge|vee)(?![a-zA-Z])|(?:and|or)(?![a-zA-Z]))/y,
      )
    ) {}
    return this.#at > from;
  }

  #relation(): Node {
    this.#take(/\s*(?:[a-zA-Z]|\\[a-z]+)\s*\\in(?![a-zA-Z])/y);
    const sides = [this.#union()];
    const operators: Relation[] = [];
    for (;;) {
      const operator = this.#take(
        /\s*(?:\\(?:approx|leqslant|geqslant|leq|geq|neq|le|ge|ne|lt|gt)(?![a-zA-Z])|<=|>=|!=|=|<|>)/y,
      );
      if (operator === undefined) break;
      const name = operator.trim();
      const plain: Record<string, Relation> = { '<=': '<=', '>=': '>=', '!=': '!=' };
      operators.push((relations[name] ?? plain[name]) as Relation);
      sides.push(this.#union());
    }
    return operators.length === 0 ? (sides[0] as Node) : { kind: 'relation', sides, operators };
  }

  #union(): Node {
    const pieces = [this.#difference()];
    while (this.#take(/\s*\\(?:big)?cup(?![a-zA-Z])/y)) pieces.push(this.#difference());
    return pieces.length === 1 ? (pieces[0] as Node) : { kind: 'union', pieces };
  }

  #difference(): Node {
    const from = this.#ratio();
    if (this.#take(/\s*\\(?:setminus|backslash|smallsetminus)(?![a-zA-Z])/y)) {
      return { kind: 'without', from, removed: this.#ratio() };
    }
    return from;
  }

  #ratio(): Node {
    let left = this.#sum();
    while (this.#take(/\s*:(?!=)/y)) left = { kind: 'quotient', over: left, under: this.#sum() };
    return left;
  }

  #sum(): Node {
    const terms: Node[] = [];
    this.#enter();
    for (let first = true; ; first = false) {
      const sign = this.#take(/\s*(?:[+-]|\\(?:pm|mp)(?![a-zA-Z]))/y)?.trim();
      if (sign === undefined && !first) break;
      const term = this.#product();
      if (sign === '-') terms.push({ kind: 'negative', of: term });
      else if (sign === '\\pm') terms.push({ kind: 'plusMinus', of: term, sign: 1 });
      else if (sign === '\\mp') terms.push({ kind: 'plusMinus', of: term, sign: -1 });
      else terms.push(term);
    }
    this.#leave();
    return terms.length === 1 ? (terms[0] as Node) : { kind: 'sum', terms };
  }

  #product(): Node {
    let left = this.#signed();
    for (;;) {
      this.#budget.spend();
      if (this.#take(/\s*(?:\\(?:cdot|times|ast)(?![a-zA-Z])|\*(?!\*))/y)) {
        left = times(left, this.#signed());
      } else if (this.#take(/\s*(?:\/|\\div(?![a-zA-Z]))/y)) {
        const under = this.#signed();
        // km/h: behind a unit everything is unit.
        if (left.kind !== 'text' && under.kind !== 'text') left = { kind: 'quotient', over: left, under };
      } else if (this.#startsFactor()) {
        // Two numbers side by side ("12 13") are not a product.
        if (left.kind === 'number' && this.#peek(/ *\d/y)) throw new ParseFailure();
        const from = this.#at;
        const factor = this.#power();
        left = this.#isMixedPart(left, factor, from) ? { kind: 'sum', terms: [left, factor] } : times(left, factor);
      } else {
        return left;
      }
    }
  }

  /** `4\frac{3}{4}`: a whole number and a fraction of plain numbers. */
  #isMixedPart(left: Node, factor: Node, from: number): boolean {
    return (
      left.kind === 'number' &&
      /^\d+$/.test(left.digits) &&
      factor.kind === 'quotient' &&
      factor.over.kind === 'number' &&
      factor.under.kind === 'number' &&
      /^\s*\{?\s*\\[dtc]?frac/.test(this.#text.slice(from, from + 20))
    );
  }

  #signed(): Node {
    const sign = this.#take(/\s*[+-]/y)?.trim();
    if (sign === undefined) return this.#power();
    this.#enter();
    const of = this.#signed();
    this.#leave();
    return sign === '-' ? { kind: 'negative', of } : of;
  }

  #startsFactor(): boolean {
    this.#space();
    const rest = this.#text.slice(this.#at, this.#at + 24);
    if (rest === '') return false;
    if (/^(?:and|or)(?![a-zA-Z])/.test(rest)) return false;
    if (/^\\text\s*\{\s*,?\s*(?:and|or)\s*\}/.test(this.#text.slice(this.#at, this.#at + 40))) return false;
    if (rest[0] === '|') return this.#bars === 0;
    if (/^[a-zA-Z0-9({[]|^\.\d/.test(rest)) return true;
    if (rest.startsWith('\\{')) return false;
    const command = /^\\([a-zA-Z]+)/.exec(rest)?.[1];
    if (command === undefined) return false;
    return (
      startingCommands.has(command) ||
      upright.has(command) ||
      fonts.has(command) ||
      greek.has(command) ||
      functionNames.has(command)
    );
  }

  #power(): Node {
    this.#enter();
    let base = this.#atom();
    for (;;) {
      if (this.#take(/\s*\^\s*(?:\\circ(?![a-zA-Z])|\{\s*\\circ\s*\})|\s*\\(?:degree|degrees)(?![a-zA-Z])/y)) {
        base = base.kind === 'text' ? base : { kind: 'degrees', of: base };
      } else if (this.#take(/\s*(?:\^|\*\*)/y)) {
        const exponent = this.#argument(true);
        base = base.kind === 'text' ? base : { kind: 'power', base, exponent };
      } else if (this.#take(/\s*\\?%|\s*\\?percent(?![a-zA-Z])|\s*\\text\s*\{\s*percent\s*\}/y)) {
        base = { kind: 'percent', of: base };
      } else if (this.#take(/\s*!(?!=)/y)) {
        base = { kind: 'call', name: 'factorial', of: base };
      } else if (this.#peek(/\s*_/y)) {
        base = this.#subscript(base);
      } else {
        break;
      }
    }
    this.#leave();
    return base;
  }

  #subscript(base: Node): Node {
    this.#take(/\s*_/y);
    const raw = this.#rawArgument();
    const name = raw.replace(/\\text|\\mathrm|[{}\s]/g, '').toLowerCase();
    if (name === '') throw new ParseFailure();
    if (base.kind === 'number') return { kind: 'inBase', digits: base.digits, base: baseWords[name] ?? name };
    if (base.kind === 'variable') return { kind: 'variable', name: `${base.name}_${name}` };
    if (base.kind === 'text') return { kind: 'inBase', digits: base.text.toUpperCase(), base: baseWords[name] ?? name };
    throw new ParseFailure();
  }

  #atom(): Node {
    this.#space();
    this.#budget.spend();
    const character = this.#text[this.#at];
    if (character === undefined) throw new ParseFailure();
    const digits = this.#take(/(?=[0-9A-F]*\d)[0-9A-F]*[A-F][0-9A-F]*(?= ?_)/y);
    if (digits !== undefined) return { kind: 'text', text: digits };
    if (/[\d.]/.test(character)) return this.#number();
    if (character === '(' || character === '[') return this.#bracket(character);
    if (character === '{') return this.#group();
    if (character === '|') return this.#absolute();
    if (/[a-zA-Z]/.test(character)) return this.#letters();
    if (character === '\\') return this.#command();
    throw new ParseFailure();
  }

  #number(): Node {
    const group = this.#take(this.#grouping && this.#brackets === 0 ? groupedByCommas : groupedByBraces);
    if (group !== undefined) return numberNode(group.replace(/\{,\}|[, ]/g, ''));
    const mixed = this.#take(/\d+ +\d+ ?\/ ?\d+(?![\d.])/y);
    if (mixed !== undefined) {
      const [whole, over, under] = mixed.split(/[ /]+/) as [string, string, string];
      const part = fraction(over, under);
      return { kind: 'number', value: add(readDecimal(whole), part), decimal: false, digits: mixed };
    }
    const comma = this.#take(/\d+\{,\}\d+/y);
    if (comma !== undefined) return numberNode(comma.replace('{,}', '.'));
    const literal = this.#take(/(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,6}(?![\d.]))?/y);
    if (literal === undefined) throw new ParseFailure();
    // A final full stop belongs to the sentence: "48." is 48.
    const digits = literal.replace(/\.$/, '');
    if (/\./.test(literal)) {
      const repeating = this.#take(/ ?\\(?:overline|bar|dot)\s*\{\s*\d+\s*\}/y);
      if (repeating !== undefined) return repeatingDecimal(literal, repeating.replace(/\D/g, ''));
      if (this.#take(/ ?(?:\\(?:ldots|dots|cdots)(?![a-zA-Z])|\.\.\.)/y)) return endlessDecimal(literal);
    }
    return numberNode(digits);
  }

  #bracket(open: '(' | '['): Node {
    this.#at += 1;
    this.#enter();
    this.#brackets += 1;
    const bars = this.#bars;
    this.#bars = 0;
    const items = this.#items();
    this.#bars = bars;
    this.#brackets -= 1;
    this.#leave();
    const close = this.#take(/\s*[)\]]/y)?.trim() as ')' | ']' | undefined;
    if (close === undefined) throw new ParseFailure();
    if (items.length > 1) return { kind: 'bracket', open, close, items };
    if (close !== closers[open]) throw new ParseFailure();
    return items[0] as Node;
  }

  #set(): Node {
    this.#enter();
    this.#brackets += 1;
    if (this.#take(/\s*\\\}/y)) {
      this.#brackets -= 1;
      this.#leave();
      return { kind: 'set', items: [] };
    }
    const items = this.#items();
    this.#brackets -= 1;
    this.#leave();
    if (!this.#take(/\s*\\\}/y)) throw new ParseFailure();
    return { kind: 'set', items };
  }

  /** `{…}`, also `{a \over b}` and `{n \choose k}`. */
  #group(): Node {
    this.#at += 1;
    this.#enter();
    const node = this.#list();
    const infix = this.#take(/\s*\\(?:over|choose)(?![a-zA-Z])/y)?.trim();
    const result = infix === undefined ? node : this.#infix(infix, node, this.#list());
    if (!this.#take(/\s*\}/y)) throw new ParseFailure();
    this.#leave();
    return result;
  }

  #infix(name: string, left: Node, right: Node): Node {
    if (name === '\\over') return { kind: 'quotient', over: left, under: right };
    return { kind: 'call', name: 'binomial', of: left, base: right };
  }

  #absolute(): Node {
    this.#at += 1;
    this.#enter();
    this.#bars += 1;
    const of = this.#sum();
    this.#bars -= 1;
    this.#leave();
    if (!this.#take(/\s*\|/y)) throw new ParseFailure();
    return { kind: 'call', name: 'abs', of };
  }

  #letters(): Node {
    const run = /[a-zA-Z]+/y;
    run.lastIndex = this.#at;
    const word = (run.exec(this.#text) as RegExpExecArray)[0];
    const lower = word.toLowerCase();
    if (lower === 'and' || lower === 'or') throw new ParseFailure();
    if (functionNames.has(word)) {
      this.#at += word.length;
      return this.#call(word);
    }
    if (word === 'sqrt') {
      this.#at += word.length;
      return { kind: 'root', degree: 2, of: this.#argument() };
    }
    if (word === 'pi') {
      this.#at += word.length;
      return { kind: 'constant', name: 'pi' };
    }
    if (lower === 'infinity') {
      this.#at += word.length;
      return { kind: 'constant', name: 'infinity' };
    }
    if (word.length >= 4 || unitWords.has(lower)) {
      this.#at += word.length;
      return { kind: 'text', text: lower };
    }
    this.#at += 1;
    return letter(word[0] as string);
  }

  #command(): Node {
    if (this.#take(/\\\{/y)) return this.#set();
    if (this.#take(/\\\|/y)) throw new ParseFailure();
    const command = this.#take(/\\[a-zA-Z]+/y)?.slice(1);
    if (command === undefined) throw new ParseFailure();
    if (/^[dtc]?frac$/.test(command)) {
      const over = this.#argument();
      const under = this.#argument();
      return over.kind === 'text' && (under.kind === 'text' || under.kind === 'variable')
        ? over
        : { kind: 'quotient', over, under };
    }
    if (/^[dt]?binom$/.test(command))
      return { kind: 'call', name: 'binomial', of: this.#argument(), base: this.#argument() };
    if (command === 'sqrt') {
      const degree = this.#take(/\s*\[\s*\d{1,3}\s*\]/y);
      return {
        kind: 'root',
        degree: degree === undefined ? 2 : Number(degree.replace(/\D/g, '')),
        of: this.#argument(),
      };
    }
    if (command === 'pi') return { kind: 'constant', name: 'pi' };
    if (command === 'infty') return { kind: 'constant', name: 'infinity' };
    if (command === 'emptyset' || command === 'varnothing') return { kind: 'set', items: [] };
    if (command === 'imath') return { kind: 'constant', name: 'i' };
    if (greek.has(command)) return { kind: 'variable', name: command };
    if (functionNames.has(command)) return this.#call(command);
    if (upright.has(command)) return this.#upright();
    if (command === 'mathbb' && this.#take(/\s*(?:\{\s*R\s*\}|R)/y)) return { kind: 'reals' };
    if (fonts.has(command)) {
      const raw = /^\s*\{\s*([a-zA-Z][a-zA-Z .-]*[a-zA-Z.])\s*\}/.exec(this.#text.slice(this.#at, this.#at + 200));
      return raw !== null && (raw[1] as string).length > 2 ? this.#upright() : this.#argument();
    }
    if (decorations.has(command)) return this.#decorated();
    if (silent.has(command)) return this.#power();
    if (command === 'begin') return this.#matrix();
    if (command === 'lfloor') return this.#delimited('floor', /\s*\\rfloor(?![a-zA-Z])/y);
    if (command === 'lceil') return this.#delimited('ceil', /\s*\\rceil(?![a-zA-Z])/y);
    if (command === 'lvert') return this.#delimited('abs', /\s*\\rvert(?![a-zA-Z])/y);
    if (command === 'langle') {
      const items = this.#items();
      if (!this.#take(/\s*\\rangle(?![a-zA-Z])/y)) throw new ParseFailure();
      return { kind: 'bracket', open: '(', close: ')', items };
    }
    if (command === 'lbrace') throw new ParseFailure();
    throw new ParseFailure();
  }

  #delimited(name: string, close: RegExp): Node {
    this.#enter();
    const of = this.#sum();
    this.#leave();
    if (!this.#take(close)) throw new ParseFailure();
    return { kind: 'call', name, of };
  }

  /** \sin x, \sin^2 x, \log_3 81, \cos 2\theta: without brackets the argument is the implicit product that follows. */
  #call(name: string): Node {
    this.#enter();
    let base: Node | undefined;
    let exponent: Node | undefined;
    for (;;) {
      if (exponent === undefined && this.#take(/\s*\^/y)) exponent = this.#argument(true);
      else if (base === undefined && this.#take(/\s*_/y)) base = this.#argument();
      else break;
    }
    this.#space();
    const next = this.#text[this.#at];
    let of: Node;
    if (next === '(' || next === '{') {
      of = this.#atom();
    } else {
      of = this.#power();
      while (
        this.#startsFactor() &&
        !this.#peek(/\s*\\?(?:arc)?(?:sin|cos|tan|cot|sec|csc|ln|log|lg|exp)(?![a-zA-Z])/y) &&
        !this.#peek(/\s*[([]/y)
      ) {
        of = times(of, this.#power());
      }
    }
    this.#leave();
    const inverse = exponent !== undefined && isMinusOne(exponent) && /^(?:sin|cos|tan)h?$/.test(name);
    const call: Node = { kind: 'call', name: inverse ? `arc${name}` : name, of, base };
    return exponent === undefined || inverse ? call : { kind: 'power', base: call, exponent };
  }

  /** \text{…}: words and units, but also \text{24} and \mathrm{i}. */
  #upright(): Node {
    const raw = this.#rawArgument();
    const words = raw.replace(/\\[a-zA-Z]+|[{}]/g, ' ').trim();
    if (functionNames.has(words)) return this.#call(words);
    if (/^infinity$/i.test(words)) return { kind: 'constant', name: 'infinity' };
    if (words === 'i' || words === 'e' || !/[a-zA-Z]/.test(words)) return this.#inner(raw);
    const number = /^\s*([-+]?\d[\d,.]*)\s*([a-zA-Z].*)?$/.exec(words);
    if (number !== null) return this.#inner(number[1] as string);
    return {
      kind: 'text',
      text: raw
        .replace(/[{}\s]/g, '')
        .replace(/\.+$/, '')
        .toLowerCase(),
    };
  }

  /** A decoration of a name is dropped: \overline{AB} = AB. */
  #decorated(): Node {
    const raw = this.#rawArgument();
    if (!/^[\sa-zA-Z']+$/.test(raw)) throw new ParseFailure();
    return this.#inner(raw);
  }

  #inner(text: string): Node {
    this.#enter();
    const parser = new Parser(text, { budget: this.#budget, grouping: this.#grouping });
    parser.#depth = this.#depth;
    const node = parser.parseAll();
    this.#leave();
    return node;
  }

  #matrix(): Node {
    const environment = this.#take(/\s*\{\s*(?:[pbvBV]?matrix|smallmatrix|array)\s*\}/y);
    if (environment === undefined) throw new ParseFailure();
    if (environment.includes('array')) this.#take(/\s*\{[^{}]{0,40}\}/y);
    this.#enter();
    const rows: Node[][] = [[]];
    for (;;) {
      if (this.#take(/\s*\\end\s*\{[a-zA-Z]+\}/y)) break;
      (rows.at(-1) as Node[]).push(this.#relation());
      if (this.#take(/\s*&/y)) continue;
      if (this.#take(/\s*\\\\(?:\s*\[[^\]]{0,10}\])?/y)) {
        if (!this.#peek(/\s*\\end(?![a-zA-Z])/y)) rows.push([]);
        continue;
      }
      if (!this.#peek(/\s*\\end(?![a-zA-Z])/y)) throw new ParseFailure();
    }
    this.#leave();
    return { kind: 'matrix', rows };
  }

  /** What a command or ^ takes: a group, one digit, one letter, one command. */
  #argument(signed = false): Node {
    this.#space();
    const character = this.#text[this.#at];
    if (character === undefined) throw new ParseFailure();
    if (signed && character === '-') {
      this.#at += 1;
      return { kind: 'negative', of: this.#argument() };
    }
    if (/\d/.test(character)) {
      // \frac38 takes a digit, but 2^10 is written without braces often enough in plain text to mean ten.
      const digits = signed ? (this.#take(/\d+/y) as string) : (this.#take(/\d/y) as string);
      return numberNode(digits);
    }
    if (/[a-zA-Z]/.test(character)) {
      this.#at += 1;
      return letter(character);
    }
    this.#enter();
    const node = this.#atom();
    this.#leave();
    return node;
  }

  #rawArgument(): string {
    this.#space();
    if (this.#text[this.#at] !== '{') {
      const single = this.#take(/\\[a-zA-Z]+|\d+|\S/y);
      if (single === undefined) throw new ParseFailure();
      return single;
    }
    let depth = 0;
    for (let i = this.#at; i < this.#text.length; i += 1) {
      const character = this.#text[i];
      if (character === '\\') i += 1;
      else if (character === '{') depth += 1;
      else if (character === '}') {
        depth -= 1;
        if (depth === 0) {
          const raw = this.#text.slice(this.#at + 1, i);
          this.#at = i + 1;
          return raw;
        }
      }
    }
    throw new ParseFailure();
  }

  #space(): void {
    while (this.#text[this.#at] === ' ') this.#at += 1;
  }

  #take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#text);
    if (match === null || match[0] === '') return undefined;
    this.#at += match[0].length;
    return match[0];
  }

  #peek(pattern: RegExp): boolean {
    pattern.lastIndex = this.#at;
    return pattern.test(this.#text);
  }

  #enter(): void {
    this.#budget.spend();
    this.#depth += 1;
    if (this.#depth > maxDepth) throw new BoundError(`the answer is nested more than ${maxDepth} deep`);
  }

  #leave(): void {
    this.#depth -= 1;
  }
}

const startingCommands = new Set([
  ...['frac', 'dfrac', 'tfrac', 'cfrac', 'binom', 'dbinom', 'tbinom', 'sqrt', 'pi', 'infty', 'imath', 'begin'],
  ...['lfloor', 'lceil', 'lvert', ...decorations, ...silent],
]);

const baseWords: Record<string, string> = Object.fromEntries(
  'two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen'
    .split(' ')
    .map((word, i) => [word, String(i + 2)]),
);

/** A unit behind a value is dropped, whatever it is multiplied with. */
function times(left: Node, right: Node): Node {
  if (right.kind === 'text' && left.kind !== 'text') return left;
  if (left.kind === 'product') return { kind: 'product', factors: [...left.factors, right] };
  return { kind: 'product', factors: [left, right] };
}

function isMinusOne(node: Node): boolean {
  return node.kind === 'negative' && node.of.kind === 'number' && node.of.digits === '1';
}

function letter(name: string): Node {
  if (name === 'i' || name === 'e') return { kind: 'constant', name };
  return { kind: 'variable', name };
}

function numberNode(text: string): Node {
  return { kind: 'number', value: readDecimal(text), decimal: /[.eE]/.test(text), digits: text };
}

function readDecimal(text: string): Rational {
  const value = parseDecimal(text);
  if (value === undefined) throw new ParseFailure();
  return value;
}

function fraction(over: string, under: string): Rational {
  const d = readDecimal(under);
  if (d.n === 0n) throw new ParseFailure();
  return divide(readDecimal(over), d);
}

/** 0.4\overline{5}: (digits with one period − digits without) / 10^a (10^p − 1). */
function repeatingDecimal(start: string, period: string): Node {
  const places = BigInt(start.split('.')[1]?.length ?? 0);
  const scale = power({ n: 10n, d: 1n }, places);
  const nines = rational(10n ** BigInt(period.length) - 1n);
  const tail = divide(divide(rational(BigInt(period)), nines), scale);
  return { kind: 'number', value: add(readDecimal(start.replace(/\.$/, '')), tail), decimal: false, digits: '' };
}

/** 0.454545\ldots after six places or more: the shortest period that the digits show at least twice. */
function endlessDecimal(literal: string): Node {
  const places = literal.split('.')[1] ?? '';
  if (places.length >= 6 && places.length <= 200) {
    for (let period = 1; period * 2 <= places.length; period += 1) {
      const unit = places.slice(-period);
      let start = places.length - period;
      while (start >= period && places.slice(start - period, start) === unit) start -= period;
      if (places.length - start >= Math.max(2 * period, 4)) {
        return repeatingDecimal(`${literal.split('.')[0]}.${places.slice(0, start)}`, unit);
      }
    }
  }
  return { ...numberNode(literal.replace(/\.$/, '')), decimal: true } as Node;
}
