import type { History } from '../history.ts';
import type { Finding } from './finding.ts';
import { checkFencing, checkHolds } from './holds.ts';

/** Every check that a client's history alone allows: replay, watches, locks. No finding: nothing wrong was seen. */
export function checkHistory(history: History): Finding[] {
  return [...checkHolds(history.holds), ...checkFencing(history.fencedWrites)];
}
