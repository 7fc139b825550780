/**
 * Every error an etcd v3 server states in words: the key we know it by, how it looks on the wire, and what a client may
 * conclude from it. The server answers by key, the SDK recognises by text; neither spells a message itself.
 *
 * Texts are what deployed clients compare with, byte for byte. They never change.
 */

/**
 * The gRPC status codes.
 *
 * @public
 */
export const StatusCode = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;

/**
 * A gRPC status code.
 *
 * @public
 */
export type StatusCode = (typeof StatusCode)[keyof typeof StatusCode];

/**
 * What can help when a request failed this way.
 *
 * - `never`: the same request fails the same way.
 * - `unavailable`: the same request may succeed later, here or elsewhere. Repeating it is safe when it is idempotent or
 *   when the outcome is `not-applied`.
 * - `reauthenticate`: get a new token, then repeat. The request was refused before anything was done.
 * - `other-member`: this member cannot serve the request in its present role; another can.
 *
 * @public
 */
export type RetryClass = 'never' | 'unavailable' | 'reauthenticate' | 'other-member';

/**
 * What the error says about a request that writes. `unknown` means it may have been applied, or may still be.
 *
 * @public
 */
export type WireOutcome = 'not-applied' | 'unknown';

/**
 * The name of a {@link WireError}.
 *
 * @public
 */
export type WireErrorKey =
  | 'key-empty'
  | 'key-not-found'
  | 'value-provided'
  | 'lease-provided'
  | 'too-many-operations'
  | 'duplicate-key'
  | 'invalid-sort-option'
  | 'request-too-large'
  | 'invalid-client-api-version'
  | 'compacted'
  | 'future-revision'
  | 'no-space'
  | 'too-many-requests'
  | 'range-stream-sort'
  | 'range-stream-filters'
  | 'lease-not-found'
  | 'lease-exists'
  | 'lease-ttl-too-large'
  | 'not-primary-lessor'
  | 'watch-canceled'
  | 'watch-range-empty'
  | 'watch-id-duplicate'
  | 'member-exists'
  | 'peer-urls-exist'
  | 'member-urls-invalid'
  | 'member-not-found'
  | 'not-enough-started-members'
  | 'member-not-learner'
  | 'learner-not-ready'
  | 'too-many-learners'
  | 'cluster-id-mismatch'
  | 'not-supported-for-learner'
  | 'root-user-missing'
  | 'root-role-missing'
  | 'user-exists'
  | 'user-empty'
  | 'user-not-found'
  | 'role-exists'
  | 'role-empty'
  | 'role-not-found'
  | 'role-not-granted'
  | 'permission-not-granted'
  | 'permission-not-given'
  | 'permission-denied'
  | 'authentication-failed'
  | 'no-password-user'
  | 'authentication-not-enabled'
  | 'invalid-auth-management'
  | 'invalid-auth-token'
  | 'auth-revision-old'
  | 'no-leader'
  | 'leader-changed'
  | 'not-leader'
  | 'not-capable'
  | 'server-stopped'
  | 'request-timeout'
  | 'request-timeout-leader-failure'
  | 'request-timeout-connection-lost'
  | 'request-timeout-applied-index'
  | 'leader-transfer-timeout'
  | 'unhealthy-cluster'
  | 'request-canceled'
  | 'deadline-exceeded'
  | 'corrupt-cluster'
  | 'bad-leader-transferee'
  | 'unknown-method'
  | 'downgrade-version-format'
  | 'downgrade-version-invalid'
  | 'cluster-version-unavailable'
  | 'downgrade-in-progress'
  | 'downgrade-not-in-progress'
  | 'session-expired'
  | 'election-no-leader'
  | 'election-not-leader'
  | 'leader-key-missing';

/**
 * One error a server can state.
 *
 * @public
 */
