/** The core, its host or its storage broke a rule that safety rests on. The member must stop: no state here can be trusted any more. */
export class InvariantError extends Error {
  constructor(message: string) {
    super(`raft: ${message}`);
    this.name = 'InvariantError';
  }
}

/** Stays on in production. `message` is built only when the rule is broken. */
export function invariant(condition: boolean, message: () => string): asserts condition {
  if (!condition) throw new InvariantError(message());
}
