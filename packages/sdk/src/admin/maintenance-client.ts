import {
  AlarmRequest_AlarmAction as AlarmAction,
  DowngradeRequest_DowngradeAction as DowngradeAction,
  Maintenance,
  AlarmType as WireAlarmType,
} from '@conclave/protocol';
import { parseEndpoints } from '../connection/endpoint.ts';
import type { Engine } from '../connection/engine.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import { invalidArgument } from '../errors/conclave-error.ts';
import type { Integer } from '../kv/text.ts';
import { change, nothing, read, request } from './call.ts';
import { toMemberId } from './member.ts';
import { MemberMaintenance } from './member-maintenance.ts';

/** `nospace`: the space quota is used up. `corrupt`: the members disagree about stored data. `unknown`: something this package is too old for. */
export type AlarmType = 'nospace' | 'corrupt' | 'unknown';

/** An alarm that a member raised. While there is one, the cluster refuses writes. */
export interface Alarm {
  readonly memberId: bigint;
  readonly type: AlarmType;
}

/**
 * The upkeep of a cluster, as `client.maintenance`. What concerns one member and not the cluster is asked of that member:
 * {@link MaintenanceClient.at}.
 */
export class MaintenanceClient {
  readonly #engine: Engine;

  /** @internal */
  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /**
   * The upkeep of one member: status, defragmentation, hashes, snapshot.
   *
   * @param address - of the member's client door, as in `endpoints` of {@link connect}; it need not be among those. It is connected to at the
   * first call, and the connection is kept until the client closes.
   * @throws ConclaveError `invalid-argument`
   * @example
   * ```ts
   * for (const { clientUrls } of await client.cluster.members()) {
   *   const { version, dbSizeBytes, isLeader } = await client.maintenance.at(clientUrls[0]!).status();
   *   console.log(clientUrls[0], version, dbSizeBytes, isLeader);
   * }
   * ```
   */
  at(address: string): MemberMaintenance {
    const { addresses, isSecure = this.#engine.isSecure } = parseEndpoints(address);
    const [only, ...others] = addresses;
    if (only === undefined || others.length > 0) throw invalidArgument(`${address}: one address is needed`);
    if (isSecure !== this.#engine.isSecure) {
      throw invalidArgument(
        isSecure ? `${address} speaks TLS, and this client does not` : `${address} does not speak TLS, as this client does`,
      );
    }
    return new MemberMaintenance(() => this.#engine.at(only));
  }

  /**
   * The alarms of the cluster.
   *
   * @throws ConclaveError `unavailable`, `deadline-exceeded`, …
   * @example
   * ```ts
   * const alarms = await client.maintenance.alarms(); // [] is good news
   * ```
   */
  alarms(options?: RequestOptions): Promise<readonly Alarm[]> {
    return request(this.#engine, alarmsProcedure, { action: AlarmAction.GET }, options);
  }

  /**
   * Ends all alarms, or the one given; that there is none is no error. What raised it should be seen to first: it may be raised again.
   *
   * @returns those that were ended
   * @throws ConclaveError `unavailable`, `deadline-exceeded`, …
   * @example
   * ```ts
   * await client.maintenance.disarm();
   * ```
   */
  async disarm(alarm?: Alarm, options?: RequestOptions): Promise<readonly Alarm[]> {
    const ended: Alarm[] = [];
    // The server has no word for all of them.
    for (const { memberId, type } of alarm === undefined ? await this.alarms(options) : [alarm]) {
      if (type === 'unknown') throw invalidArgument('an alarm of an unknown type cannot be named to the server');
      const message = { action: AlarmAction.DEACTIVATE, memberId, alarm: wireTypes[type] };
      ended.push(...(await request(this.#engine, disarmProcedure, message, options)));
    }
    return ended;
  }

  /**
   * Hands leadership to the member with this id. Only the leader can: the endpoints are asked in turn until one of them is it.
   *
   * @throws ConclaveError `not-leader` when the leader is not among the endpoints, once the time is up; `bad-leader-transferee`,
   * `leader-transfer-timeout`, …
   * @example
   * ```ts
   * const [, other] = await client.cluster.members();
   * if (other !== undefined) await client.maintenance.moveLeader(other.id);
   * ```
   */
  async moveLeader(id: Integer, options?: RequestOptions): Promise<void> {
    await request(this.#engine, moveLeaderProcedure, { targetId: toMemberId(id) }, options);
  }

  /**
   * Asks whether the cluster could be downgraded to a version, `major.minor`: that is, to the minor version before its own. Changes nothing.
   *
   * @returns the version of the cluster
   * @throws ConclaveError `downgrade-version-invalid`, `downgrade-version-format`, `downgrade-in-progress`; `unimplemented` before etcd 3.5; …
   * @example
   * ```ts
   * console.log(await client.maintenance.validateDowngrade('3.4'));
   * ```
   */
  validateDowngrade(version: string, options?: RequestOptions): Promise<string> {
    return request(this.#engine, validateDowngradeProcedure, { action: DowngradeAction.VALIDATE, version }, options);
  }

  /**
   * Begins a downgrade to a version, `major.minor`. From then on members of that version may take the place of those there are, one by one. Make a
   * snapshot first.
   *
   * etcd 3.5 does it at once and does not answer, so that the call runs out of time with the outcome `unknown`; {@link validateDowngrade} then fails
   * with `downgrade-in-progress`.
   *
   * @returns the version of the cluster
   * @throws ConclaveError as {@link MaintenanceClient.validateDowngrade}
   * @example
   * ```ts
   * await client.maintenance.enableDowngrade('3.4');
   * ```
   */
  enableDowngrade(version: string, options?: RequestOptions): Promise<string> {
    return request(this.#engine, downgradeProcedure, { action: DowngradeAction.ENABLE, version }, options);
  }

  /**
   * Ends a downgrade that has begun: members of the lower version may not join any more. etcd 3.5 does not answer here either.
   *
   * @returns the version of the cluster
   * @throws ConclaveError `downgrade-not-in-progress`; `unimplemented` before etcd 3.5; …
   * @example
   * ```ts
   * await client.maintenance.cancelDowngrade();
   * ```
   */
  cancelDowngrade(options?: RequestOptions): Promise<string> {
    return request(this.#engine, downgradeProcedure, { action: DowngradeAction.CANCEL }, options);
  }
}

const wireTypes = { nospace: WireAlarmType.NOSPACE, corrupt: WireAlarmType.CORRUPT } as const;

const types: Readonly<Record<number, AlarmType>> = { [WireAlarmType.NOSPACE]: 'nospace', [WireAlarmType.CORRUPT]: 'corrupt' };

function toAlarms({ alarms }: { readonly alarms: readonly { readonly memberId: bigint; readonly alarm: number }[] }): readonly Alarm[] {
  return alarms.map(({ memberId, alarm }) => ({ memberId, type: types[alarm] ?? 'unknown' }));
}

const { alarm, moveLeader, downgrade } = Maintenance.methods;

const alarmsProcedure = read(alarm, toAlarms);
const disarmProcedure = change(alarm, toAlarms);
const moveLeaderProcedure = change(moveLeader, nothing);
const validateDowngradeProcedure = read(downgrade, ({ version }) => version);
const downgradeProcedure = change(downgrade, ({ version }) => version);
