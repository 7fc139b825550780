import { Worker } from 'node:worker_threads';
import type { DiskCallback } from './disk.ts';

// CommonJS in a string: a worker then needs no file of its own, neither in sources nor in a bundle. File descriptors belong to the process, so
// the thread that opened the file need not be the one that flushes it.
const source = `
const { parentPort } = require('node:worker_threads');
const fs = require('node:fs');
parentPort.on('message', ({ fd, offset, bytes }) => {
  let failure = null;
  try {
    let written = 0;
    while (written < bytes.length) written += fs.writeSync(fd, bytes, written, bytes.length - written, offset + written);
    fs.fdatasyncSync(fd);
  } catch (error) {
    failure = { message: String(error && error.message), code: error && error.code };
  }
  parentPort.postMessage(failure);
});
`;

/**
 * One thread that does nothing but write and fdatasync, in the order asked. While a flush is under way it keeps the process alive; idle it does
 * not.
 */
export class FlushWorker {
  readonly #worker: Worker;
  /** In the order sent, which is the order answered. */
  readonly #waiting: DiskCallback[] = [];
  #failure: Error | undefined;

  constructor() {
    this.#worker = new Worker(source, { eval: true });
    this.#worker.on('message', (failure: { message: string; code: string } | null) => this.#answer(failure));
    this.#worker.on('error', (error) => this.#end(error));
    this.#worker.on('exit', (code) => this.#end(new Error(`the thread that flushes the log ended with code ${code}`)));
    this.#worker.unref();
  }

  flush(fd: number, offset: number, bytes: Uint8Array, done: DiskCallback): void {
    if (this.#failure !== undefined) {
      done(this.#failure);
      return;
    }
    if (this.#waiting.length === 0) this.#worker.ref();
    this.#waiting.push(done);
    // A view is sent with all of the memory it is a view of, so only its part is copied, and given away.
    const sent = new Uint8Array(bytes);
    this.#worker.postMessage({ fd, offset, bytes: sent }, [sent.buffer]);
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }

  #answer(failure: { message: string; code: string } | null): void {
    const done = this.#waiting.shift();
    if (this.#waiting.length === 0) this.#worker.unref();
    done?.(failure === null ? undefined : Object.assign(new Error(failure.message), { code: failure.code }));
  }

  #end(error: Error): void {
    this.#failure ??= error;
    for (const done of this.#waiting.splice(0)) done(this.#failure);
  }
}
