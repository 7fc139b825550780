import type { ConclaveError } from '../errors/conclave-error.ts';

/**
 * How much a view is worth.
 *
 * - `synced`: the server said of late that it is up to date.
 * - `stale`: it is as it was at its revision, and may be behind. It gets over that by itself.
 * - `failed`: the server refuses what it needs; it holds nothing any more.
 * - `closed`: it was closed, or its client was.
 */
export type ViewState =
  | { readonly state: 'synced' }
  | { readonly state: 'stale'; readonly reason: StaleReason }
  | { readonly state: 'failed'; readonly error: ConclaveError }
  | { readonly state: 'closed' };

/**
 * Why a view may be behind.
 *
 * - `listing`: everything is being read for the first time. Nobody who was given the view has seen this.
 * - `disconnected`: no stream brings changes, or one does again and has not caught up yet.
 * - `silent`: there is a stream, but for `staleAfterMs` the server has not said that the view is up to date.
 * - `compacted`: the history it missed is gone, and everything is being read anew.
 */
export type StaleReason = 'listing' | 'disconnected' | 'silent' | 'compacted';
