import type { Metadata } from '@conclave/wire';
import { ConclaveError } from '../errors/conclave-error.ts';

/** What a call carries to say who makes it. Each one that was obtained is an object of its own. */
export interface Token {
  readonly call: Metadata;
  /** For streams, which a member that lost its leader shall end instead of letting them fall silent. */
  readonly stream: Metadata;
}

export interface TokenWaiter {
  /** There is a token. */
  onToken(): void;
  /** There is none to be had. */
  onRefused(error: ConclaveError): void;
}

/** Where calls and streams have their tokens from. */
export interface TokenSource {
  /** Undefined: there is none, `wait` for one. */
  readonly token: Token | undefined;
  /** The server did not take `token`. Nothing happens if there is another by now. */
  refuse(token: Token): void;
  wait(waiter: TokenWaiter): void;
  forget(waiter: TokenWaiter): void;
}

/**
 * How often in a row a token that is fresh may be refused. Every change of a user or a role makes those of JWT kind stale, so that a few in a
 * row may only be bad luck.
 */
export const refusalsMax = 5;

const requireLeader: Metadata = { hasleader: 'true' };

/** What streams carry when the client has no credentials. */
export const anonymous: Token = { call: {}, stream: requireLeader };

export function tokenOf(token: string): Token {
  return { call: { token }, stream: { ...requireLeader, token } };
}

/** The error of whoever cannot wait for a token any longer. */
export function notIdentified(): ConclaveError {
  return new ConclaveError({ code: 'deadline-exceeded', message: 'the client was not authenticated in time', outcome: 'not-applied' });
}
