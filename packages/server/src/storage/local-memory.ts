import type { LocalMemory, PeerMark } from '../replica/ports.ts';
import type { Backend } from './backend/backend.ts';
import type { Store } from './backend/store.ts';

/**
 * Counts one more start of this member, durably. To be called before anything is said to anybody: by this number its peers recognise a
 * member that came back with an older disk.
 *
 * @returns the number of this start, from 1.
 */
export async function countStart(backend: Backend): Promise<number> {
  const stored = backend.get('local', incarnationRow);
  const incarnation = (stored === undefined ? 0 : readNumber(stored, 0)) + 1;
  const value = new Uint8Array(8);
  writeNumber(value, 0, incarnation);
  await backend.commit({ rows: [{ table: 'local', key: incarnationRow, value }] });
  return incarnation;
}

/**
 * Table `local`: `incarnation` → how many starts (8 bytes big endian); `peer` and the id of one (8 bytes) → its incarnation and index (8 bytes each).
 */
export class StoredLocalMemory implements LocalMemory {
  readonly incarnation: number;
  readonly #store: Store;

  constructor(store: Store, incarnation: number) {
    this.#store = store;
    this.incarnation = incarnation;
  }

  peer(id: bigint): PeerMark | undefined {
    const stored = this.#store.get('local', peerRow(id));
    return stored && { incarnation: readNumber(stored, 0), index: readNumber(stored, 8) };
  }

  notePeer(id: bigint, mark: PeerMark): void {
    const value = new Uint8Array(16);
    writeNumber(value, 0, mark.incarnation);
    writeNumber(value, 8, mark.index);
    this.#store.put('local', peerRow(id), value);
  }
}

const incarnationRow = new TextEncoder().encode('incarnation');
const peerPrefix = new TextEncoder().encode('peer');

function peerRow(id: bigint): Uint8Array {
  const key = new Uint8Array(peerPrefix.length + 8);
  key.set(peerPrefix);
  new DataView(key.buffer).setBigUint64(peerPrefix.length, id);
  return key;
}

function readNumber(bytes: Uint8Array, at: number): number {
  const value = Number(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getBigUint64(at));
  if (!Number.isSafeInteger(value)) throw new Error(`table local: ${value} is beyond 2^53-1`);
  return value;
}

function writeNumber(bytes: Uint8Array, at: number, value: number): void {
  new DataView(bytes.buffer).setBigUint64(at, BigInt(value));
}
