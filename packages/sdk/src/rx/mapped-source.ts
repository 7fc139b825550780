import { concatMap, EMPTY, type ObservableInput, type Observer, of, Subject, throwError } from 'rxjs';
import type { Source } from '../watch/event-queue.ts';

/** What is drawn from, through a map. */
export interface MappedSource extends Source {
  /** Resolves when all that has come so far was told, or there is nobody to tell any more. */
  told(): Promise<void>;
}

/** No more values than this need wait for a map that takes time: then the source is held back. */
const waitingMax = 1_000;

/**
 * Opens the same source for a subscriber, with something else in place of each value, in the same order, even where that takes time. What `map`
 * throws ends it, and the source.
 */
export function mappedSource<T, U>(
  open: (sink: Observer<T>) => Source,
  map: (value: T) => U | Promise<U>,
): (sink: Observer<U>) => MappedSource {
  return (sink) => {
    // The end waits its turn, too: what came before it is told before it.
    const steps = new Subject<() => ObservableInput<U>>();
    let source: Source | undefined;
    let isEnded = false;
    let waiting = 0;
    let isPaused = false;
    const subscription = steps.pipe(concatMap((step) => step())).subscribe({
      next: (value) => {
        waiting--;
        sink.next(value);
        if (!isPaused || waiting * 2 > waitingMax) return;
        isPaused = false;
        source?.resume();
      },
      error: (error) => {
        isEnded = true;
        source?.cancel();
        sink.error(error);
      },
      complete: () => sink.complete(),
    });
    const step = (value: T): ObservableInput<U> => {
      const other = map(value);
      return other instanceof Promise ? other : of(other);
    };
    const opened = open({
      next: (value) => {
        waiting++;
        steps.next(() => step(value));
        if (isPaused || waiting < waitingMax) return;
        isPaused = true;
        source?.pause();
      },
      error: (error) => steps.next(() => throwError(() => error)),
      complete: () => steps.complete(),
    });
    source = opened;
    // It may have failed while it was opened.
    if (isEnded) opened.cancel();
    else if (isPaused) opened.pause();
    return {
      cancel: () => {
        subscription.unsubscribe();
        opened.cancel();
      },
      told: () =>
        new Promise<void>((resolve) => {
          subscription.add(resolve);
          steps.next(() => {
            subscription.remove(resolve);
            resolve();
            return EMPTY;
          });
        }),
      // Subscribers cannot ask for time.
      pause() {},
      resume() {},
    };
  };
}
