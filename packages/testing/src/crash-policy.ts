import type { Random } from './random.ts';

/**
 * What becomes of one 512-byte sector of a write that was not flushed: the new bytes, what was there before, noise, or noise in the whole 4 KiB
 * block around it, as the file system writes whole blocks.
 */
export type SectorFate = 'keep' | 'drop' | 'garbage' | 'shred';

/** Decides what a power cut leaves of everything that was not durable. */
export interface CrashPolicy {
  /** Whether a name created, renamed or removed since the last `syncDir` of its folder is so after the cut. */
  keepsName(path: string): boolean;
  /** Asked for every sector of every unflushed write, in the order of the writes. `offset` is that of the sector in the file. */
  sector(path: string, offset: number): SectorFate;
  garbage(length: number): Uint8Array;
}

/**
 * Chance decides, and first of all it decides how: some cuts keep nearly everything, some nearly nothing, some scramble. Even odds for each
 * sector would hardly ever show a batch that misses just one.
 */
export function randomCrash(random: Random): CrashPolicy {
  const keep = random.pick([0, 0.5, 0.9, 1]);
  const scramble = random.pick([0, 0, 0.1, 0.5]);
  const keepName = random.pick([0, 0.5, 1]);
  return {
    keepsName: () => random.chance(keepName),
    sector: () => {
      if (random.chance(scramble)) return random.chance(0.1) ? 'shred' : 'garbage';
      return random.chance(keep) ? 'keep' : 'drop';
    },
    garbage: (length) => random.bytes(length),
  };
}
