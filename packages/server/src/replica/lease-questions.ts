import type { LeaderQuestion } from './leader-questions.ts';
import type { LeaseKeeper, LeaseRemaining } from './lease-keeper.ts';
import type { PeerCalls } from './peer-calls.ts';

/** Starts the TTL of a lease anew: asked twice, it starts anew twice. */
export function renewal(keeper: LeaseKeeper, id: bigint): LeaderQuestion<number> {
  return { method: 'leaseRenew', body: idBytes(id), answer: () => keeper.renew(id), decode: (body) => view(body).getFloat64(0) };
}

export function remaining(keeper: LeaseKeeper, id: bigint): LeaderQuestion<LeaseRemaining | undefined> {
  return { method: 'leaseTimeToLive', body: idBytes(id), answer: () => keeper.remaining(id), decode: decodeRemaining };
}

/** Answers both where this member leads. The keeper refuses where it does not. */
export function answerLeaseQuestions(calls: PeerCalls, keeper: LeaseKeeper): void {
  calls.handle('leaseRenew', async (body) => numberBytes(await keeper.renew(idOf(body))));
  calls.handle('leaseTimeToLive', async (body) => {
    const lease = await keeper.remaining(idOf(body));
    return lease === undefined ? numberBytes() : numberBytes(lease.remainingSeconds, lease.grantedSeconds);
  });
}

function decodeRemaining(body: Uint8Array): LeaseRemaining | undefined {
  if (body.length === 0) return undefined;
  return { remainingSeconds: view(body).getFloat64(0), grantedSeconds: view(body).getFloat64(8) };
}

function idBytes(id: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  view(bytes).setBigInt64(0, id);
  return bytes;
}

function idOf(body: Uint8Array): bigint {
  return view(body).getBigInt64(0);
}

/** A TTL may be more than 32 bits hold. */
function numberBytes(...numbers: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(8 * numbers.length);
  for (const [at, number] of numbers.entries()) view(bytes).setFloat64(8 * at, number);
  return bytes;
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
