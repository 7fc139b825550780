import { Auth, type AuthenticateRequest, type AuthenticateResponse, type Init } from '@conclave/protocol';
import { ConclaveError, isConclaveError } from '../errors/conclave-error.ts';
import type { Procedure } from './procedure.ts';
import { anonymous, type Token, type TokenSource, type TokenWaiter, tokenOf } from './token.ts';

/** Who the client is: by name and password, or by a token from elsewhere. */
export type Credentials = PasswordCredentials | TokenCredentials;

/** A user of the server's own. */
export interface PasswordCredentials {
  readonly username: string;
  /** Without TLS it can be read on its way. */
  readonly password: string;
}

/** A token that the server takes without having given it out, such as a JWT signed with its key. */
export interface TokenCredentials {
  /**
   * The token, or what gives one: asked when the first call needs it, and again when the server takes the last one no longer. What it throws or
   * rejects with ends the calls that wait with `authentication-failed`, and is their error's `cause`. A token that is a text has no successor.
   */
  readonly token: string | (() => string | Promise<string>);
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

/** Asks the caller for tokens. */
export function callersTokens({ token }: TokenCredentials): Login {
  let isGiven = false;
  return (resolve, reject) => {
    let isCancelled = false;
    const refuse = (message: string, cause?: unknown): void => {
      if (!isCancelled) reject(new ConclaveError({ code: 'authentication-failed', message, outcome: 'not-applied', cause }));
    };
    const take = (given: unknown): void => {
      if (isCancelled) return;
      if (typeof given !== 'string' || given === '') refuse('credentials.token gave no token');
      else if (isGiven && typeof token === 'string') refuse('the server does not take credentials.token');
      else {
        isGiven = true;
        resolve(given);
      }
    };
    new Promise((settle) => settle(typeof token === 'string' ? token : token())).then(take, (error: unknown) =>
      refuse(`credentials.token: ${error instanceof Error ? error.message : String(error)}`, error),
    );
    return {
      cancel: () => {
        isCancelled = true;
      },
    };
  };
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
