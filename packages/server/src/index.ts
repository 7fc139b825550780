export type { Backend, Change, Changes, Row, ScanOptions, Table } from './storage/backend/backend.ts';
export type { StoreBounds } from './storage/backend/buffered-store.ts';
export type { Disk, DiskCallback, DiskFile } from './storage/disk.ts';
