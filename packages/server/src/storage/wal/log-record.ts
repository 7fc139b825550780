import type { Entry, HardState } from '@conclave/raft';
import { type NewRecord, noBody, type RecordHeader } from './record.ts';
import { type BatchHead, decodeBatchHead } from './segment.ts';

/** The last entry a snapshot covers. In the log: everything before is void, the next entry is `index + 1`. */
export interface SnapshotPoint {
  readonly index: number;
  readonly term: number;
}

/** What a record means to raft. */
export type LogRecord =
  | { readonly kind: 'head'; readonly head: BatchHead }
  | { readonly kind: 'entry'; readonly entry: Entry }
  | { readonly kind: 'hardState'; readonly hardState: HardState }
  | { readonly kind: 'snapshot'; readonly snapshot: SnapshotPoint };

export function entryRecord(entry: Entry): NewRecord {
  return { type: entry.type === 'normal' ? 'entry' : 'confChange', index: entry.index, term: entry.term, body: entry.data };
}

/** Term, vote and commit in one record: apart, a crash between two writes could cast two votes in one term. */
export function hardStateRecord(hardState: HardState): NewRecord {
  const body = Buffer.alloc(8);
  body.writeBigUInt64LE(hardState.vote);
  return { type: 'hardState', index: hardState.commit, term: hardState.term, body };
}

export function snapshotRecord(snapshot: SnapshotPoint): NewRecord {
  return { type: 'snapshot', index: snapshot.index, term: snapshot.term, body: noBody };
}

/** The entry's data are a view of `body`. undefined: a record whose checksums hold and which still makes no sense. */
export function parseLogRecord(header: RecordHeader, body: Buffer): LogRecord | undefined {
  const { type, index, term } = header;
  if (!Number.isSafeInteger(index) || !Number.isSafeInteger(term)) return undefined;
  switch (type) {
    case 'entry':
    case 'confChange':
      return {
        kind: 'entry',
        entry: {
          index,
          term,
          type: type === 'entry' ? 'normal' : 'confChange',
          data: new Uint8Array(body.buffer, body.byteOffset, body.length),
        },
      };
    case 'hardState':
      return body.length === 8 ? { kind: 'hardState', hardState: { term, vote: body.readBigUInt64LE(0), commit: index } } : undefined;
    case 'snapshot':
      return { kind: 'snapshot', snapshot: { index, term } };
    case 'segmentHead':
    case 'batchHead': {
      const head = decodeBatchHead(header, body);
      return head && { kind: 'head', head };
    }
  }
}
