// Values of a judged program as they come out of the sandbox (harness.py, encode), and when one equals the expected one.
// JSON's own types stand for themselves; { int: hex }, { float: 'nan' | 'inf' | '-inf' }, { tuple }, { dict: pairs } and
// others for what JSON cannot say.

export type Wire = null | boolean | number | string | Wire[] | { [kind: string]: unknown };

/** JSON text as Python reads it: integers of any size stay exact, NaN and Infinity are numbers. */
export function parseJson(text: string): Wire {
  const tagged = text.replace(/"(?:[^"\\]|\\.)*"|(?<![\d.])-?\d{16,}(?![\d.eE])|NaN|-?Infinity/g, (token) => {
    if (token.startsWith('"')) return token;
    if (token === 'NaN') return '{"float":"nan"}';
    if (token.endsWith('Infinity')) return `{"float":"${token.startsWith('-') ? '-inf' : 'inf'}"}`;
    const value = BigInt(token);
    if (Number.isSafeInteger(Number(value))) return token;
    return `{"int":"${value < 0n ? '-' : ''}0x${(value < 0n ? -value : value).toString(16)}"}`;
  });
  return toWire(JSON.parse(tagged));
}

function toWire(value: unknown): Wire {
  if (Array.isArray(value)) return value.map(toWire);
  if (typeof value !== 'object' || value === null) return value as Wire;
  const entries = Object.entries(value);
  const isTag =
    entries.length === 1 && typeof Object.values(value)[0] === 'string' && /^(int|float)$/.test(entries[0]?.[0] ?? '');
  return isTag ? (value as Wire) : { dict: entries.map(([key, entry]) => [key, toWire(entry)]) };
}

/**
 * Python's equality, save that a tuple equals a list (JSON has no tuples), that keys of a dict are compared as text (JSON's
 * are), and that numbers of which one is no integer may differ a little (close).
 */
export function equalValues(value: unknown, expected: Wire): boolean {
  if (typeof expected === 'boolean' || typeof expected === 'number') {
    return (typeof value === 'number' || typeof value === 'boolean') && close(Number(value), Number(expected));
  }
  if (typeof expected === 'string' || expected === null) return value === expected;
  const list = elements(value);
  const wanted = elements(expected);
  if (wanted !== undefined) {
    return (
      list !== undefined &&
      list.length === wanted.length &&
      wanted.every((entry, i) => equalValues(list[i], entry as Wire))
    );
  }
  const { dict, int, float } = expected as Record<string, unknown>;
  const own = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
  if (Array.isArray(dict)) {
    if (!Array.isArray(own.dict) || own.dict.length !== dict.length) return false;
    const entries = new Map((own.dict as [unknown, unknown][]).map(([key, entry]) => [keyText(key), entry]));
    return (dict as [unknown, Wire][]).every(
      ([key, entry]) => entries.has(keyText(key)) && equalValues(entries.get(keyText(key)), entry),
    );
  }
  return int !== undefined ? own.int === int : float !== 'nan' && own.float === float;
}

function elements(value: unknown): unknown[] | undefined {
  if (Array.isArray(value)) return value;
  const tuple = (value as { tuple?: unknown } | null)?.tuple;
  return Array.isArray(tuple) ? tuple : undefined;
}

const keyText = (key: unknown) => (typeof key === 'string' ? key : JSON.stringify(key));

/** 1e-6, and relative to an expected number above 1 that is not whole: a count modulo 1e9+7 is not to be approximated. */
export function close(value: number, expected: number): boolean {
  if (value === expected) return true;
  if (Number.isInteger(value) && Number.isInteger(expected)) return false;
  const scale = Number.isInteger(expected) ? 1 : Math.max(1, Math.abs(expected));
  return Math.abs(value - expected) <= 1e-6 * scale;
}
