// Which word means which key: the aliases, and the nearest known key for a word that means none.

import type { Alias } from './option.js';
import { options, sections } from './schema.js';

/** Every accepted alias by its dotted path: the word alone, and at each section on the way to its key. */
export const aliases: ReadonlyMap<string, { key: string; alias: Alias }> = (() => {
  const all = new Map<string, { key: string; alias: Alias }>();
  for (const [key, option] of options) {
    const parts = key.split('.').slice(0, -1);
    for (const alias of option.aliases) {
      for (let depth = 0; depth <= parts.length; ++depth) {
        const path = [...parts.slice(0, depth), alias.word].join('.');
        if (!options.has(path)) all.set(path, { key, alias });
      }
    }
  }
  return all;
})();

/** Edits (insert, delete, replace, swap of neighbours) between two words. */
export function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let above = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; ++i) {
    const row = [i];
    for (let j = 1; j <= b.length; ++j) {
      const same = a[i - 1] === b[j - 1];
      let best = Math.min(above[j]! + 1, row[j - 1]! + 1, above[j - 1]! + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) best = Math.min(best, before[j - 2]! + 1);
      row.push(best);
    }
    before = above;
    above = row;
  }
  return above[b.length]!;
}

const lastPart = (path: string) => path.slice(path.lastIndexOf('.') + 1);

/** The known key nearest to an unknown one, or undefined if none is near. */
export function nearest(path: string, known: Iterable<string> = [...options.keys(), ...sections, ...aliases.keys()]) {
  const wanted = path.toLowerCase().replaceAll('-', '_');
  let best: string | undefined;
  let bestDistance = Infinity;
  for (const candidate of known) {
    // A right name in the wrong section is as near as one slip of a finger.
    const distance = Math.min(editDistance(wanted, candidate), editDistance(lastPart(wanted), lastPart(candidate)) + 1);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return bestDistance <= Math.max(2, lastPart(wanted).length / 3) ? best : undefined;
}

/** The sentence for an unknown key, without its place. */
export function unknownKey(path: string): string {
  const inner = /^actor_rollout_ref(?:\.(.+))?$/.exec(path);
  if (inner) return `unknown key ${path}: leave verl’s level actor_rollout_ref out and write actor and rollout`;
  const guess = nearest(path);
  return `unknown key ${path}${guess === undefined ? '' : `: did you mean ${guess}?`}`;
}
