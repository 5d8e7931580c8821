// Files that stay open as long as something reads them: what is renamed over or removed meanwhile can still be read.

import { closeSync } from 'node:fs';

const unreachable = new FinalizationRegistry<number>(closeSync);

/** Closes the file when its reader is garbage. */
export function closeWith(reader: object, fd: number): void {
  unreachable.register(reader, fd);
}
