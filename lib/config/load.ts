// The entry: a YAML file, its text or an object, then `--set` flags, to a resolved configuration.

import { readFileSync } from 'node:fs';
import { ArcherError, messageOf } from '../errors.js';
import { readFlags, readObject, readYaml, type Reading } from './entries.js';
import { resolve, type LoadedConfig } from './resolve.js';
import type { ConfigInput } from './schema.js';

export interface LoadOptions {
  /** Path of a YAML file; with `text` it only names the text in messages. */
  file?: string;
  text?: string;
  /** The same keys as an object; wins over nothing: give either this or a file. */
  object?: ConfigInput;
  /** `a.b=c`, in the order of the command line. */
  sets?: readonly string[];
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const why = code === 'ENOENT' ? 'there is no such file' : code === 'EISDIR' ? 'it is a folder' : messageOf(error);
    throw new ArcherError('ARCHER_E_CONFIG', `Cannot read the configuration ${file}: ${why}.`, { cause: error });
  }
}

/**
 * Reads, checks and completes a configuration. Without file, text and object it is the defaults.
 * @throws ArcherError ARCHER_E_CONFIG that lists every fault with its key, value, allowed range and place.
 */
export function loadConfig({ file, text, object, sets = [] }: LoadOptions = {}): LoadedConfig {
  const reading: Reading = { entries: [], problems: [] };
  if (file !== undefined || text !== undefined) {
    if (object !== undefined)
      throw new ArcherError('ARCHER_E_CONFIG', 'Give a configuration file or an object, not both.');
    readYaml(text ?? readText(file!), file ?? 'configuration', reading);
  }
  if (object !== undefined) readObject(object, reading);
  readFlags(sets, reading);
  return resolve(reading);
}
