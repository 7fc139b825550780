/** Something that an Observable did, `atMs` virtual milliseconds after it was subscribed to. */
export type Emission<T> =
  | { readonly kind: 'next'; readonly atMs: number; readonly value: T }
  | { readonly kind: 'error'; readonly atMs: number; readonly error: unknown }
  | { readonly kind: 'complete'; readonly atMs: number };
