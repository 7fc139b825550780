import type { Scenario } from '../scenario.ts';
import { clocks } from './clocks.ts';
import { disks } from './disks.ts';
import { kills } from './kills.ts';
import { members } from './members.ts';
import { partitions } from './partitions.ts';
import { pauses } from './pauses.ts';

export const scenarios: readonly Scenario[] = [...kills, ...pauses, ...partitions, ...disks, ...clocks, ...members];
