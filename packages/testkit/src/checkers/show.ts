import type { Compare, KeySpan, KeyValue, Operation, Request, Response, WatchEvent } from '../history.ts';

/** How parts of a history are shown in findings: one line each. */

export function showOperation({ id, client, call, return: returned, request, outcome }: Operation): string {
  const times = `${shortTime(call)}..${shortTime(returned)} ms`;
  const head = `#${id} client ${client}, ${times}: ${showRequest(request)}`;
  if (outcome.status === 'unknown') return `${head} -> unknown`;
  if (outcome.status === 'failed') return `${head} -> failed: ${outcome.code}`;
  return `${head} -> revision ${outcome.revision}: ${showResponse(outcome.response)}`;
}

function showRequest(request: Request): string {
  switch (request.type) {
    case 'put':
      return `put ${text(request.key)} = ${text(request.value)}${showLease(request.lease)}`;
    case 'range':
      return `range ${showSpan(request)}${request.revision === undefined ? '' : ` at ${request.revision}`}${request.serializable === true ? ' serializable' : ''}`;
    case 'deleteRange':
      return `delete ${showSpan(request)}`;
    case 'txn': {
      const branch = (operations: readonly Request[]): string => operations.map(showRequest).join('; ');
      return `txn if (${request.compares.map(showCompare).join(', ')}) { ${branch(request.success)} } else { ${branch(request.failure)} }`;
    }
    case 'compact':
      return `compact ${request.revision}`;
    case 'leaseGrant':
      return `grant lease ${request.id ?? 'of any id'} for ${request.ttl} s`;
    case 'leaseRevoke':
      return `revoke lease ${request.id}`;
    case 'leaseKeepAlive':
      return `renew lease ${request.id}`;
    case 'leaseTimeToLive':
      return `time to live of lease ${request.id}`;
  }
}

function showResponse(response: Response): string {
  switch (response.type) {
    case 'put':
      return `done${response.prevKv === undefined ? '' : `, before: ${showKeyValue(response.prevKv)}`}`;
    case 'range':
      return `count ${response.count}${response.more ? ', more' : ''} [${shorten(response.kvs.map(showKeyValue))}]`;
    case 'deleteRange':
      return `deleted ${response.deleted}${response.prevKvs.length === 0 ? '' : ` [${shorten(response.prevKvs.map(showKeyValue))}]`}`;
    case 'txn':
      return `${response.succeeded ? 'succeeded' : 'not succeeded'} { ${response.responses.map(showResponse).join('; ')} }`;
    case 'compact':
    case 'leaseRevoke':
      return 'done';
    case 'leaseGrant':
      return `lease ${response.id} for ${response.ttl} s`;
    case 'leaseKeepAlive':
      return `ttl ${response.ttl} s`;
    case 'leaseTimeToLive':
      return `ttl ${response.ttl} of ${response.grantedTtl} s${response.keys === undefined ? '' : ` [${shorten(response.keys.map(text))}]`}`;
  }
}

export function showKeyValue({ key, value, createRevision, modRevision, version, lease }: KeyValue): string {
  return `${text(key)} = ${text(value)} (create ${createRevision}, mod ${modRevision}, version ${version}${showLease(lease)})`;
}

export function showEvent({ type, kv, prevKv }: WatchEvent): string {
  const before = prevKv === undefined ? '' : `, before: ${showKeyValue(prevKv)}`;
  return `${type === 'put' ? `put ${showKeyValue(kv)}` : `delete ${text(kv.key)} at ${kv.modRevision}`}${before}`;
}

export function showEvents(events: readonly WatchEvent[]): string {
  return events.length === 0 ? 'nothing' : shorten(events.map(showEvent));
}

export function showSpan({ key, end }: KeySpan): string {
  return end === undefined ? text(key) : `[${text(key)}, ${end === '\0' ? 'end' : text(end)})`;
}

const showCompare = ({ target, is, operand, ...span }: Compare): string =>
  `${target} of ${showSpan(span)} ${is} ${typeof operand === 'number' ? operand : text(operand)}`;

const showLease = (lease: string | undefined): string => (lease === undefined ? '' : `, lease ${lease}`);

const TEXT_MAX = 40;
const ITEMS_MAX = 8;

const text = (value: string): string => JSON.stringify(value.length <= TEXT_MAX ? value : `${value.slice(0, TEXT_MAX)}...`);

const shorten = (items: readonly string[]): string =>
  items.length <= ITEMS_MAX ? items.join(', ') : `${items.slice(0, ITEMS_MAX).join(', ')}, ... ${items.length} in all`;

/** The recorder tells events of one instant apart by less than this shows. */
const shortTime = (time: number): string => String(Math.round(time * 1000) / 1000);
