import type { Row, ScanOptions } from './backend.ts';
import { compareBytes } from './bytes.ts';

/** A row of one layer; `value` undefined hides the row of this key in older layers. */
export interface LayerRow {
  readonly key: Uint8Array;
  readonly value: Uint8Array | undefined;
}

/** Merges layers given newest first. Reads one row ahead in each and no further. */
export function* mergeLayers(layers: readonly Iterator<LayerRow>[], options: ScanOptions): Generator<Row, undefined> {
  const direction = options.reverse ? -1 : 1;
  let left = options.limit ?? Number.POSITIVE_INFINITY;
  try {
    const heads = layers.map((layer) => advance(layer));
    while (left > 0) {
      let newest: LayerRow | undefined;
      for (const head of heads) {
        if (head !== undefined && (newest === undefined || compareBytes(head.key, newest.key) * direction < 0)) newest = head;
      }
      if (newest === undefined) return;
      const { key, value } = newest;
      for (let i = 0; i < heads.length; i++) {
        const head = heads[i];
        if (head !== undefined && (head === newest || compareBytes(head.key, key) === 0)) heads[i] = advance(layers[i]!);
      }
      if (value === undefined) continue;
      left--;
      yield { key, value };
    }
  } finally {
    // The backend's iterator holds a read transaction until it is told that nobody continues.
    for (const layer of layers) layer.return?.();
  }
}

function advance(layer: Iterator<LayerRow>): LayerRow | undefined {
  const next = layer.next();
  return next.done ? undefined : next.value;
}
