// A file that only grows, record by record. A record that does not fit on the disk is taken back as a whole, so that
// the file never ends in half a record.
import { closeSync, fstatSync, fsyncSync, ftruncateSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { ioError } from '../io-error.js';

export class AppendFile {
  readonly path: string;
  #fd: number;
  #bytes: number;

  /** Opens for appending; makes the file and its folder. @throws ARCHER_E_IO */
  constructor(path: string) {
    this.path = path;
    try {
      mkdirSync(dirname(path), { recursive: true });
      this.#fd = openSync(path, 'a');
      this.#bytes = fstatSync(this.#fd).size;
    } catch (error) {
      throw ioError('open', path, error);
    }
  }

  /** The file's length in bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  /** @throws ARCHER_E_IO; the file is then as it was before */
  append(data: Uint8Array): void {
    try {
      for (let done = 0; done < data.length; ) done += writeSync(this.#fd, data, done, data.length - done);
    } catch (error) {
      try {
        ftruncateSync(this.#fd, this.#bytes);
      } catch {
        // The first failure is the one to report.
      }
      throw ioError('write', this.path, error);
    }
    this.#bytes += data.length;
  }

  /** Forces it to the disk. @throws ARCHER_E_IO */
  flush(): void {
    try {
      fsyncSync(this.#fd);
    } catch (error) {
      throw ioError('flush', this.path, error);
    }
  }

  /** Flushes and closes; a second call does nothing. */
  close(): void {
    if (this.#fd < 0) return;
    try {
      this.flush();
    } finally {
      closeSync(this.#fd);
      this.#fd = -1;
    }
  }
}
