// From YAML text, a plain object or `--set` flags to one flat list: dotted key, value, and where it stands.

import { isAlias, isMap, isScalar, LineCounter, parseDocument, type Document, type Node, type ParsedNode } from 'yaml';
import { sections } from './schema.js';

export type Origin = 'file' | 'flag';

export interface Entry {
  path: string;
  value: unknown;
  /** For messages: "run.yaml:3:5", "--set", or "" for an object. */
  where: string;
  origin: Origin;
}

/** Collects entries and what is wrong with their form; all problems are reported together. */
export interface Reading {
  entries: Entry[];
  problems: string[];
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** `at`, ready to stand at the end of a sentence. */
export function placed(where: string): string {
  return where === '' ? '' : ` (${where})`;
}

function addValue(reading: Reading, entry: Entry): void {
  const { path, value, where, origin } = entry;
  if (!sections.has(path)) {
    reading.entries.push(entry);
  } else if (isRecord(value)) {
    for (const [name, child] of Object.entries(value)) {
      if (child !== undefined) addValue(reading, { path: `${path}.${name}`, value: child, where, origin });
    }
  } else if (value !== null) {
    reading.problems.push(`${path} is a section: it holds keys, not ${JSON.stringify(value)}${placed(where)}.`);
  }
}

export function readObject(object: object, reading: Reading): void {
  for (const [name, value] of Object.entries(object)) {
    if (value !== undefined) addValue(reading, { path: name, value, where: '', origin: 'file' });
  }
}

/** `--set a.b=c`; c is YAML: a number, true, text, [a list], {a: map}. */
export function readFlags(sets: readonly string[], reading: Reading): void {
  for (const flag of sets) {
    const equals = flag.indexOf('=');
    const path = flag.slice(0, Math.max(equals, 0)).trim();
    if (path === '') {
      reading.problems.push(`--set ${flag}: write --set key=value, such as --set rollout.n=8.`);
      continue;
    }
    const where = `--set ${flag}`;
    const document = parseDocument(flag.slice(equals + 1), { prettyErrors: false });
    const fault = document.errors[0];
    if (fault !== undefined) reading.problems.push(`${where}: the value is not valid YAML: ${fault.message}.`);
    else addValue(reading, { path, value: document.toJS(), where, origin: 'flag' });
  }
}

export function readYaml(text: string, file: string, reading: Reading): void {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const place = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return `${file}:${line}:${col}`;
  };
  for (const fault of document.errors) {
    reading.problems.push(`${place(fault.pos[0])}: not valid YAML: ${fault.message}.`);
  }
  if (document.errors.length > 0 || document.contents === null) return;
  if (isMap(document.contents)) walk(document, document.contents, '', place, reading);
  else if (document.toJS() !== null) reading.problems.push(`${place(0)}: a configuration is a map of keys.`);
}

function walk(
  document: Document.Parsed,
  map: ParsedNode,
  prefix: string,
  place: (offset: number) => string,
  reading: Reading,
): void {
  if (!isMap(map)) return;
  for (const { key, value } of map.items) {
    const path = prefix + String(isScalar(key) ? key.value : key);
    const where = place((key as Node).range?.[0] ?? 0);
    const target = isAlias(value) ? value.resolve(document) : value;
    if (sections.has(path) && isMap(target)) walk(document, target as ParsedNode, `${path}.`, place, reading);
    else addValue(reading, { path, value: target?.toJS(document) ?? null, where, origin: 'file' });
  }
}
