// One configuration option: its type, range, default, one-line doc, paper symbol and aliases. The schema is a tree of
// these; the resolved type, validation, `--set`, the printed configuration and the reference page all come from it.

import { z } from 'zod';

/** Another word for an option (TRL's, mostly), accepted at every level on the way to the option. */
export interface Alias {
  word: string;
  /** What the alias means where it is more than a rename; shown on the reference page. */
  note?: string;
  /** From the alias's value to the option's. A value that it does not know is returned as it is. */
  convert?: (value: unknown) => unknown;
  /** Options that get the same value unless they are given themselves. */
  also?: string[];
}

/** T: the resolved value. I: what a configuration may say. */
export interface Option<T, I = T> {
  kind: 'option';
  type: z.ZodType<T>;
  /** Phantom: carries I to ConfigInput. */
  input?: I;
  default: T;
  /** Says how the default is derived where it is not a constant. */
  defaultText?: string;
  /** The allowed values in words: "integer ≥ 1". */
  range: string;
  doc: string;
  /** The symbol in archer.md and the paper. */
  symbol?: string;
  aliases: Alias[];
}

interface Extra {
  symbol?: string;
  aliases?: (string | Alias)[];
  defaultText?: string;
}

export interface Bounds {
  min?: number;
  max?: number;
  /** Exclusive lower bound. */
  above?: number;
  below?: number;
}

/** An option of any type that zod can say. */
export function make<T, I = T>(type: z.ZodType<T>, range: string, fallback: T, doc: string, extra: Extra = {}): Option<T, I> {
  const aliases = (extra.aliases ?? []).map((alias) => (typeof alias === 'string' ? { word: alias } : alias));
  return { kind: 'option', type, default: fallback, range, doc, ...extra, aliases };
}

function rangeText(noun: string, { min, max, above, below }: Bounds): string {
  const low = min !== undefined ? `≥ ${min}` : above !== undefined ? `> ${above}` : '';
  const high = max !== undefined ? `≤ ${max}` : below !== undefined ? `< ${below}` : '';
  return [noun, [low, high].filter((text) => text !== '').join(' and ')].filter((text) => text !== '').join(' ');
}

function within(bounds: Bounds): (value: number) => boolean {
  const { min = -Infinity, max = Infinity, above = -Infinity, below = Infinity } = bounds;
  return (value) => value >= min && value <= max && value > above && value < below;
}

const finite = (bounds: Bounds) => z.number().refine(within(bounds));
const integer = (bounds: Bounds) => z.number().refine((value) => Number.isSafeInteger(value) && within(bounds)(value));

export function num(fallback: number, bounds: Bounds, doc: string, extra?: Extra): Option<number> {
  return make(finite(bounds), rangeText('number', bounds), fallback, doc, extra);
}

export function int(fallback: number, bounds: Bounds, doc: string, extra?: Extra): Option<number> {
  return make(integer(bounds), rangeText('integer', bounds), fallback, doc, extra);
}

/** Like int; null switches the limit off. */
export function intOrNull(fallback: number | null, bounds: Bounds, doc: string, extra?: Extra): Option<number | null> {
  return make(integer(bounds).nullable(), `${rangeText('integer', bounds)}, or null`, fallback, doc, extra);
}

const switches = new Map<unknown, boolean>([
  ['on', true],
  ['off', false],
]);

/** true or false; the words on and off too, which YAML 1.2 reads as text. */
export function bool(fallback: boolean, doc: string, extra?: Extra): Option<boolean, boolean | 'on' | 'off'> {
  const type = z.preprocess((value) => switches.get(value) ?? value, z.boolean()) as z.ZodType<boolean>;
  return make<boolean, boolean | 'on' | 'off'>(type, 'true, false (on, off)', fallback, doc, extra);
}

