import type { Mutant } from './mutant.ts';
import { raftMutants } from './raft-mutants.ts';

export const mutants: readonly Mutant[] = [...raftMutants];
