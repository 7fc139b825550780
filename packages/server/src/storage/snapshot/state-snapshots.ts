import type { ConfState, SnapshotMeta } from '@conclave/raft';
import type { SnapshotReader, Snapshots, SnapshotWriter } from '../../replica/ports.ts';
import type { Row } from '../backend/backend.ts';

/** Reads raft's configuration from the rows of table `members`, in key order. */
export type ConfStateOf = (rows: Iterable<Row>) => ConfState;

export class StateSnapshots implements Snapshots {
  open(): Promise<SnapshotReader> {
    return Promise.reject(new Error('snapshots are not read yet'));
  }

  receive(_snapshot: SnapshotMeta, _id: number): Promise<SnapshotWriter> {
    return Promise.reject(new Error('snapshots are not received yet'));
  }

  restore(_snapshot: { readonly index: number; readonly term: number }): Promise<void> {
    return Promise.reject(new Error('snapshots are not restored yet'));
  }
}
