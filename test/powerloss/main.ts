// `npm run powerloss`: cuts the power under a real server on a real file system, at random instants, and looks at what is left.
import { copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ProcessFaults } from '@conclave/testkit';
import { ImageStore, whyNot } from './crash-disk.ts';
import { Lane, Loss, type Stage } from './lane.ts';
import { Cluster, LoneServer, type Subject } from './subject.ts';

const { values } = parseArgs({
  options: {
    images: { type: 'string', default: '400' },
    lanes: { type: 'string', default: '2' },
    /** Share of the images that are of a cluster of three which loses its power as a whole. */
    clusters: { type: 'string', default: '0.08' },
    help: { type: 'boolean', default: false },
  },
});

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(1));

interface Plan {
  readonly what: string;
  readonly images: number;
  /** Done at once, each on a disk of its own. */
  readonly lanes: number;
  readonly subject: (dir: string) => Subject;
}

interface Coverage {
  readonly recycled: number;
  readonly hasInstalled: boolean;
}

/** Checks that many images, and says what was done. @throws Loss */
async function prove(store: ImageStore, { what, images, lanes: laneCount, subject }: Plan): Promise<Coverage> {
  const startedAt = performance.now();
  const stages = new Map<Stage, number>();
  let left = images;
  const goOn = (stage: Stage): boolean => {
    if (left-- <= 0) return false;
    stages.set(stage, (stages.get(stage) ?? 0) + 1);
    return true;
  };
  const lanes = Array.from({ length: laneCount }, () => new Lane({ store, subject, goOn }));
  try {
    await Promise.all(lanes.map((lane) => lane.run()));
  } finally {
    left = 0;
    await Promise.all(lanes.map((lane) => lane[Symbol.asyncDispose]()));
  }
  const sum = (of: (lane: Lane) => number): number => lanes.reduce((total, lane) => total + of(lane), 0);
  const shown = [...stages].map(([stage, count]) => `${count} during ${stage}`).join(', ');
  say(`${what}: ${images} images (${shown}) in ${((performance.now() - startedAt) / 1000).toFixed(0)} s`);
  say(`  ${sum(({ report }) => report.steps)} acknowledged changes in ${sum(({ report }) => report.lives)} lives, nothing lost`);
  const recycled = sum(({ report }) => report.recycled);
  const hasInstalled = lanes.some(({ report }) => report.hasInstalled);
  say(`  ${recycled} segments of the log were seen in use again${hasInstalled ? ', and states of others put in place' : ''}`);
  return { recycled, hasInstalled };
}

/** A server whose flushes do nothing must be caught, or nothing here means anything. */
async function proveTeeth(store: ImageStore): Promise<void> {
  using faults = new ProcessFaults();
  faults.set([{ on: 'sync', path: '/wal/', action: 'skip' }]);
  try {
    await prove(store, {
      what: 'a server that does not flush its log',
      images: 30,
      lanes: Number(values.lanes),
      subject: (dir) => new LoneServer({ dir, environment: faults.environment }),
    });
  } catch (error) {
    if (!(error instanceof Loss)) throw error;
    say(`a server that does not flush its log is caught: ${error.message.split('\n')[0]}`);
    return;
  }
  throw new Error('a server that does not flush its log was not caught: this rig finds nothing');
}

const stateFlushMs = 300;
/** Putting a whole state in place takes a flush for every few of its megabytes, and is to end within the time that a start may take. */
const stateFlushInClusterMs = 50;
/** For something to be said about what happens now and then only. */
const enoughImages = 300;

async function main(): Promise<void> {
  const reason = whyNot();
  if (reason !== undefined) {
    say(`powerloss: skipped, ${reason}`);
    return;
  }
  using store = new ImageStore();
  await proveTeeth(store);
  const images = Number(values.images);
  const ofClusters = Math.round(images * Number(values.clusters));
  // On ext4 one file's flush often takes others' names along: the state's come late, so that the log has to stand for itself.
  using faults = new ProcessFaults();
  faults.set([{ on: 'sync', path: '/state/', action: 'delay', ms: stateFlushMs }]);
  const { environment } = faults;
  try {
    const alone = await prove(store, {
      what: 'one member',
      images: images - ofClusters,
      lanes: Number(values.lanes),
      subject: (dir) => new LoneServer({ dir, environment }),
    });
    if (images >= enoughImages && alone.recycled === 0) throw new Error('invalid: no segment of the log was used again');
    if (ofClusters === 0) return;
    faults.set([{ on: 'sync', path: '/state/', action: 'delay', ms: stateFlushInClusterMs }]);
    const together = await prove(store, {
      what: 'three members at once',
      images: ofClusters,
      // Three members that are brought whole states are busy enough.
      lanes: 1,
      subject: (dir) => new Cluster(3, { dir, environment }),
    });
    if (images >= enoughImages && !together.hasInstalled) throw new Error('invalid: no member was ever brought a whole state');
  } catch (error) {
    if (error instanceof Loss) say(`kept for a closer look: ${keep(error.image)}`);
    throw error;
  }
}

function keep(image: string): string {
  const dir = '.cache/powerloss';
  mkdirSync(dir, { recursive: true });
  const kept = join(dir, `${Date.now()}.ext4`);
  copyFileSync(image, kept);
  return kept;
}

if (values.help) say('npm run powerloss -- [--images 400] [--lanes 2] [--clusters 0.08]');
else await main();
