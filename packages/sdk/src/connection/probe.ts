import { type Init, KV, type RangeRequest } from '@conclave/protocol';
import type { Metadata, Runtime } from '@conclave/wire';
import { isMemberAtFault } from '../errors/from-call-end.ts';
import type { Slot } from './slot.ts';

const timeoutMs = 1_000;
const { path, input } = KV.methods.range;
/** Linearizable: a member without a leader cannot answer it, nor say that it may not be asked. */
const question: Init<RangeRequest> = { key: new Uint8Array(1), limit: 1, keysOnly: true };

/** Asks a member something that it can answer only together with the others. */
export function probe(slot: Slot, runtime: Runtime, metadata: Metadata, done: (isWell: boolean) => void): void {
  slot.begin(true);
  slot.connection.unary(path, input.encode(question), { deadline: runtime.monotonic() + timeoutMs, metadata }, (end) => {
    slot.end(true, end.code === 0);
    done(end.code === 0 || !isMemberAtFault(end));
  });
}
