import type { Mutant } from './mutant.ts';

/** Bugs of the SDK and the recipes. */
export const clientMutants: readonly Mutant[] = [
  {
    name: 'write-repeated-after-unknown-outcome',
    origin: 'jetcd #1444, etcd #14890: a write is done twice',
    edits: [
      {
        file: 'packages/sdk/src/connection/unary-call.ts',
        find: "return end.notProcessed || ((this.#procedure.isRepeatable || outcomeOf(end) === 'not-applied') && isTransient(end));",
        replace: 'return end.notProcessed || isTransient(end);',
      },
    ],
    finders: [{ file: 'packages/sdk/src/connection/unary-call.test.ts' }],
  },
  {
    name: 'lock-granted-after-its-lease-was-gone',
    origin: 'etcd #11408: who waited is given the lock without a look at its own key',
    edits: [
      {
        file: 'packages/recipes/src/contention/contend.ts',
        // biome-ignore lint/suspicious/noTemplateCurlyInString: it is source text
        find: '    if (mine?.createRevision !== token) throw recipeError(kind.lost, `the place in the queue for ${kind.noun} ${name} is gone`);\n',
        replace: '    void mine;\n',
      },
    ],
    finders: [{ file: 'test/e2e/lock.test.ts' }],
  },
  {
    name: 'queue-under-a-bare-prefix',
    origin: 'etcd #6278: the election on "xy" waits for a candidate on "xyz"',
    edits: [
      {
        file: 'packages/recipes/src/contention/contend.ts',
        // biome-ignore lint/suspicious/noTemplateCurlyInString: it is source text
        find: '  const ahead = list(prefix(`${name}/`), {',
        replace: '  const ahead = list(prefix(name), {',
      },
      {
        file: 'packages/recipes/src/contention/contend.ts',
        // biome-ignore lint/suspicious/noTemplateCurlyInString: it is source text
        find: 'return list(prefix(`${name}/`), {',
        replace: 'return list(prefix(name), {',
      },
    ],
    finders: [{ file: 'test/e2e/lock.test.ts' }],
  },
];
