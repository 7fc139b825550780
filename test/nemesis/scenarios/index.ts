import { heartbeats } from '../heartbeats.ts';
import type { Measurement, Scenario } from '../scenario.ts';
import { clocks } from './clocks.ts';
import { disks } from './disks.ts';
import { kills } from './kills.ts';
import { members } from './members.ts';
import { partitions } from './partitions.ts';
import { pauses } from './pauses.ts';

export const scenarios: readonly (Scenario | Measurement)[] = [
  ...kills,
  ...pauses,
  ...partitions,
  ...disks,
  ...clocks,
  ...members,
  heartbeats,
];
