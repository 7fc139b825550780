import type { Scenario } from '../scenario.ts';
import { kills } from './kills.ts';
import { partitions } from './partitions.ts';
import { pauses } from './pauses.ts';

export const scenarios: readonly Scenario[] = [...kills, ...pauses, ...partitions];
