// The layer rules of ARCHITECTURE.md. Type-only imports count: a type is a dependency on the room it lives in.
const only = (name, from, allowed) => ({
  name,
  severity: 'error',
  from: { path: from, pathNot: '\\.test(-d)?\\.ts$' },
  to: { path: '^packages/', pathNot: allowed },
});
const packageRule = (name, ...allowed) =>
  only(
    `${name}-imports-downwards`,
    `^packages/${name}/src`,
    [name, ...allowed].map((p) => `^packages/${p}/src`),
  );

// Inside the server: every folder may import itself and what lies below it.
const room = (name, ...allowed) => ({
  name: `server-${name}-imports-downwards`,
  severity: 'error',
  from: { path: `^packages/server/src/${name}/`, pathNot: '\\.test\\.ts$' },
  to: {
    path: '^packages/server/src/',
    pathNot: [`^packages/server/src/${name}/`, '^packages/server/src/limits\\.ts$', ...allowed.map((a) => `^packages/server/src/${a}`)],
  },
});

module.exports = {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    packageRule('protocol'),
    packageRule('wire'),
    packageRule('raft'),
    packageRule('server', 'raft', 'protocol', 'wire'),
    packageRule('sdk', 'protocol', 'wire'),
    packageRule('recipes', 'sdk'),
    packageRule('testing', 'sdk', 'recipes', 'server', 'wire', 'protocol', 'raft'),
    room('storage', 'replica/ports\\.ts'),
    room('mvcc', 'storage/'),
    room('lease', 'storage/'),
    room('auth', 'storage/'),
    room('membership', 'storage/'),
    room('apply', 'mvcc/', 'lease/', 'auth/', 'membership/', 'storage/'),
    room('transport', 'replica/ports\\.ts'),
    room('replica', 'apply/'),
    room('api', 'replica/', 'apply/', 'mvcc/', 'lease/', 'auth/', 'membership/'),
    {
      name: 'rxjs-only-in-the-ring',
      severity: 'error',
      from: { path: '^packages/(sdk|recipes|server|wire|raft|protocol)/src', pathNot: ['^packages/sdk/src/rx/', '\\.test(-d)?\\.ts$'] },
      to: { path: 'node_modules/rxjs' },
    },
    {
      name: 'optional-peers-behind-their-doors',
      comment: 'Who imports @conclave/sdk need not have them installed.',
      severity: 'error',
      from: {
        path: '^packages/(sdk|recipes|server|wire|raft|protocol)/src',
        pathNot: ['^packages/sdk/src/(opentelemetry|prom-client)\\.ts$', '\\.test(-d)?\\.ts$'],
      },
      to: { path: 'node_modules/(@opentelemetry|prom-client)/' },
    },
    {
      name: 'doors-of-optional-peers-are-outermost',
      severity: 'error',
      from: { path: '^packages/sdk/src', pathNot: '\\.test(-d)?\\.ts$' },
      to: { path: '^packages/sdk/src/(opentelemetry|prom-client)\\.ts$' },
    },
    {
      name: 'raft-imports-nothing',
      severity: 'error',
      from: { path: '^packages/raft/src', pathNot: '\\.test\\.ts$' },
      to: { pathNot: '^packages/raft/src' },
    },
    {
      name: 'apply-and-below-touch-no-system',
      comment: 'apply, mvcc, lease, auth and membership compute the same answer on every member: no clock, no network, no files.',
      severity: 'error',
      from: {
        path: '^packages/server/src/(apply|mvcc|lease|auth|membership)/',
        pathNot: ['\\.test\\.ts$', '^packages/server/src/membership/ids\\.ts$'],
      },
      to: { dependencyTypes: ['core'] },
    },
  ],
  options: {
    doNotFollow: { path: ['node_modules', 'dist'] },
    exclude: { path: ['/dist/', '^\\.cache'] },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.base.json' },
    enhancedResolveOptions: {
      conditionNames: ['@conclave/source', 'import', 'node', 'default'],
      exportsFields: ['exports'],
      mainFields: ['main'],
    },
  },
};
