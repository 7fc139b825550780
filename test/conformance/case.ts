import type { Context } from './context.ts';
import type { Settings } from './target.ts';

/** One statement about etcd's API, checked by sending raw messages. It finds an empty store, though not one at revision 1. */
export interface Case {
  /** A sentence: what the server does. Unique within the suite. */
  readonly name: string;
  /** First etcd release that behaves so. Older targets skip the case. */
  readonly since?: string;
  /** Last minor release that behaves so (`3.6`). Newer targets skip the case. */
  readonly until?: string;
  /** What the target must have besides the call contract. The door in the process has no socket, and one backend never commits. */
  readonly needs?: 'socket' | 'commits';
  /** How the server must be configured. Cases with equal settings share one server. */
  readonly settings?: Settings;
  /** The case wants a store at revision 1, or spoils the server for others: it gets a server of its own. */
  readonly fresh?: true;
  run(t: Context): Promise<void>;
}

/** A case about compaction, once at leisure and once waiting until what is gone is really gone. */
export function physicalToo(one: Omit<Case, 'run'> & { run(t: Context, physical: boolean): Promise<void> }): readonly Case[] {
  return [
    { ...one, run: (t) => one.run(t, false) },
    { ...one, name: `${one.name}, physical`, needs: 'commits', run: (t) => one.run(t, true) },
  ];
}

/** True when release `a` is `b` or newer. Missing parts count as 0. */
export function isAtLeast(a: string, b: string): boolean {
  const left = a.split('.').map(Number);
  const right = b.split('.').map(Number);
  for (let part = 0; part < 3; part++) {
    const difference = (left[part] ?? 0) - (right[part] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}
