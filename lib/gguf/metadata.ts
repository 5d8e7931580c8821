// Typed access to the metadata of a GGUF file; what is missing or of another type is refused by its key.
import { ArcherError } from '../errors.js';
import type { GgufFile, MetadataValue } from './reader.js';

export class Metadata {
  constructor(readonly file: GgufFile) {}

  get(key: string): MetadataValue | undefined {
    return this.file.metadata.get(key);
  }

  /** @param fallback without one the key must be there */
  number(key: string, fallback?: number): number {
    const value = this.get(key) ?? fallback;
    return typeof value === 'number' ? value : this.refuse(key, value, 'a number');
  }

  /** A float32 as the decimal that it was written from: 9.9999997e-06 is 1e-05. */
  decimal(key: string, fallback?: number): number {
    const value = this.number(key, fallback);
    for (let digits = 1; digits <= 9; digits += 1) {
      const shorter = Number(value.toPrecision(digits));
      if (Math.fround(shorter) === Math.fround(value)) return shorter;
    }
    return value;
  }

  /** undefined where the key is missing */
  optional(key: string): number | undefined {
    return this.get(key) === undefined ? undefined : this.number(key);
  }

  boolean(key: string, fallback: boolean): boolean {
    const value = this.get(key) ?? fallback;
    return typeof value === 'boolean' ? value : this.refuse(key, value, 'true or false');
  }

  string(key: string): string {
    const value = this.get(key);
    return typeof value === 'string' ? value : this.refuse(key, value, 'a string');
  }

  strings(key: string): string[] {
    const value = this.get(key);
    const isStrings = Array.isArray(value) && value.every((one) => typeof one === 'string');
    return isStrings ? value : this.refuse(key, value, 'a list of strings');
  }

  numbers(key: string): number[] {
    const value = this.get(key);
    const isNumbers = Array.isArray(value) && value.every((one) => typeof one === 'number');
    return isNumbers ? value : this.refuse(key, value, 'a list of numbers');
  }

  refuse(key: string, value: unknown, supported: string): never {
    const text = JSON.stringify(value) ?? 'missing';
    const shown = text.length > 80 ? `${text.slice(0, 80)}…` : text;
    throw new ArcherError('ARCHER_E_MODEL', `${this.file.path}: ${key} is ${shown}; supported: ${supported}.`);
  }
}
