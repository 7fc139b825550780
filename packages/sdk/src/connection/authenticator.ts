import { Auth, type AuthenticateRequest, type AuthenticateResponse, type Init } from '@conclave/protocol';
import { type ConclaveError, isConclaveError } from '../errors/conclave-error.ts';
import type { Procedure } from './procedure.ts';
import { anonymous, type Token, type TokenSource, type TokenWaiter, tokenOf } from './token.ts';

/** Who the client is, to a server whose users have passwords. */
export interface Credentials {
  readonly username: string;
  /** Without TLS it can be read on its way. */
  readonly password: string;
}

/** Asks the server for a token. One of the two is called, once, later or now. */
export type Login = (resolve: (token: string) => void, reject: (error: ConclaveError) => void) => { cancel(): void };

/**
 * The token of a client, obtained when the first one waits for it, and again when the server takes it no longer. However many wait, one request
 * is under way, for as long as anyone waits: checking a password costs the server a tenth of a second.
 */
export class Authenticator implements TokenSource {
  readonly #login: Login;
  readonly #onRefusal: () => void;
  readonly #waiters = new Set<TokenWaiter>();
  #token: Token | undefined;
  #refusal: ConclaveError | undefined;
  #attempt: { call?: { cancel(): void } } | undefined;

  /** @param onRefusal told when `refusal` changes */
  constructor(login: Login, onRefusal: () => void) {
    this.#login = login;
    this.#onRefusal = onRefusal;
  }

  /** Why the server did not accept the credentials when it was last asked; undefined: it did. */
  get refusal(): ConclaveError | undefined {
    return this.#refusal;
  }

  get token(): Token | undefined {
    return this.#token;
  }

  refuse(token: Token): void {
    if (this.#token === token) this.#token = undefined;
  }

  wait(waiter: TokenWaiter): void {
    this.#waiters.add(waiter);
    if (this.#attempt === undefined) this.#ask();
  }

  forget(waiter: TokenWaiter): void {
    this.#waiters.delete(waiter);
    if (this.#waiters.size > 0 || this.#attempt === undefined) return;
    const { call } = this.#attempt;
    this.#attempt = undefined;
    call?.cancel();
  }

  #ask(): void {
    const attempt: { call?: { cancel(): void } } = {};
    this.#attempt = attempt;
    attempt.call = this.#login(
      (token) => this.#settle(attempt, tokenOf(token), undefined),
      (error) => {
        // A server that asks nobody who they are. Should that change, it refuses calls that do not say so.
        if (isConclaveError(error, 'authentication-not-enabled')) this.#settle(attempt, { ...anonymous }, undefined);
        else this.#settle(attempt, undefined, error);
      },
    );
  }

  #settle(attempt: object, token: Token | undefined, refusal: ConclaveError | undefined): void {
    if (this.#attempt !== attempt) return;
    this.#attempt = undefined;
    this.#token = token;
    const waiting = [...this.#waiters];
    this.#waiters.clear();
    if (this.#refusal !== refusal) {
      this.#refusal = refusal;
      this.#onRefusal();
    }
    for (const waiter of waiting) {
      if (refusal === undefined) waiter.onToken();
      else waiter.onRefused(refusal);
    }
  }
}

const { authenticate } = Auth.methods;

export const authenticateProcedure: Procedure<Init<AuthenticateRequest>, AuthenticateResponse, undefined, string> = {
  path: authenticate.path,
  input: authenticate.input,
  output: authenticate.output,
  // A token more, which nobody uses.
  isRepeatable: true,
  isAnonymous: true,
  result: ({ token }) => token,
};
