/**
 * What is stored is not what was written: a checksum that does not match, a page that is none. Nothing derived from it may be answered, so the
 * member stops; it can be given a fresh copy of the state by the other members or from a backup.
 */
export class StateCorruptionError extends Error {
  override readonly name: string = 'StateCorruptionError';
  readonly code = 'state-corrupt' as const;
}
