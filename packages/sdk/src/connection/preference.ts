import type { Slot } from './slot.ts';

/** How one endpoint stands to the others, in the words of DNS SRV. */
export interface Preference {
  /** Those with the lowest number that are ready are used. */
  readonly priority: number;
  /** The share of calls among those of the same priority; 0: next to none. */
  readonly weight: number;
}

/** By address. Whoever is not in it is as good as the best. */
export type Preferences = ReadonlyMap<string, Preference>;

/** As long as a turn can be. Shares are kept as well as that allows. */
const turnMax = 64;

/** The slots to be used, in the order in which they take their turns: each as often as its share says, and spread over the turn. */
export function turnOf(slots: readonly Slot[], preferences: Preferences | undefined): readonly Slot[] {
  if (preferences === undefined || slots.length <= 1) return slots;
  const of = ({ address }: Slot): Preference => preferences.get(address) ?? { priority: 0, weight: 0 };
  const priority = Math.min(...slots.map((slot) => of(slot).priority));
  const best = slots.filter((slot) => of(slot).priority === priority);
  const weights = best.map((slot) => of(slot).weight);
  const unit = divisor(weights);
  const sum = weights.reduce((total, weight) => total + weight, 0);
  if (unit === 0 || weights.every((weight) => weight === weights[0])) return best;
  // Beside one of weight 0, which gets its turn all the same, the others need many.
  const scale = weights.includes(0) ? turnMax / sum : Math.min(1 / unit, turnMax / sum);
  const shares = best.map((slot, at) => ({ slot, share: Math.max(1, Math.round((weights[at] as number) * scale)) }));
  return shares
    .flatMap(({ slot, share }, at) => Array.from({ length: share }, (_, nth) => ({ slot, at: (nth + 0.5) / share, tie: at })))
    .sort((one, other) => one.at - other.at || one.tie - other.tie)
    .map(({ slot }) => slot);
}

/** The greatest that divides them all; 0 if all are 0. */
function divisor(numbers: readonly number[]): number {
  return numbers.reduce((one, other) => {
    while (other > 0) [one, other] = [other, one % other];
    return one;
  }, 0);
}
