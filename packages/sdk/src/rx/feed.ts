import { Observable } from 'rxjs';
import { EventQueue, type QueueBounds, type Source } from '../watch/event-queue.ts';
import { type MappedSource, mappedSource } from './mapped-source.ts';

/** What stands behind a {@link Feed}: it can be ended, and held back while a loop is slow. */
export type FeedSource = Source;

/** Where a {@link Feed} gets its values. The callbacks may be called at once; after `error` or `complete` nothing is. */
export interface FeedSink<T> {
  next(value: T): void;
  error(error: unknown): void;
  complete(): void;
}

/**
 * An rxjs Observable that also iterates with `for await`, and that can be closed as a whole.
 *
 * Each subscription and each loop opens the source anew. A subscriber is called as things come; a loop is given them one by one, and the
 * source is held back while too many wait.
 *
 * @example
 * ```ts
 * const changes = client.watch(prefix('config/'));
 * changes.subscribe((event) => console.log(event.key));
 * changes.close(); // completes every subscription and loop
 * ```
 */
export class Feed<T> extends Observable<T> implements AsyncIterable<T>, AsyncDisposable {
  readonly #open: (sink: FeedSink<T>) => Source;
  readonly #bounds: QueueBounds<T>;
  /** What subscriptions and loops draw from, with how to complete each. One collection for both: there may be very many feeds. */
  readonly #active = new Map<Source, () => void>();

  /** @internal */
  constructor(open: (sink: FeedSink<T>) => Source, bounds: QueueBounds<T>) {
    super((subscriber) => {
      const source = open(subscriber);
      this.#active.set(source, () => subscriber.complete());
      return () => {
        this.#active.delete(source);
        source.cancel();
      };
    });
    this.#open = open;
    this.#bounds = bounds;
  }

  [Symbol.asyncIterator](): AsyncIterator<T, undefined> {
    const queue = new EventQueue<T>(this.#bounds);
    let source: Source | undefined;
    const end = (ending?: { error: unknown }): void => {
      if (source !== undefined) this.#active.delete(source);
      queue.end(ending);
    };
    const close = (): void => {
      end();
      source?.cancel();
    };
    let isEnded = false;
    source = this.#open({
      next: (value) => queue.push(value),
      error: (error) => {
        isEnded = true;
        end({ error });
      },
      complete: () => {
        isEnded = true;
        end();
      },
    });
    // It may have ended while it was opened.
    if (!isEnded) this.#active.set(source, close);
    const { pause, resume } = source;
    queue.attach({ pause: pause.bind(source), resume: resume.bind(source), cancel: close });
    return queue;
  }

  /** What is being drawn from. */
  protected get sources(): readonly Source[] {
    return [...this.#active.keys()];
  }

  /** @internal Opens a source as a subscription does. It is to be cancelled also after it has ended. */
  draw(sink: FeedSink<T>): Source {
    const source = this.#open(sink);
    this.#active.set(source, () => sink.complete());
    return {
      cancel: () => {
        this.#active.delete(source);
        source.cancel();
      },
      pause: () => source.pause(),
      resume: () => source.resume(),
    };
  }

  /** Ends every subscription and loop as completed. */
  close(): void {
    for (const close of [...this.#active.values()]) close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

/**
 * A feed with something else in place of each value, in the same order. What `map` throws ends it, and its source.
 *
 * A loop over it maps what it asks for when it asks for it: what waits, and is bounded, is what the source told.
 */
export class MappedFeed<T, U> extends Feed<U> {
  readonly #source: Feed<T>;
  readonly #map: (value: T) => U | Promise<U>;

  /** @internal */
  constructor(source: Feed<T>, map: (value: T) => U | Promise<U>) {
    super(
      mappedSource((sink) => source.draw(sink), map),
      { countMax: Number.POSITIVE_INFINITY },
    );
    this.#source = source;
    this.#map = map;
  }

  override [Symbol.asyncIterator](): AsyncIterator<U, undefined> {
    const values = this.#source[Symbol.asyncIterator]();
    const end = async (): Promise<IteratorReturnResult<undefined>> => {
      await values.return?.();
      return { done: true, value: undefined };
    };
    const next = async (): Promise<IteratorResult<U, undefined>> => {
      const step = await values.next();
      if (step.done === true) return step;
      try {
        return { done: false, value: await this.#map(step.value) };
      } catch (error) {
        await end();
        throw error;
      }
    };
    return { next, return: end };
  }

  /** Resolves when subscribers were told all that has come so far. */
  protected async told(): Promise<void> {
    await Promise.all((this.sources as readonly MappedSource[]).map((source) => source.told()));
  }

  override close(): void {
    super.close();
    this.#source.close();
  }
}
