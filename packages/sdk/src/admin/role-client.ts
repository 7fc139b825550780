import { Auth } from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import type { Target } from '../kv/key-range.ts';
import { change, nothing, read, request } from './call.ts';
import { type Permission, toPermission, toWirePermission, toWireRange } from './permission.ts';

export interface Role {
  readonly name: string;
  readonly permissions: readonly Permission[];
}

/** The roles of the cluster, and what they may do, as `client.roles`. */
export class RoleClient {
  readonly #engine: Engine;

  /** @internal */
  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /**
   * Adds a role that may do nothing yet. Only `root` may do everything from the start.
   *
   * @throws ConclaveError `role-exists`, `role-empty`, `permission-denied`, …
   * @example
   * ```ts
   * await client.roles.add('reader');
   * ```
   */
  add(name: string, options?: RequestOptions): Promise<void> {
    return request(this.#engine, addProcedure, { name }, options);
  }

  /**
   * Deletes a role; whoever has it loses it.
   *
   * @throws ConclaveError `role-not-found`, `invalid-auth-management` for `root` while it is needed, …
   * @example
   * ```ts
   * await client.roles.delete('reader');
   * ```
   */
  delete(name: string, options?: RequestOptions): Promise<void> {
    return request(this.#engine, deleteProcedure, { role: name }, options);
  }

  /**
   * A role with what it may do.
   *
   * @throws ConclaveError `role-not-found`, `permission-denied`, …
   * @example
   * ```ts
   * const { permissions } = await client.roles.get('reader');
   * ```
   */
  async get(name: string, options?: RequestOptions): Promise<Role> {
    return { name, permissions: await request(this.#engine, getProcedure, { role: name }, options) };
  }

  /**
   * The names of all roles.
   *
   * @throws ConclaveError `permission-denied`, `unavailable`, …
   * @example
   * ```ts
   * const names = await client.roles.list();
   * ```
   */
  list(options?: RequestOptions): Promise<readonly string[]> {
    return request(this.#engine, listProcedure, {}, options);
  }

  /**
   * Lets a role read, write, or both, a key or a range of them. For exactly these keys it takes the place of what the role might before.
   *
   * @throws ConclaveError `role-not-found`, `permission-not-given`, …
   * @example
   * ```ts
   * await client.roles.grantPermission('reader', { type: 'read', target: prefix('config/') });
   * ```
   */
  async grantPermission(name: string, permission: Permission, options?: RequestOptions): Promise<void> {
    await request(this.#engine, grantProcedure, { name, perm: toWirePermission(permission) }, options);
  }

  /**
   * Takes from a role what it was granted over exactly these keys.
   *
   * @throws ConclaveError `role-not-found`, `permission-not-granted`, …
   * @example
   * ```ts
   * await client.roles.revokePermission('reader', prefix('config/'));
   * ```
   */
  async revokePermission(name: string, target: Target, options?: RequestOptions): Promise<void> {
    await request(this.#engine, revokeProcedure, { role: name, ...toWireRange(target) }, options);
  }
}

const { roleAdd, roleDelete, roleGet, roleList, roleGrantPermission, roleRevokePermission } = Auth.methods;

const addProcedure = change(roleAdd, nothing);
const deleteProcedure = change(roleDelete, nothing);
const getProcedure = read(roleGet, ({ perm }): readonly Permission[] => perm.map(toPermission));
const listProcedure = read(roleList, ({ roles }): readonly string[] => roles);
const grantProcedure = change(roleGrantPermission, nothing);
const revokeProcedure = change(roleRevokePermission, nothing);
