import { within } from '@conclave/testkit';
import type { CrashDisk, ImageStore } from './crash-disk.ts';
import { type Bounds, Ledger } from './ledger.ts';
import { RecycledSegments, type Subject } from './subject.ts';

/** What was going on when the power went. */
export type Stage = 'first start' | 'load' | 'restart' | 'after a kill';

interface Image {
  readonly path: string;
  readonly stage: Stage;
  readonly bounds: Bounds;
}

export interface LaneOptions {
  readonly store: ImageStore;
  readonly subject: (dir: string) => Subject;
  /** Called before each image is checked; false: enough. */
  readonly goOn: (stage: Stage) => boolean;
}

export interface LaneReport {
  readonly steps: number;
  readonly recycled: number;
  readonly lives: number;
  readonly hasInstalled: boolean;
}

/** An image that does not hold what it must. */
export class Loss extends Error {
  /** Where it is kept. */
  readonly image: string;

  constructor(stage: Stage, image: string, cause: unknown) {
    super(`power lost during ${stage}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    this.image = image;
  }
}

const cutsPerLife = 8;
const freshEvery = 3;

/** One disk that loses its power again and again. */
export class Lane implements AsyncDisposable {
  readonly #options: LaneOptions;
  readonly #disk: CrashDisk;
  readonly #segments = new RecycledSegments();
  #subject: Subject;
  #ledger = new Ledger(0);
  #steps = 0;
  #lives = 0;
  #startMs = 500;
  #hasInstalled = false;

  constructor(options: LaneOptions) {
    this.#options = options;
    this.#disk = options.store.newDisk();
    this.#subject = options.subject(this.#disk.path);
  }

  get report(): LaneReport {
    const hasInstalled = this.#hasInstalled || this.#subject.hasInstalled;
    return { steps: this.#steps + this.#ledger.total, recycled: this.#segments.count, lives: this.#lives, hasInstalled };
  }

  /** Lives until it is told that it was enough. @throws Loss */
  async run(): Promise<void> {
    for (;;) {
      const images = await this.#live();
      let last: Bounds | undefined;
      for (let image = images.shift(); image !== undefined; image = images.shift()) {
        if (!this.#options.goOn(image.stage)) return;
        const { found, more } = await this.#verify(image);
        last = found;
        images.push(...more);
      }
      // The next life begins on the image seen last, as it is: it stays mounted.
      if (last !== undefined) this.#ledger.goOnFrom(last);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#subject[Symbol.asyncDispose]();
    this.#disk.unmount();
  }

  /** From a start to a kill. The images were taken on the way. */
  async #live(): Promise<Image[]> {
    const images: Image[] = [];
    if (this.#lives++ % freshEvery === 0) await this.#beginAnew(images);
    else await this.#start();
    await this.#load(images);
    // What was not flushed is still in the page cache: it is served again, and must be there for good once it was.
    await this.#subject.kill();
    await this.#start();
    const seen = await this.#check(this.#ledger.now);
    images.push({ ...(await this.#cut('after a kill')), bounds: seen });
    this.#ledger.goOnFrom(seen);
    await this.#subject.kill();
    return images;
  }

  /** On a new disk, by a new member or cluster, whose first start already may lose its power. */
  async #beginAnew(images: Image[]): Promise<void> {
    this.#steps += this.#ledger.total;
    // Every other one comes to the biggest segments of the log.
    this.#ledger = new Ledger(this.#lives % 2 === 0 ? 3 : 1);
    this.#hasInstalled ||= this.#subject.hasInstalled;
    await this.#subject[Symbol.asyncDispose]();
    this.#disk.format();
    this.#segments.forget();
    this.#subject = this.#options.subject(this.#disk.path);
    await this.#startAndCut('first start', images);
  }

  async #load(images: Image[]): Promise<void> {
    const clients = this.#subject.clients();
    const load = this.#ledger.write(clients);
    // Looked at below; here it must only not count as unhandled.
    load.catch(() => {});
    for (let cut = 0; cut < cutsPerLife; cut++) {
      if (cut % 2 === 1) this.#subject.disturb();
      // The first time at once: what the start has written may be all that is there.
      const steps = this.#ledger.steps(cut === 0 ? 1 : 1 + Math.floor(Math.random() * 150));
      await within('the next steps', Promise.race([steps, load]), 60_000);
      // Half of them right when something was acknowledged, half at any moment.
      if (cut > 0 && Math.random() < 0.5) await pause(Math.random() * 20);
      images.push(await this.#cut('load'));
      this.#segments.look(this.#subject.logs);
    }
    this.#ledger.stop();
    await this.#subject.kill();
    await within('the writers notice', load, 60_000);
    for (const { connection } of clients) connection.close();
  }

  async #verify(image: Image): Promise<{ found: Bounds; more: Image[] }> {
    const more: Image[] = [];
    try {
      await this.#subject.kill();
      this.#disk.mount(image.path);
      this.#segments.forget();
      // A power cut during the repair of a power cut; those that come from one are not cut again.
      if (image.stage === 'load' && Math.random() < 0.25) await this.#startAndCut('restart', more, image.bounds);
      else await this.#start();
      return { found: await this.#check(image.bounds), more };
    } catch (error) {
      await this.#subject.kill();
      throw new Loss(image.stage, await this.#disk.cut(), error);
    }
  }

  async #check(bounds: Bounds): Promise<Bounds> {
    const clients = this.#subject.clients();
    try {
      let found = bounds;
      for (const client of clients) found = await this.#ledger.check(client, found);
      await this.#subject.checkMembersAgree();
      return found;
    } finally {
      for (const { connection } of clients) connection.close();
    }
  }

  async #start(): Promise<void> {
    const startedAt = performance.now();
    await this.#subject.start();
    this.#startMs = 0.9 * this.#startMs + 0.1 * (performance.now() - startedAt);
  }

  async #startAndCut(stage: Stage, images: Image[], bounds: Bounds = this.#ledger.now): Promise<void> {
    const starting = this.#start();
    starting.catch(() => {});
    await pause(Math.random() * this.#startMs);
    images.push({ ...(await this.#cut(stage)), bounds });
    await starting;
  }

  async #cut(stage: Stage): Promise<Image> {
    const before = this.#ledger.now;
    const path = await this.#disk.cut();
    return { path, stage, bounds: { ...before, begun: this.#ledger.now.begun, compacting: this.#ledger.now.compacting } };
  }
}

/** A random instant is wanted, nothing is waited for. */
function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
