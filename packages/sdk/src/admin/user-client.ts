import { Auth } from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import { change, nothing, read, request } from './call.ts';

/** How a new user proves who it is: by a password, or only by a client certificate with its name. */
export type Credential = { readonly password: string } | { readonly noPassword: true };

export interface User {
  readonly name: string;
  /** The names of its roles. */
  readonly roles: readonly string[];
}

/** The users of the cluster, as `client.users`. */
export class UserClient {
  readonly #engine: Engine;

  /** @internal */
  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /**
   * Adds a user, without roles.
   *
   * @throws ConclaveError `user-exists`, `user-empty`, `permission-denied`, …
   * @example
   * ```ts
   * await client.users.add('ann', { password: 'secret' });
   * await client.users.add('billing', { noPassword: true });
   * ```
   */
  add(name: string, credential: Credential, options?: RequestOptions): Promise<void> {
    const known = 'password' in credential ? { password: credential.password } : { options: { noPassword: true } };
    return request(this.#engine, addProcedure, { name, ...known }, options);
  }

  /**
   * Deletes a user.
   *
   * @throws ConclaveError `user-not-found`, `invalid-auth-management` for `root` while it is needed, …
   * @example
   * ```ts
   * await client.users.delete('ann');
   * ```
   */
  delete(name: string, options?: RequestOptions): Promise<void> {
    return request(this.#engine, deleteProcedure, { name }, options);
  }

  /**
   * A user with its roles.
   *
   * @throws ConclaveError `user-not-found`, `permission-denied`, …
   * @example
   * ```ts
   * const { roles } = await client.users.get('ann');
   * ```
   */
  async get(name: string, options?: RequestOptions): Promise<User> {
    return { name, roles: await request(this.#engine, getProcedure, { name }, options) };
  }

  /**
   * The names of all users.
   *
   * @throws ConclaveError `permission-denied`, `unavailable`, …
   * @example
   * ```ts
   * const names = await client.users.list();
   * ```
   */
  list(options?: RequestOptions): Promise<readonly string[]> {
    return request(this.#engine, listProcedure, {}, options);
  }

  /**
   * Gives a user another password. Tokens that it was given before are not valid any more.
   *
   * @throws ConclaveError `user-not-found`, `permission-denied`, …
   * @example
   * ```ts
   * await client.users.changePassword('ann', 'better secret');
   * ```
   */
  changePassword(name: string, password: string, options?: RequestOptions): Promise<void> {
    return request(this.#engine, changePasswordProcedure, { name, password }, options);
  }

  /**
   * Gives a user a role. That it has it is no error.
   *
   * @throws ConclaveError `user-not-found`, `role-not-found`, …
   * @example
   * ```ts
   * await client.users.grantRole('ann', 'reader');
   * ```
   */
  grantRole(name: string, role: string, options?: RequestOptions): Promise<void> {
    return request(this.#engine, grantRoleProcedure, { user: name, role }, options);
  }

  /**
   * Takes a role from a user.
   *
   * @throws ConclaveError `user-not-found`, `role-not-granted`, `invalid-auth-management`, …
   * @example
   * ```ts
   * await client.users.revokeRole('ann', 'reader');
   * ```
   */
  revokeRole(name: string, role: string, options?: RequestOptions): Promise<void> {
    return request(this.#engine, revokeRoleProcedure, { name, role }, options);
  }
}

const { userAdd, userDelete, userGet, userList, userChangePassword, userGrantRole, userRevokeRole } = Auth.methods;

const addProcedure = change(userAdd, nothing);
const deleteProcedure = change(userDelete, nothing);
const getProcedure = read(userGet, ({ roles }): readonly string[] => roles);
const listProcedure = read(userList, ({ users }): readonly string[] => users);
const changePasswordProcedure = change(userChangePassword, nothing);
const grantRoleProcedure = change(userGrantRole, nothing);
const revokeRoleProcedure = change(userRevokeRole, nothing);
