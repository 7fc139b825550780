import type { CrashPolicy } from './crash-policy.ts';

const sectorBytes = 512;
const blockBytes = 4096;

/** Bytes that grow. A copy shares them with its original until either is written to: most copies never are. */
class Image {
  #bytes = new Uint8Array(0);
  #isShared = false;
  size = 0;

  write(offset: number, bytes: Uint8Array): void {
    const end = offset + bytes.length;
    if (this.#isShared || end > this.#bytes.length) this.#reserve(end);
    this.#bytes.set(bytes, offset);
    this.size = Math.max(this.size, end);
  }

  read(offset: number, length: number): Uint8Array {
    return this.#bytes.slice(Math.min(offset, this.size), Math.min(offset + length, this.size));
  }

  copy(): Image {
    const copy = new Image();
    copy.#bytes = this.#bytes;
    copy.size = this.size;
    copy.#isShared = true;
    this.#isShared = true;
    return copy;
  }

  #reserve(end: number): void {
    const own = new Uint8Array(end > this.#bytes.length ? Math.max(end, this.size * 2) : this.#bytes.length);
    own.set(this.#bytes.subarray(0, this.size));
    this.#bytes = own;
    this.#isShared = false;
  }
}

interface Write {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** One file of a simulated disk: what is durable, what can be read, and the writes that make the difference. */
export class Inode {
  #visible = new Image();
  #durable = new Image();
  #unflushed: Write[] = [];
  /** Writes whose flush failed, in pieces of a sector: a kernel holds them for clean, and no flush brings them to the disk before they are written again. */
  #abandoned: Write[] = [];

  get size(): number {
    return this.#visible.size;
  }

  visible(): Uint8Array {
    return this.#visible.read(0, this.#visible.size);
  }

  read(offset: number, length: number): Uint8Array {
    return this.#visible.read(offset, length);
  }

  write(offset: number, bytes: Uint8Array): void {
    // Not slice(): of a Buffer that is a view, and the caller's bytes change after the flush.
    const write = { offset, bytes: new Uint8Array(bytes) };
    this.#visible.write(offset, write.bytes);
    this.#unflushed.push(write);
  }

  sync(): void {
    if (this.#abandoned.length > 0) this.#recover();
    for (const { offset, bytes } of this.#unflushed) this.#durable.write(offset, bytes);
    this.#unflushed = [];
  }

  failSync(): void {
    this.#abandoned.push(...this.#unflushed.flatMap(piecesOf));
    this.#unflushed = [];
  }

  /** Sectors are flushed whole: what was given up in one that was written again goes along. */
  #recover(): void {
    const sectors = new Set(this.#unflushed.flatMap(piecesOf).map(sectorOf));
    for (const write of this.#abandoned) if (sectors.has(sectorOf(write))) this.#durable.write(write.offset, write.bytes);
    this.#abandoned = this.#abandoned.filter((write) => !sectors.has(sectorOf(write)));
  }

  overwrite(offset: number, bytes: Uint8Array): void {
    this.#visible.write(offset, bytes);
    this.#durable.write(offset, bytes);
  }

  /** Afterwards only what is durable is left, and what `policy` saved or spoilt of the rest. */
  crash(path: string, policy: CrashPolicy): void {
    for (const write of [...this.#abandoned, ...this.#unflushed]) this.#tear(path, write, policy);
    this.#abandoned = [];
    this.#unflushed = [];
    this.#visible = this.#durable.copy();
  }

  fork(): Inode {
    const copy = new Inode();
    copy.#visible = this.#visible.copy();
    copy.#durable = this.#durable.copy();
    copy.#unflushed = [...this.#unflushed];
    copy.#abandoned = [...this.#abandoned];
    return copy;
  }

  #tear(path: string, write: Write, policy: CrashPolicy): void {
    const end = write.offset + write.bytes.length;
    for (let sector = write.offset - (write.offset % sectorBytes); sector < end; sector += sectorBytes) {
      const from = Math.max(sector, write.offset);
      const fate = policy.sector(path, sector);
      if (fate === 'keep') this.#durable.write(from, write.bytes.subarray(from - write.offset, sector + sectorBytes - write.offset));
      else if (fate === 'garbage') this.#durable.write(sector, policy.garbage(sectorBytes));
      else if (fate === 'shred') this.#durable.write(sector - (sector % blockBytes), policy.garbage(blockBytes));
    }
  }
}

const sectorOf = ({ offset }: Write): number => Math.floor(offset / sectorBytes);

function piecesOf({ offset, bytes }: Write): Write[] {
  const pieces: Write[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Math.min(bytes.length - at, sectorBytes - ((offset + at) % sectorBytes));
    pieces.push({ offset: offset + at, bytes: bytes.subarray(at, at + length) });
    at += length;
  }
  return pieces;
}

/** What a name stands for. */
export type Node = Inode | Folder;

/** A change to the names of a folder. */
interface NameChange {
  readonly removed: string | undefined;
  readonly entered: string | undefined;
  readonly node: Node;
}

/** One folder of a simulated disk: the names that are durable, those that can be seen, and the changes between. */
export class Folder {
  #visible = new Map<string, Node>();
  #durable = new Map<string, Node>();
  #changes: NameChange[] = [];

  get(name: string): Node | undefined {
    return this.#visible.get(name);
  }

  names(): string[] {
    return [...this.#visible.keys()];
  }

  enter(name: string, node: Node): void {
    this.#change({ removed: undefined, entered: name, node });
  }

  remove(name: string, node: Node): void {
    this.#change({ removed: name, entered: undefined, node });
  }

  rename(from: string, to: string, node: Node): void {
    this.#change({ removed: from, entered: to, node });
  }

  sync(): void {
    this.#durable = new Map(this.#visible);
    this.#changes = [];
  }

  /** Each change on its own is kept or lost, a rename as one. */
  crash(path: string, policy: CrashPolicy): void {
    for (const change of this.#changes) {
      if (policy.keepsName(`${path}/${change.entered ?? change.removed}`)) apply(this.#durable, change);
    }
    this.#changes = [];
    this.#visible = new Map(this.#durable);
    for (const [name, node] of this.#durable) node.crash(`${path}/${name}`, policy);
  }

  /** `copies` keeps a node that has several names, durable and visible ones, one node. */
  fork(copies: Map<Node, Node> = new Map()): Folder {
    const copy = new Folder();
    const forked = (node: Node): Node => {
      const known = copies.get(node);
      const made = known ?? (node instanceof Folder ? node.fork(copies) : node.fork());
      copies.set(node, made);
      return made;
    };
    copy.#visible = new Map([...this.#visible].map(([name, node]) => [name, forked(node)]));
    copy.#durable = new Map([...this.#durable].map(([name, node]) => [name, forked(node)]));
    copy.#changes = this.#changes.map((change) => ({ ...change, node: forked(change.node) }));
    return copy;
  }

  #change(change: NameChange): void {
    apply(this.#visible, change);
    this.#changes.push(change);
  }
}

function apply(names: Map<string, Node>, { removed, entered, node }: NameChange): void {
  if (removed !== undefined && names.get(removed) === node) names.delete(removed);
  if (entered !== undefined) names.set(entered, node);
}
