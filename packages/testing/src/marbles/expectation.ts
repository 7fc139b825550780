import type { Subscribable } from 'rxjs';
import { TestScheduler } from 'rxjs/testing';
import type { VirtualRuntime } from '../virtual-runtime.ts';
import { assertMarbles, frameMs, lengthOf, type MarbleOptions, readMarbles } from './diagram.ts';
import { Recording } from './recording.ts';

/** What the letters of a diagram of actions do. The diagram is over when all of them are. */
export type Actions = Readonly<Record<string, () => unknown>>;

export interface ExpectOptions extends MarbleOptions {
  /** What is done meanwhile: a diagram of actions, beside the one that is expected. What an action throws is thrown. Default: nothing. */
  readonly during?: readonly [marbles: string, actions: Actions] | undefined;
  /** When to subscribe, `^`, and to unsubscribe, `!`, as in rxjs: `'--^---!'`. Times of the expected diagram count from its beginning. Default: at once, until the end. */
  readonly subscription?: string | undefined;
}

/** Does what {@link TestCluster.expectMarbles} says, while somebody else moves the time. */
export async function expectMarbles<T>(
  time: VirtualRuntime,
  source: Subscribable<T>,
  marbles: string,
  options: ExpectOptions,
): Promise<void> {
  const { from, until } = subscriptionOf(options.subscription);
  const plan = planOf(options.during);
  const length = Math.max(lengthOf(marbles), ...plan.map(({ atMs }) => atMs + frameMs), until ?? 0, from);
  const start = time.monotonic();
  const at = (ms: number): Promise<void> => new Promise((resolve) => void time.timer(start + ms - time.monotonic(), resolve));
  const actions = plan.map(async ({ atMs, act }) => {
    await at(atMs);
    await act();
  });
  // The first failure is thrown below; until then none of them is nobody's.
  for (const action of actions) action.catch(() => undefined);
  await at(from);
  const recording = new Recording(source, time, start);
  await at(until ?? length);
  recording.stop();
  await at(length);
  await Promise.all(actions);
  assertMarbles(recording.emissions, marbles, options);
}

function planOf(during: ExpectOptions['during']): readonly { readonly atMs: number; readonly act: () => unknown }[] {
  if (during === undefined) return [];
  const [marbles, actions] = during;
  return readMarbles(marbles).map(({ letter, atMs }) => {
    const act = Object.hasOwn(actions, letter) ? actions[letter] : undefined;
    if (act === undefined) throw new TypeError(`the diagram of actions has a letter that is none: ${letter}`);
    return { atMs, act };
  });
}

function subscriptionOf(marbles: string | undefined): { readonly from: number; readonly until: number | undefined } {
  if (marbles === undefined) return { from: 0, until: undefined };
  const { subscribedFrame, unsubscribedFrame } = TestScheduler.parseMarblesAsSubscriptions(marbles, true);
  if (subscribedFrame === Number.POSITIVE_INFINITY) throw new TypeError(`a subscription begins at a ^: ${marbles}`);
  const toMs = (frame: number): number => (frame / TestScheduler.frameTimeFactor) * frameMs;
  return { from: toMs(subscribedFrame), until: unsubscribedFrame === Number.POSITIVE_INFINITY ? undefined : toMs(unsubscribedFrame) };
}
