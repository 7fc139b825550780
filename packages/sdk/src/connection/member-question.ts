import type { Metadata } from '@conclave/wire';
import type { ConclaveError } from '../errors/conclave-error.ts';
import { fromCallEnd } from '../errors/from-call-end.ts';
import { heldBack } from './call-errors.ts';
import type { Engine } from './engine.ts';
import { Passage } from './passage.ts';
import type { Slot } from './slot.ts';

/** What one member is asked, by itself and once. */
export interface MemberQuestion {
  readonly path: string;
  readonly request: Uint8Array;
  readonly metadata: Metadata;
  readonly timeoutMs: number;
}

/** Asks the member at the other end of `slot`. `done` is given nothing if it does not answer well within the time. */
export function askMember(engine: Engine, slot: Slot, question: MemberQuestion, done: (response: Uint8Array | undefined) => void): void {
  const { path, request, metadata: own, timeoutMs } = question;
  const { runtime, meter, middleware } = engine;
  const deadline = runtime.monotonic() + timeoutMs;
  const startedAt = meter?.callStarted();
  const passage = middleware && new Passage(middleware, runtime, { kind: 'unary', path, isRepeatable: true, deadline, request: undefined });
  let hasPassed = false;
  let isSettled = false;
  const settle = (error: ConclaveError | undefined, response?: Uint8Array): void => {
    if (isSettled) return;
    isSettled = true;
    if (startedAt !== undefined) meter?.callEnded(path, error?.code ?? 'ok', startedAt);
    passage?.end(error);
    done(response);
  };
  const send = (): void => {
    hasPassed = true;
    if (isSettled) return;
    slot.begin(true);
    passage?.attempt(slot.address);
    const metadata = passage?.metadata(own) ?? own;
    slot.connection.unary(path, request, { deadline, metadata }, (end, response) => {
      slot.end(true, end.code === 0);
      settle(end.code === 0 ? undefined : fromCallEnd(end, false), response);
    });
  };
  if (passage === undefined) {
    send();
    return;
  }
  passage.enter({ onPassed: send, onRefused: settle });
  if (!hasPassed && !isSettled) runtime.timer(timeoutMs, () => hasPassed || settle(heldBack()), { background: true });
}
