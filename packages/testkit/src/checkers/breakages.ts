import type { Random } from '@conclave/testing';
import type { History, KeyValue, Operation, RangeRequest, RangeResponse, Response, Watch, WatchEvent, WatchMessage } from '../history.ts';
import type { EtcdModel } from './model.ts';
import { mayBeStale } from './responses.ts';
import { Timeline } from './timeline.ts';

/** Makes a lawful history unlawful, at one place. Undefined: the history has no place for it. */
export type Breakage = (history: History, random: Random, model: EtcdModel) => History | undefined;

type Answered<R extends Response> = Operation & {
  readonly outcome: { readonly status: 'ok'; readonly revision: number; readonly response: R };
};

type Told = Extract<WatchMessage, { type: 'events' }>;

const isRead = (operation: Operation): operation is Answered<RangeResponse> =>
  operation.outcome.status === 'ok' && operation.outcome.response.type === 'range';

/** Breaks what a read shows. `change` returns undefined where it changes nothing. */
function inRead(
  change: (response: RangeResponse, random: Random) => RangeResponse | undefined,
  mayBreak: (request: RangeRequest) => boolean = () => true,
): Breakage {
  return (history, random) =>
    replaceOperation(
      history,
      random,
      (operation) =>
        isRead(operation) && operation.request.type === 'range' && operation.request.keysOnly !== true && mayBreak(operation.request),
      (operation) => {
        const read = operation as Answered<RangeResponse>;
        const response = change(read.outcome.response, random);
        return response === undefined ? undefined : { ...operation, outcome: { ...read.outcome, response } };
      },
    );
}

/** Where no two can stand in either order. */
const inSortedRead = (change: (response: RangeResponse) => RangeResponse | undefined): Breakage =>
  inRead(change, ({ sort }) => sort === undefined || sort.by === 'key');

const inKeyValue = (change: (kv: KeyValue) => KeyValue): Breakage =>
  inRead((response, random) => {
    if (response.kvs.length === 0) return undefined;
    const at = random.below(response.kvs.length);
    return { ...response, kvs: response.kvs.map((kv, place) => (place === at ? change(kv) : kv)) };
  });