export interface WireError {
  /** Stable name, in kebab case. */
  readonly key: WireErrorKey;
  /** The status code it is sent with. */
  readonly code: StatusCode;
  /** The exact text it is sent with. */
  readonly message: string;
  readonly retry: RetryClass;
  readonly outcome: WireOutcome;
}

type Row = readonly [code: StatusCode, message: string, retry?: RetryClass, outcome?: WireOutcome];

const {
  CANCELLED,
  UNKNOWN,
  INVALID_ARGUMENT,
  DEADLINE_EXCEEDED,
  NOT_FOUND,
  PERMISSION_DENIED,
  RESOURCE_EXHAUSTED,
  FAILED_PRECONDITION,
  OUT_OF_RANGE,
  UNIMPLEMENTED,
  UNAVAILABLE,
  DATA_LOSS,
  UNAUTHENTICATED,
} = StatusCode;

// A row without a class is a definite refusal: repeating it does not help and nothing was applied.
const rows: Readonly<Record<WireErrorKey, Row>> = {
  // Keys, values and transactions.
  'key-empty': [INVALID_ARGUMENT, 'etcdserver: key is not provided'],
  'key-not-found': [INVALID_ARGUMENT, 'etcdserver: key not found'],
  'value-provided': [INVALID_ARGUMENT, 'etcdserver: value is provided'],
  'lease-provided': [INVALID_ARGUMENT, 'etcdserver: lease is provided'],
  'too-many-operations': [INVALID_ARGUMENT, 'etcdserver: too many operations in txn request'],
  'duplicate-key': [INVALID_ARGUMENT, 'etcdserver: duplicate key given in txn request'],
  'invalid-sort-option': [INVALID_ARGUMENT, 'etcdserver: invalid sort option'],
  'request-too-large': [INVALID_ARGUMENT, 'etcdserver: request is too large'],
  'invalid-client-api-version': [INVALID_ARGUMENT, 'etcdserver: invalid client api version'],
  compacted: [OUT_OF_RANGE, 'etcdserver: mvcc: required revision has been compacted'],
  'future-revision': [OUT_OF_RANGE, 'etcdserver: mvcc: required revision is a future revision'],
  // Refused at the door nothing was applied; but etcd checks the quota once more when it applies a request, and that
  // time applies it and still answers with this. Both look the same, so the outcome is not known.
  'no-space': [RESOURCE_EXHAUSTED, 'etcdserver: mvcc: database space exceeded', 'never', 'unknown'],
  // Said before the request is proposed, hence definite. Meant to be ResourceExhausted; etcd sends it as Unknown, and
  // clients know it by its text. Repeat only after a pause: the server asks for less load.
  'too-many-requests': [UNKNOWN, 'etcdserver: too many requests', 'unavailable', 'not-applied'],
  'range-stream-sort': [UNIMPLEMENTED, 'RangeStream does not support custom sort orders'],
  'range-stream-filters': [UNIMPLEMENTED, 'RangeStream does not support revision filters'],

  // Leases.
  'lease-not-found': [NOT_FOUND, 'etcdserver: requested lease not found'],
  'lease-exists': [FAILED_PRECONDITION, 'etcdserver: lease already exists'],
  'lease-ttl-too-large': [OUT_OF_RANGE, 'etcdserver: too large lease TTL'],
  'not-primary-lessor': [UNKNOWN, 'not a primary lessor', 'other-member'],

  // Watches. The two reasons come in WatchResponse.cancel_reason, where there is no status code.
  'watch-canceled': [CANCELLED, 'etcdserver: watch canceled', 'unavailable', 'unknown'],
  'watch-range-empty': [UNKNOWN, 'mvcc: watcher range is empty'],
  'watch-id-duplicate': [UNKNOWN, 'mvcc: duplicate watch ID provided on the WatchStream'],

  // Membership.
  'member-exists': [FAILED_PRECONDITION, 'etcdserver: member ID already exist'],
  'peer-urls-exist': [FAILED_PRECONDITION, 'etcdserver: Peer URLs already exists'],
  'member-urls-invalid': [INVALID_ARGUMENT, 'etcdserver: given member URLs are invalid'],
  'member-not-found': [NOT_FOUND, 'etcdserver: member not found'],
  // Meant to be FailedPrecondition; sent as Unknown, like too-many-requests.
  'not-enough-started-members': [UNKNOWN, 'etcdserver: re-configuration failed due to not enough started members'],
  'member-not-learner': [FAILED_PRECONDITION, 'etcdserver: can only promote a learner member'],
  'learner-not-ready': [FAILED_PRECONDITION, 'etcdserver: can only promote a learner member which is in sync with leader'],
  'too-many-learners': [FAILED_PRECONDITION, 'etcdserver: too many learner members in cluster'],
  'cluster-id-mismatch': [FAILED_PRECONDITION, 'etcdserver: cluster ID mismatch'],
  'not-supported-for-learner': [FAILED_PRECONDITION, 'etcdserver: rpc not supported for learner', 'other-member'],

  // Users, roles and tokens.
  'root-user-missing': [FAILED_PRECONDITION, 'etcdserver: root user does not exist'],
  'root-role-missing': [FAILED_PRECONDITION, 'etcdserver: root user does not have root role'],
  'user-exists': [FAILED_PRECONDITION, 'etcdserver: user name already exists'],
  'user-empty': [INVALID_ARGUMENT, 'etcdserver: user name is empty'],
  'user-not-found': [FAILED_PRECONDITION, 'etcdserver: user name not found'],
  'role-exists': [FAILED_PRECONDITION, 'etcdserver: role name already exists'],
  'role-empty': [INVALID_ARGUMENT, 'etcdserver: role name is empty'],
  'role-not-found': [FAILED_PRECONDITION, 'etcdserver: role name not found'],
  'role-not-granted': [FAILED_PRECONDITION, 'etcdserver: role is not granted to the user'],
  'permission-not-granted': [FAILED_PRECONDITION, 'etcdserver: permission is not granted to the role'],
  'permission-not-given': [INVALID_ARGUMENT, 'etcdserver: permission not given'],
  'permission-denied': [PERMISSION_DENIED, 'etcdserver: permission denied'],
  'authentication-failed': [INVALID_ARGUMENT, 'etcdserver: authentication failed, invalid user ID or password'],
  'no-password-user': [UNKNOWN, 'auth: authentication failed, password was given for no password user'],
  'authentication-not-enabled': [FAILED_PRECONDITION, 'etcdserver: authentication is not enabled'],
  'invalid-auth-management': [INVALID_ARGUMENT, 'etcdserver: invalid auth management'],
  'invalid-auth-token': [UNAUTHENTICATED, 'etcdserver: invalid auth token', 'reauthenticate'],
  'auth-revision-old': [INVALID_ARGUMENT, 'etcdserver: revision of auth store is old', 'reauthenticate'],

  // Leadership and availability. Even `no leader` is not proof that a write was not applied: a server may say it of a
  // request that it proposed while it still had one.
  'no-leader': [UNAVAILABLE, 'etcdserver: no leader', 'unavailable', 'unknown'],
  'leader-changed': [UNAVAILABLE, 'etcdserver: leader changed', 'unavailable', 'unknown'],
  'not-leader': [FAILED_PRECONDITION, 'etcdserver: not leader', 'other-member'],
  'not-capable': [FAILED_PRECONDITION, 'etcdserver: not capable'],
  'server-stopped': [UNAVAILABLE, 'etcdserver: server stopped', 'unavailable', 'unknown'],
  'request-timeout': [UNAVAILABLE, 'etcdserver: request timed out', 'unavailable', 'unknown'],
  'request-timeout-leader-failure': [
    UNAVAILABLE,
    'etcdserver: request timed out, possibly due to previous leader failure',
    'unavailable',
    'unknown',
  ],
  'request-timeout-connection-lost': [
    UNAVAILABLE,
    'etcdserver: request timed out, possibly due to connection lost',
    'unavailable',
    'unknown',
  ],
  'request-timeout-applied-index': [
    UNAVAILABLE,
    'etcdserver: request timed out, waiting for the applied index took too long',
    'unavailable',
    'unknown',
  ],
  'leader-transfer-timeout': [UNKNOWN, 'etcdserver: request timed out, leader transfer took too long', 'unavailable', 'unknown'],
  'unhealthy-cluster': [UNAVAILABLE, 'etcdserver: unhealthy cluster', 'unavailable', 'unknown'],
  'request-canceled': [CANCELLED, 'etcdserver: request canceled', 'unavailable', 'unknown'],
  'deadline-exceeded': [DEADLINE_EXCEEDED, 'etcdserver: context deadline exceeded', 'unavailable', 'unknown'],
  // The members disagree about what is stored, so no member's word on what it applied is proof.
  'corrupt-cluster': [DATA_LOSS, 'etcdserver: corrupt cluster', 'never', 'unknown'],
  'bad-leader-transferee': [FAILED_PRECONDITION, 'etcdserver: bad leader transferee'],
  'unknown-method': [UNKNOWN, 'etcdserver: unknown method'],

  // Downgrades.
  'downgrade-version-format': [INVALID_ARGUMENT, 'etcdserver: wrong downgrade target version format'],
  'downgrade-version-invalid': [INVALID_ARGUMENT, 'etcdserver: invalid downgrade target version'],
  'cluster-version-unavailable': [FAILED_PRECONDITION, 'etcdserver: cluster version not found during downgrade'],
  'downgrade-in-progress': [FAILED_PRECONDITION, 'etcdserver: cluster has a downgrade job in progress'],
  'downgrade-not-in-progress': [FAILED_PRECONDITION, 'etcdserver: no inflight downgrade job'],

  // The lock and election services, whose errors carry no code of their own.
  // The session's key was written and has gone again with its lease: no lock is held.
  'session-expired': [UNKNOWN, 'mutex: session is expired'],
  'election-no-leader': [UNKNOWN, 'election: no leader'],
  'election-not-leader': [UNKNOWN, 'election: not leader'],
  'leader-key-missing': [UNKNOWN, '"leader" field must be provided'],
};

