import { ConclaveError, type Outcome } from '@conclave/sdk';

/** The words in which a recipe reports on its place: the same queue serves locks and elections. */
export interface Kind {
  readonly noun: string;
  readonly lost: 'lock-lost' | 'leadership-lost';
  readonly ended: 'lock-released' | 'leadership-resigned';
  readonly timeout: 'lock-timeout' | 'campaign-timeout';
}

export const lockKind: Kind = { noun: 'lock', lost: 'lock-lost', ended: 'lock-released', timeout: 'lock-timeout' };
export const electionKind: Kind = {
  noun: 'leadership',
  lost: 'leadership-lost',
  ended: 'leadership-resigned',
  timeout: 'campaign-timeout',
};

/** The codes this package adds to the SDK's. */
export type RecipeErrorCode = Kind['lost'] | Kind['ended'] | Kind['timeout'] | 'lease-in-use';

/** An error of this package. What it reports never wrote anything, unless said otherwise. */
export function recipeError(code: RecipeErrorCode, message: string, cause?: unknown, outcome: Outcome = 'not-applied'): ConclaveError {
  return new ConclaveError(cause === undefined ? { code, message, outcome } : { code, message, outcome, cause });
}