/** What can be wrong with answers. */
export const brokenAnswers: Readonly<Record<string, Breakage>> = {
  'a read shows a value that was never written': inKeyValue((kv) => ({ ...kv, value: `${kv.value}?` })),
  'a read shows a wrong version': inKeyValue((kv) => ({ ...kv, version: kv.version + 1 })),
  'a read shows a wrong create revision': inKeyValue((kv) => ({ ...kv, createRevision: kv.createRevision - 1 })),
  'a read shows a wrong lease': inKeyValue((kv) => ({ ...kv, lease: '4711' })),
  'a read misses a key': inRead((response) =>
    response.kvs.length === 0 ? undefined : { ...response, kvs: response.kvs.slice(1), count: response.count - 1 },
  ),
  'a read swaps two values': inSortedRead((response) => {
    const [first, second, ...rest] = response.kvs;
    if (first === undefined || second === undefined || first.value === second.value) return undefined;
    return { ...response, kvs: [{ ...first, value: second.value }, { ...second, value: first.value }, ...rest] };
  }),
  'a read is not in order': inSortedRead((response) =>
    response.kvs.length < 2 ? undefined : { ...response, kvs: response.kvs.toReversed() },
  ),
  'a read counts wrongly': inRead((response) => ({ ...response, count: response.count + 1 })),
  'a read hides that there is more': inRead((response) => (response.more ? { ...response, more: false } : undefined)),
  'an acknowledged write is denied': (history, random) =>
    replaceOperation(history, random, isAnsweredPut, (operation) => ({ ...operation, outcome: { status: 'failed', code: 'no-space' } })),
  'an acknowledged write was asked for by nobody': (history, random) => replaceOperation(history, random, isAnsweredPut, () => 'drop'),
  'two writes were given one revision': (history, random) =>
    replaceOperation(history, random, isAnsweredPut, (operation) =>
      operation.outcome.status === 'ok'
        ? { ...operation, outcome: { ...operation.outcome, revision: operation.outcome.revision - 1 } }
        : undefined,
    ),
  'a transaction took the other branch': (history, random) =>
    replaceOperation(
      history,
      random,
      ({ outcome }) => outcome.status === 'ok' && outcome.response.type === 'txn',
      (operation) => {
        const { outcome } = operation as Answered<Extract<Response, { type: 'txn' }>>;
        return { ...operation, outcome: { ...outcome, response: { ...outcome.response, succeeded: !outcome.response.succeeded } } };
      },
    ),
  'a delete counts wrongly': (history, random) =>
    replaceOperation(
      history,
      random,
      ({ outcome }) => outcome.status === 'ok' && outcome.response.type === 'deleteRange' && outcome.response.deleted > 0,
      (operation) => {
        const { outcome } = operation as Answered<Extract<Response, { type: 'deleteRange' }>>;
        return { ...operation, outcome: { ...outcome, response: { ...outcome.response, deleted: outcome.response.deleted + 1 } } };
      },
    ),
  'a linearizable read is old': (history, random, model) => {
    const timeline = new Timeline(history);
    return replaceOperation(
      history,
      random,
      (operation) => isRead(operation) && !mayBeStale(operation.request) && timeline.shownBefore(operation.call) > model.firstRevision + 3,
      (operation) => {
        const { request, outcome } = operation as Answered<RangeResponse>;
        if (request.type !== 'range' || request.revision !== undefined) return undefined;
        const revision = timeline.shownBefore(operation.call) - 1;
        return { ...operation, outcome: { ...outcome, revision, response: model.range({ ...request, revision }) } };
      },
    );
  },
  'an old read claims to be new': (history, random, model) =>
    replaceOperation(
      history,
      random,
      ({ request, outcome }) =>
        request.type === 'range' && request.revision === undefined && outcome.status === 'ok' && outcome.revision > 12,
      (operation) => {
        const { request, outcome } = operation as Answered<RangeResponse>;
        if (request.type !== 'range') return undefined;
        const response = model.range({ ...request, revision: outcome.revision - 10 });
        return JSON.stringify(response) === JSON.stringify(outcome.response)
          ? undefined
          : { ...operation, outcome: { ...outcome, response } };
      },
    ),
};

const isAnsweredPut = ({ outcome }: Operation): boolean => outcome.status === 'ok' && outcome.response.type === 'put';

function replaceOperation(
  history: History,
  random: Random,
  mayBreak: (operation: Operation) => boolean,
  change: (operation: Operation) => Operation | 'drop' | undefined,
): History | undefined {
  const at = pickPlace(history.operations, random, (operation) => mayBreak(operation) && change(operation) !== undefined);
  if (at === undefined) return undefined;
  const changed = change(history.operations[at] as Operation) as Operation | 'drop';
  return { ...history, operations: history.operations.toSpliced(at, 1, ...(changed === 'drop' ? [] : [changed])) };
}

/** Breaks a watch at one of its messages of events. */
function inEvents(
  mayBreak: (message: Told, watch: Watch) => boolean,
  change: (message: Told, random: Random, watch: Watch) => readonly WatchMessage[],
): Breakage {
  return replaceMessage(
    (message, watch) => message.type === 'events' && message.isFragment !== true && mayBreak(message, watch),
    (message, random, watch) => change(message as Told, random, watch),
  );
}

function replaceMessage(
  mayBreak: (message: WatchMessage, watch: Watch, at: number) => boolean,
  change: (message: WatchMessage, random: Random, watch: Watch) => readonly WatchMessage[],
): Breakage {
  return (history, random) => {
    const places = history.watches.flatMap((watch, of) =>
      watch.messages.flatMap((message, at) => (mayBreak(message, watch, at) ? [{ of, at, message, watch }] : [])),
    );
    if (places.length === 0) return undefined;
    const { of, at, message, watch } = random.pick(places);
    const messages = watch.messages.toSpliced(at, 1, ...change(message, random, watch));
    return { ...history, watches: history.watches.with(of, { ...watch, messages }) };
  };
}

const revisionsOf = (events: readonly WatchEvent[]): number[] => [...new Set(events.map((event) => event.kv.modRevision))];

/** Events of one revision that are not all of the message's. */
const manyAtOnce = ({ events }: Told): boolean => revisionsOf(events).length < events.length;

