import { concatMap, type ObservableInput, type Observer, of, Subject, throwError } from 'rxjs';
import type { Source } from '../watch/event-queue.ts';

/**
 * Opens the same source with something else in place of each value, in the same order, even where that takes time. What `map` throws ends it,
 * and the source.
 */
export function mappedSource<T, U>(open: (sink: Observer<T>) => Source, map: (value: T) => U | Promise<U>): (sink: Observer<U>) => Source {
  return (sink) => {
    // The end waits its turn, too: what came before it is told before it.
    const steps = new Subject<() => ObservableInput<U>>();
    let source: Source | undefined;
    let isEnded = false;
    const subscription = steps.pipe(concatMap((step) => step())).subscribe({
      next: (value) => sink.next(value),
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
      next: (value) => steps.next(() => step(value)),
      error: (error) => steps.next(() => throwError(() => error)),
      complete: () => steps.complete(),
    });
    source = opened;
    // It may have failed while it was opened.
    if (isEnded) opened.cancel();
    return {
      cancel: () => {
        subscription.unsubscribe();
        opened.cancel();
      },
      pause: () => opened.pause(),
      resume: () => opened.resume(),
    };
  };
}