/** Like bool; auto leaves the choice to the program. */
export function boolOrAuto(doc: string, extra?: Extra): Option<boolean | 'auto', boolean | 'on' | 'off' | 'auto'> {
  const type = z.preprocess((value) => switches.get(value) ?? value, z.union([z.boolean(), z.literal('auto')]));
  return make<boolean | 'auto', boolean | 'on' | 'off' | 'auto'>(
    type as z.ZodType<boolean | 'auto'>,
    'auto, true, false (on, off)',
    'auto',
    doc,
    extra,
  );
}

export function oneOf<const V extends string>(
  fallback: V,
  values: readonly V[],
  doc: string,
  extra?: Extra,
): Option<V> {
  return make<V>(
    z.enum(values as readonly [V, ...V[]]) as unknown as z.ZodType<V>,
    values.join(', '),
    fallback,
    doc,
    extra,
  );
}

export function text(fallback: string, doc: string, extra?: Extra): Option<string> {
  return make(z.string().min(1), 'text', fallback, doc, extra);
}

export function textOrNull(fallback: string | null, doc: string, extra?: Extra): Option<string | null> {
  return make(z.string().min(1).nullable(), 'text, or null', fallback, doc, extra);
}

const listOf = <T>(item: z.ZodType<T>) =>
  z.preprocess((value) => (Array.isArray(value) ? value : [value]), z.array(item)) as z.ZodType<T[]>;

/** One text or a list; always a list once resolved. */
export function texts(fallback: string[], doc: string, extra?: Extra): Option<string[], string | string[]> {
  return make<string[], string | string[]>(listOf(z.string().min(1)), 'text, or a list of texts', fallback, doc, extra);
}

export function ints(
  fallback: number[],
  bounds: Bounds,
  doc: string,
  extra?: Extra,
): Option<number[], number | number[]> {
  const range = `${rangeText('integer', bounds)}, or a list of them`;
  return make<number[], number | number[]>(listOf(integer(bounds)), range, fallback, doc, extra);
}

export function nums(
  fallback: number[],
  bounds: Bounds,
  doc: string,
  extra?: Extra,
): Option<number[], number | number[]> {
  return make<number[], number | number[]>(
    listOf(finite(bounds)),
    `${rangeText('number', bounds)}, or a list of them`,
    fallback,
    doc,
    extra,
  );
}

/** Names of the user's own with values that `item` accepts. */
export function mapOf<T>(item: z.ZodType<T>, range: string, doc: string): Option<Record<string, T>> {
  return make(z.record(z.string().min(1), item), range, {}, doc);
}

export function someOf<const V extends string>(
  fallback: V[],
  values: readonly V[],
  doc: string,
  extra?: Extra,
): Option<V[], V | V[]> {
  const item = z.enum(values as readonly [V, ...V[]]) as unknown as z.ZodType<V>;
  return make<V[], V | V[]>(listOf(item), `a list out of ${values.join(', ')}`, fallback, doc, extra);
}

export function pair(fallback: [number, number], bounds: Bounds, doc: string, extra?: Extra): Option<[number, number]> {
  const range = `a list of two: ${rangeText('numbers', bounds)}`;
  return make<[number, number]>(z.tuple([finite(bounds), finite(bounds)]), range, fallback, doc, extra);
}

/** A number that is 0 (off) or within bounds. */
export function numOrOff(fallback: number, bounds: Bounds, doc: string, extra?: Extra): Option<number> {
  const type = z.number().refine((value) => value === 0 || within(bounds)(value));
  return make(type, `0, or a ${rangeText('number', bounds)}`, fallback, doc, extra);
}

/** A section of the schema: options and sections by name. */
export interface Section {
  [name: string]: Option<any, any> | Section;
}

/** The resolved form of a section or option. */
export type Resolved<S> = S extends Option<infer T, any> ? T : { [K in keyof S]: Resolved<S[K]> };

/** What a configuration object may say: every key optional. */
export type Input<S> = S extends Option<any, infer I> ? I : { [K in keyof S]?: Input<S[K]> };

export function isOption(node: Option<any, any> | Section | undefined): node is Option<any, any> {
  return node !== undefined && node.kind === 'option' && 'range' in node;
}