const precededByFragment = (message: Told, watch: Watch): boolean => {
  const before = watch.messages[watch.messages.indexOf(message) - 1];
  return before?.type === 'events' && before.isFragment === true;
};

/** What can be wrong with watches. */
export const brokenWatches: Readonly<Record<string, Breakage>> = {
  'an event is lost': inEvents(
    ({ events }) => events.length > 1,
    (message, random) => {
      const events = message.events.toSpliced(random.below(message.events.length), 1);
      return events.length === 0 ? [] : [{ ...message, events }];
    },
  ),
  'a message is lost': inEvents(
    // Nobody can miss what would have come last.
    (message, watch) => watch.messages.slice(watch.messages.indexOf(message) + 1).some((later) => later.type === 'events'),
    () => [],
  ),
  'a message is told twice': inEvents(
    () => true,
    (message) => [message, message],
  ),
  'an event is told twice': inEvents(
    () => true,
    (message) => [{ ...message, events: [...message.events, message.events.at(-1) as WatchEvent] }],
  ),
  'revisions are told out of order': inEvents(
    ({ events }) => revisionsOf(events).length > 1,
    (message) => [{ ...message, events: message.events.toReversed() }],
  ),
  'events of one revision are told out of order': inEvents(
    (message, watch) => manyAtOnce(message) && !precededByFragment(message, watch),
    (message) => {
      const last = message.events.findLastIndex((event, at) => event.kv.modRevision === message.events[at - 1]?.kv.modRevision);
      const [before, after] = [message.events[last - 1] as WatchEvent, message.events[last] as WatchEvent];
      return [{ ...message, events: message.events.toSpliced(last - 1, 2, after, before) }];
    },
  ),
  'a revision is told in two parts': inEvents(
    (message, watch) => manyAtOnce(message) && !precededByFragment(message, watch),
    (message) => {
      const last = message.events.findLastIndex((event, at) => event.kv.modRevision === message.events[at - 1]?.kv.modRevision);
      return [
        { ...message, events: message.events.slice(0, last) },
        { ...message, events: message.events.slice(last) },
      ];
    },
  ),
  'an event has a wrong value': inEvents(
    ({ events }) => events.some((event) => event.type === 'put'),
    (message) => {
      const at = message.events.findIndex((event) => event.type === 'put');
      const event = message.events[at] as WatchEvent;
      return [{ ...message, events: message.events.with(at, { ...event, kv: { ...event.kv, value: 'never' } }) }];
    },
  ),
  'a deletion is told as a put': inEvents(
    ({ events }) => events.some((event) => event.type === 'delete'),
    (message) => {
      const at = message.events.findIndex((event) => event.type === 'delete');
      return [{ ...message, events: message.events.with(at, { ...(message.events[at] as WatchEvent), type: 'put' }) }];
    },
  ),
  'a previous key-value is wrong': inEvents(
    ({ events }) => events.some((event) => event.prevKv !== undefined),
    (message) => {
      const at = message.events.findIndex((event) => event.prevKv !== undefined);
      const event = message.events[at] as WatchEvent;
      return [{ ...message, events: message.events.with(at, { ...event, prevKv: { ...(event.prevKv as KeyValue), version: 99 } }) }];
    },
  ),
  'a previous key-value is told to a watch that did not ask': inEvents(
    (_message, watch) => watch.request.prevKv !== true,
    (message) => [{ ...message, events: message.events.map((event) => ({ ...event, prevKv: event.kv })) }],
  ),
  'an event passes the filter': inEvents(
    (_message, watch) => watch.request.ignore !== undefined,
    (message, _random, watch) => {
      const [first, ...rest] = message.events as [WatchEvent, ...WatchEvent[]];
      return [{ ...message, events: [{ ...first, type: watch.request.ignore as 'put' | 'delete' }, ...rest] }];
    },
  ),
  'an event is of a key outside': inEvents(
    (_message, watch) => watch.request.end !== '\0',
    (message) => {
      const [first, ...rest] = message.events as [WatchEvent, ...WatchEvent[]];
      return [{ ...message, events: [{ ...first, kv: { ...first.kv, key: 'elsewhere' } }, ...rest] }];
    },
  ),
  'a fragment nobody asked for': inEvents(
    (_message, watch) => watch.request.fragment !== true,
    (message) => [{ ...message, isFragment: true }],
  ),
  'events come before the watch was created': replaceMessage(
    (message, watch, at) => message.type === 'created' && watch.messages[at + 1]?.type === 'events',
    () => [],
  ),
  'an event is newer than its header': inEvents(
    () => true,
    (message) => [{ ...message, revision: (message.events.at(-1) as WatchEvent).kv.modRevision - 1 }],
  ),
  'events come after the end': inEvents(
    () => true,
    (message) => [{ type: 'canceled', time: message.time, revision: 0 }, message],
  ),
  'events come that are below the start': inEvents(
    (_message, watch) =>
      watch.request.startRevision === undefined && watch.messages.filter((message) => message.type === 'events').length > 3,
    (message) => [message, { ...message, events: message.events.map((event) => ({ ...event, kv: { ...event.kv, modRevision: 1 } })) }],
  ),
  'progress is told before the events': replaceMessage(
    (message, watch, at) => message.type === 'events' && message.isFragment !== true && watch.messages[at - 1]?.type !== 'events',
    (message) => [{ type: 'progress', time: message.time, revision: (message as Told).revision }, message],
  ),
  'progress goes back': replaceMessage(
    (message, watch) => message.type === 'progress' && message.revision > (watch.request.startRevision ?? 0),
    (message) => [message, { ...(message as Extract<WatchMessage, { type: 'progress' }>), revision: 1 }],
  ),
  'a watch is cancelled for a compaction it was not behind': inEvents(
    (_message, watch) => !['closed', 'canceled'].includes(watch.messages.at(-1)?.type ?? ''),
    (message) => [message, { type: 'canceled', time: message.time, revision: 0, compactRevision: 2 }],
  ),
  'a continued watch leaves a revision out': (history, random) => {
    const at = pickPlace(history.watches, random, (watch) => watch.resumes !== undefined && toldAtStart(watch) !== undefined);
    if (at === undefined) return undefined;
    const watch = history.watches[at] as Watch;
    const first = toldAtStart(watch) as number;
    const messages = watch.messages.flatMap((message): WatchMessage[] => {
      if (message.type !== 'events') return [message];
      const events = message.events.filter((event) => event.kv.modRevision !== first);
      return events.length === 0 ? [] : [{ ...message, events }];
    });
    return {
      ...history,
      watches: history.watches.with(at, { ...watch, request: { ...watch.request, startRevision: first + 1 }, messages }),
    };
  },
  'a continued watch begins again': (history, random) => {
    const at = pickPlace(history.watches, random, (watch) => {
      const before = history.watches.find((other) => other.id === watch.resumes);
      return (
        before !== undefined && lastTold(before) !== undefined && before.messages.filter((message) => message.type === 'events').length > 1
      );
    });
    if (at === undefined) return undefined;
    const watch = history.watches[at] as Watch;
    const before = history.watches.find((other) => other.id === watch.resumes) as Watch;
    const again = before.messages.filter((message) => message.type === 'events').at(-1) as Told;
    const startRevision = Math.min(...again.events.map((event) => event.kv.modRevision));
    const [created, ...rest] = watch.messages as [WatchMessage, ...WatchMessage[]];
    if (again.isFragment === true || precededByFragment(again, before)) return undefined;
    const messages = [created, { ...again, time: created.time }, ...rest];
    return { ...history, watches: history.watches.with(at, { ...watch, request: { ...watch.request, startRevision }, messages }) };
  },
};

const toldAtStart = (watch: Watch): number | undefined =>
  watch.messages.flatMap((message) => (message.type === 'events' ? message.events : []))[0]?.kv.modRevision;

const lastTold = (watch: Watch): number | undefined =>
  watch.messages.flatMap((message) => (message.type === 'events' ? message.events : [])).at(-1)?.kv.modRevision;

function pickPlace<T>(items: readonly T[], random: Random, mayBreak: (item: T) => boolean): number | undefined {
  const places = items.flatMap((item, at) => (mayBreak(item) ? [at] : []));
  return places.length === 0 ? undefined : random.pick(places);
}
