import { Auth } from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import { change, nothing, read, request } from './call.ts';

export interface AuthStatus {
  readonly enabled: boolean;
  /** How often users, roles and grants were changed. */
  readonly authRevision: bigint;
}

/** Whether the cluster asks who calls, as `client.auth`. */
export class AuthClient {
  readonly #engine: Engine;

  /** @internal */
  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /**
   * From now on nobody is served without credentials. There must be a user `root` that has the role `root`.
   *
   * @throws ConclaveError `root-user-missing`, `root-role-missing`, `unimplemented`, …
   * @example
   * ```ts
   * await client.users.add('root', { password: 'secret' });
   * await client.roles.add('root');
   * await client.users.grantRole('root', 'root');
   * await client.auth.enable();
   * ```
   */
  enable(options?: RequestOptions): Promise<void> {
    return request(this.#engine, enableProcedure, {}, options);
  }

  /**
   * From now on everybody is served. Users and roles stay.
   *
   * @throws ConclaveError `permission-denied`, `unimplemented`, …
   * @example
   * ```ts
   * await client.auth.disable();
   * ```
   */
  disable(options?: RequestOptions): Promise<void> {
    return request(this.#engine, disableProcedure, {}, options);
  }

  /**
   * Whether it does.
   *
   * @throws ConclaveError `unimplemented` before 3.5, `unavailable`, …
   * @example
   * ```ts
   * const { enabled } = await client.auth.status();
   * ```
   */
  status(options?: RequestOptions): Promise<AuthStatus> {
    return request(this.#engine, statusProcedure, {}, options);
  }
}

const { authEnable, authDisable, authStatus } = Auth.methods;

const enableProcedure = change(authEnable, nothing);
const disableProcedure = change(authDisable, nothing);
const statusProcedure = read(authStatus, ({ enabled, authRevision }): AuthStatus => ({ enabled, authRevision: BigInt(authRevision) }));