function toWireError([key, row]: [string, Row]): [WireErrorKey, WireError] {
  const [code, message, retry = 'never', outcome = 'not-applied'] = row;
  // Object.entries forgets that the keys of `rows` are all there are.
  const known = key as WireErrorKey;
  return [known, Object.freeze({ key: known, code, message, retry, outcome })];
}

/**
 * The errors by key.
 *
 * @public
 */
export const wireErrors: Readonly<Record<WireErrorKey, WireError>> = Object.freeze(
  Object.fromEntries(Object.entries(rows).map(toWireError)) as Record<WireErrorKey, WireError>,
);

const byMessage: ReadonlyMap<string, WireError> = new Map(Object.values(wireErrors).map((row) => [row.message, row]));

// How Go prints a status. Servers put this form, and not the bare message, into the cancel reason of a watch that may
// not be created.
const printedStatus = /^rpc error: code = \w+ desc = /;

/**
 * The table's row for an error as it came in.
 *
 * The text decides: a server may send a row with another code than the table's, as etcd does with two of them, and all
 * known texts differ. A text without the `etcdserver: ` prefix could be anybody's, though, so it must come with its own
 * code. Undefined means that only the code can be gone by.
 *
 * @param code - the gRPC status code; undefined for a text that came without one, such as a watch's cancel reason.
 * @example
 * ```ts
 * findWireError(3, 'etcdserver: key not found')?.key; // 'key-not-found'
 * ```
 * @public
 */
export function findWireError(code: number | undefined, message: string): WireError | undefined {
  const row = byMessage.get(message.replace(printedStatus, ''));
  if (row === undefined || code === undefined || row.message.startsWith('etcdserver: ')) return row;
  return row.code === code ? row : undefined;
}
