import { clientMutants } from './client-mutants.ts';
import type { Mutant } from './mutant.ts';
import { raftMutants } from './raft-mutants.ts';
import { serverMutants } from './server-mutants.ts';

export const mutants: readonly Mutant[] = [...raftMutants, ...serverMutants, ...clientMutants];
