import { wireErrors } from '@conclave/protocol';
import { type CallContext, type Runtime, StatusError } from '@conclave/wire';
import type { Slicer } from '../mvcc/slicer.ts';

const sliceMs = 2;

/** Lets a long read go on in slices, one a turn, for as long as its caller waits for it. */
export class CallSlicer implements Slicer {
  readonly #runtime: Runtime;
  readonly #call: Pick<CallContext, 'isCancelled'>;
  #end: number;

  constructor(runtime: Runtime, call: Pick<CallContext, 'isCancelled'>) {
    this.#runtime = runtime;
    this.#call = call;
    this.#end = runtime.monotonic() + sliceMs;
  }

  isSpent(): boolean {
    return this.#runtime.monotonic() >= this.#end;
  }

  nextSlice(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#runtime.endOfTurn(() => {
        this.#end = this.#runtime.monotonic() + sliceMs;
        if (!this.#call.isCancelled) return resolve();
        const { code, message } = wireErrors['request-canceled'];
        reject(new StatusError(code, message));
      });
    });
  }
}
