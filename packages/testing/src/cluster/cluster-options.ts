import type { MemberSettings } from '@conclave/server';
import type { Logger } from '@conclave/wire';

/** What {@link cluster} builds. The settings of a member are those of `startServer`, with the same defaults. */
export interface ClusterOptions extends Partial<MemberSettings> {
  /** How many members, 1 to 7. Default: 1, which starts fastest; three or more where members shall fail. */
  readonly size?: number;
  /** Decides everything that is left to chance: the same seed gives the same run. Default: 1. */
  readonly seed?: number;
  /** How long a message takes from one machine to another, in virtual milliseconds: drawn for each of them. Default: [1, 1]. */
  readonly delayMs?: readonly [least: number, most: number];
  /** Where the members write their logs. Default: nowhere. */
  readonly log?: Logger;
}
