import { AlarmMember, type AlarmRequest, AlarmRequest_AlarmAction, AlarmType } from '@conclave/protocol';
import type { Store } from '../storage/backend/store.ts';

/**
 * The alarms that members have raised: a replicated table, in `meta`. While one stands, what makes its cause worse is refused, by every member and
 * from the same entry on.
 */
export class AlarmTable {
  readonly #store: Store;
  #alarms: readonly AlarmMember[] = [];
  #types: ReadonlySet<number> = new Set();

  constructor(store: Store) {
    this.#store = store;
    this.reload();
  }

  /** Those of a type, or all (NONE); by type, then by member. */
  list(type: number = AlarmType.NONE): AlarmMember[] {
    return this.#alarms.filter(({ alarm }) => type === AlarmType.NONE || alarm === type).map((alarm) => ({ ...alarm }));
  }

  /** Whether any member has raised an alarm of this type. */
  has(type: number): boolean {
    return this.#types.has(type);
  }

  /** The store was replaced beneath. */
  reload(): void {
    this.#read();
  }

  /** Applies a request and gives the alarms it was about, as etcd answers it: one that stands already is given again, one that does not is not. */
  apply({ action, memberId, alarm }: AlarmRequest): AlarmMember[] {
    if (action === AlarmRequest_AlarmAction.GET) return this.list(alarm);
    const key = rowKey(memberId, alarm);
    const stands = this.#alarms.some((other) => other.alarm === alarm && other.memberId === memberId);
    if (action === AlarmRequest_AlarmAction.ACTIVATE && raisable.has(alarm)) {
      if (!stands) this.#store.put('meta', key, AlarmMember.encode({ memberId, alarm }));
    } else if (action === AlarmRequest_AlarmAction.DEACTIVATE && stands) {
      this.#store.delete('meta', key);
    } else {
      return [];
    }
    this.#read();
    return [{ memberId, alarm }];
  }

  #read(): void {
    this.#alarms = Array.from(this.#store.scan('meta', prefix, prefixEnd), ({ value }) => AlarmMember.decode(new Uint8Array(value)));
    this.#types = new Set(this.#alarms.map(({ alarm }) => alarm));
  }
}

const raisable: ReadonlySet<number> = new Set([AlarmType.NOSPACE, AlarmType.CORRUPT]);

const prefix = new TextEncoder().encode('alarm/');
const prefixEnd = new TextEncoder().encode('alarm0');

function rowKey(memberId: bigint, alarm: number): Uint8Array {
  const key = new Uint8Array(prefix.length + 9);
  key.set(prefix);
  const view = new DataView(key.buffer);
  view.setUint8(prefix.length, alarm);
  view.setBigUint64(prefix.length + 1, memberId);
  return key;
}
