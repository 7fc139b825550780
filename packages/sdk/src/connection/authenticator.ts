import { Auth, type AuthenticateRequest, type AuthenticateResponse, type Init } from '@conclave/protocol';
import type { Metadata } from '@conclave/wire';
import { ConclaveError, isConclaveError } from '../errors/conclave-error.ts';
import type { Engine } from './engine.ts';
import type { Procedure } from './procedure.ts';
import type { UnaryCall } from './unary-call.ts';

/** Who the client is, to a server whose users have passwords. */
export interface Credentials {
  readonly username: string;
  /** Without TLS it can be read on its way. */
  readonly password: string;
}

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

/**
 * How often in a row a token that is fresh may be refused. Every change of a user or a role makes those of JWT kind stale, so that a few in a
 * row may only be bad luck.
 */
export const refusalsMax = 5;

/** The error of whoever cannot wait any longer. */
export function notIdentified(): ConclaveError {
  return new ConclaveError({ code: 'deadline-exceeded', message: 'the client was not authenticated in time', outcome: 'not-applied' });
}

const requireLeader: Metadata = { hasleader: 'true' };

/** What streams carry when the client has no credentials. */
export const anonymous: Token = { call: {}, stream: requireLeader };

type Authenticate = UnaryCall<Init<AuthenticateRequest>, AuthenticateResponse, undefined, string>;

/**
 * The token of a client, obtained when the first one waits for it, and again when the server takes it no longer. However many wait, one request
 * is under way, for as long as anyone waits: checking a password costs the server a tenth of a second.
 */
export class Authenticator {
  readonly #engine: Engine;
  readonly #credentials: Credentials;
  readonly #onRefusal: () => void;
  readonly #waiters = new Set<TokenWaiter>();
  #token: Token | undefined;
  #refusal: ConclaveError | undefined;
  #attempt: { call?: Authenticate } | undefined;

  /** @param onRefusal told when `refusal` changes */
  constructor(engine: Engine, credentials: Credentials, onRefusal: () => void) {
    this.#engine = engine;
    this.#credentials = credentials;
    this.#onRefusal = onRefusal;
  }

  /** Why the server did not accept the credentials when it was last asked; undefined: it did. */
  get refusal(): ConclaveError | undefined {
    return this.#refusal;
  }

  /** Undefined: there is none, `wait` for one. */
  get token(): Token | undefined {
    return this.#token;
  }

  /** The server did not take `token`. Nothing happens if there is another by now. */
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
    const attempt: { call?: Authenticate } = {};
    this.#attempt = attempt;
    const settle = (token: Token | undefined, refusal: ConclaveError | undefined, tell: (waiter: TokenWaiter) => void): void => {
      if (this.#attempt !== attempt) return;
      this.#attempt = undefined;
      this.#token = token;
      if (this.#refusal !== refusal) {
        this.#refusal = refusal;
        this.#onRefusal();
      }
      const waiting = [...this.#waiters];
      this.#waiters.clear();
      for (const waiter of waiting) tell(waiter);
    };
    const { username: name, password } = this.#credentials;
    attempt.call = this.#engine.start(
      authenticateProcedure,
      { name, password },
      undefined,
      // Those who wait have deadlines of their own.
      { deadlineMs: Number.POSITIVE_INFINITY },
      (token) => settle({ call: { token }, stream: { ...requireLeader, token } }, undefined, (waiter) => waiter.onToken()),
      (error) => {
        // A server that asks nobody who they are. Should that change, it refuses calls that do not say so.
        if (isConclaveError(error, 'authentication-not-enabled')) settle({ ...anonymous }, undefined, (waiter) => waiter.onToken());
        else settle(undefined, error, (waiter) => waiter.onRefused(error));
      },
    );
  }
}

const { authenticate } = Auth.methods;

const authenticateProcedure: Procedure<Init<AuthenticateRequest>, AuthenticateResponse, undefined, string> = {
  path: authenticate.path,
  input: authenticate.input,
  output: authenticate.output,
  // A token more, which nobody uses.
  isRepeatable: true,
  isAnonymous: true,
  result: ({ token }) => token,
};
