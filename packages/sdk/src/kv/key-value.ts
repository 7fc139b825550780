import type { KeyValue as WireKeyValue } from '@conclave/protocol';
import type { KeyPrefix } from './key-range.ts';
import { toText } from './text.ts';

/**
 * A key with its value and its history's numbers, as it was at one revision.
 *
 * The text of `key` and `value` is decoded as UTF-8 when asked for; bytes that are not UTF-8 come out right only from `keyBytes` and
 * `valueBytes`. The byte arrays are views of the response they came in: copy what you keep for long, and do not write to them.
 *
 * @example
 * ```ts
 * const stored = await client.get('greeting');
 * if (stored !== undefined) console.log(stored.value, stored.modRevision); // hello 2n
 * ```
 */
export class KeyValue {
  // What `console.log` shows. Defined by hand, as a computed name has no place in a declaration.
  static {
    Object.defineProperty(KeyValue.prototype, Symbol.for('nodejs.util.inspect.custom'), {
      value(this: KeyValue): object {
        const { key, value, createRevision, modRevision, version, lease } = this;
        return { key, value, createRevision, modRevision, version, lease };
      },
    });
  }

  // Not `#`: what tests compare in depth would not see it, and take any two for equal.
  private readonly wire: WireKeyValue;
  private readonly prefix: KeyPrefix;

  /** @internal */
  constructor(wire: WireKeyValue, prefix: KeyPrefix) {
    this.wire = wire;
    this.prefix = prefix;
  }

  /** The key as text, without the namespace's prefix. */
  get key(): string {
    return toText(this.keyBytes);
  }

  get keyBytes(): Uint8Array {
    return this.prefix.strip(this.wire.key);
  }

  /** The value as text. */
  get value(): string {
    return toText(this.wire.value);
  }

  get valueBytes(): Uint8Array {
    return this.wire.value;
  }

  /** The revision of the write that began this life of the key. A fencing token: a later holder's is always higher. */
  get createRevision(): bigint {
    return BigInt(this.wire.createRevision);
  }

  /** The revision of the last write to the key. */
  get modRevision(): bigint {
    return BigInt(this.wire.modRevision);
  }

  /** How often the key was written in this life: 1 after its creation. */
  get version(): bigint {
    return BigInt(this.wire.version);
  }

  /** The lease the key goes with; 0 for none. */
  get lease(): bigint {
    return this.wire.lease;
  }

  /**
   * For logs: text, and 64-bit numbers as decimal strings.
   *
   * @example
   * ```ts
   * const stored = await client.get('greeting');
   * console.log(JSON.stringify(stored)); // {"key":"greeting","value":"hello","createRevision":"2",…}
   * ```
   */
  toJSON(): object {
    const { key, value, createRevision, modRevision, version, lease } = this;
    return { key, value, createRevision: `${createRevision}`, modRevision: `${modRevision}`, version: `${version}`, lease: `${lease}` };
  }
}
