import { type Init, type Permission as WirePermission, Permission_Type as WireType } from '@conclave/protocol';
import { type KeyRange, type Target, type WireRange, wholeStore } from '../kv/key-range.ts';
import { noBytes } from '../kv/text.ts';

/** What may be done with the keys of a {@link Permission}. */
export type PermissionType = 'read' | 'write' | 'readwrite';

/** A right of a role. Its keys are those of the whole store: namespaces have no part in it. */
export interface Permission {
  readonly type: PermissionType;
  /** One key or a range of them. As a role has it: bytes, or a range. */
  readonly target: Target;
}

const wireTypes = { read: WireType.READ, write: WireType.WRITE, readwrite: WireType.READWRITE } as const;

export function toWireRange(target: Target): WireRange {
  return wholeStore.range(target);
}

export function toWirePermission({ type, target }: Permission): Init<WirePermission> {
  return { permType: wireTypes[type], ...toWireRange(target) };
}

export function toPermission({ permType, key, rangeEnd }: WirePermission): Permission {
  const type = permType === WireType.READWRITE ? 'readwrite' : permType === WireType.WRITE ? 'write' : 'read';
  return { type, target: rangeEnd.length === 0 ? key : toRange(key, rangeEnd) };
}

/** A lone zero byte is the lowest key as a start, and as an end it means that there is none. */
function toRange(key: Uint8Array, rangeEnd: Uint8Array): KeyRange {
  return { kind: 'range', start: isZero(key) ? noBytes : key, end: isZero(rangeEnd) ? undefined : rangeEnd };
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.length === 1 && bytes[0] === 0;
}
