import type { MemberId, PeerMessage, Raft } from '@conclave/raft';
import type { Loop } from './loop.ts';
import type { ReplicaOptions } from './options.ts';
import { Outbox } from './outbox.ts';
import { PeerCalls } from './peer-calls.ts';
import { PeerGuard } from './peer-guard.ts';
import type { PeerEvent, PeerFrame, PeerPacket } from './ports.ts';
import { SnapshotReceiver } from './snapshot-receiver.ts';
import { SnapshotTransfers } from './snapshot-transfers.ts';

export interface PeerDoorOptions<R> {
  readonly replica: ReplicaOptions<R>;
  readonly raft: Raft;
  readonly loop: Loop;
  readonly electionTicks: number;
  /** A member says that this one was removed. */
  readonly onRemoved: () => void;
}

/** Each member hears from each other at least this often, in ticks. */
const greetingTicks = 5;

/** Between this member and the others: what comes goes to whom it concerns, unless the sender has no say any more, and what is to be said leaves here. */
export class PeerDoor<R> {
  readonly calls: PeerCalls;
  /** Absent where there are no snapshots to be had. */
  readonly transfers: SnapshotTransfers | undefined;
  readonly #receiver: SnapshotReceiver | undefined;
  readonly #options: PeerDoorOptions<R>;
  readonly #outbox: Outbox;
  readonly #guard: PeerGuard;
  #ticks = 0;
  #isClosed = false;

  constructor(options: PeerDoorOptions<R>) {
    const { replica, raft, loop, electionTicks } = options;
    const { runtime, id: self, peers, snapshots, memory } = replica;
    const { drive: later } = loop;
    const guard = new PeerGuard({ runtime, memory, lateTicks: 2 * electionTicks });
    let durableIndex = raft.durableIndex;
    const outbox = new Outbox({
      peers: peers ?? { send: () => undefined },
      vitals: () => {
        // While a snapshot takes the place of the log, the log is still on the disk, with all that others saw of it.
        if (!raft.isRestoring) durableIndex = raft.durableIndex;
        return { from: self, incarnation: memory?.incarnation ?? 1, durableIndex, commitIndex: raft.commitIndex };
      },
      isRefused: (member) => guard.isRefused(member),
    });
    const send = (to: MemberId, frame: PeerFrame): void => outbox.add(to, frame);
    this.#options = options;
    this.#guard = guard;
    this.#outbox = outbox;
    this.calls = new PeerCalls({ runtime, send, later });
    if (snapshots === undefined) return;
    this.transfers = new SnapshotTransfers({ runtime, snapshots, raft, send, later, electionTicks });
    this.#receiver = new SnapshotReceiver({ runtime, self, snapshots, raft, send, later });
  }

  /** Hears the others from now on. */
  open(): void {
    const { replica, loop } = this.#options;
    replica.peers?.listen((event) => {
      if (!this.#isClosed) loop.take(() => this.#received(event));
    });
    this.#greet();
  }

  /** This member takes part no more. */
  close(): void {
    this.#isClosed = true;
  }

  send(messages: readonly PeerMessage[]): void {
    for (const message of messages) this.#outbox.add(message.to, { kind: 'raft', message });
  }

  /** Sends what there is, in one packet for each member. */
  flush(): void {
    this.#outbox.flush();
  }

  #received(event: PeerEvent): void {
    if (event.kind === 'packet') {
      this.#receivePacket(event.packet);
    } else {
      this.#options.raft.step({ type: 'unreachable', member: event.member });
      this.calls.unreachable(event.member);
    }
  }

  #receivePacket(packet: PeerPacket): void {
    const { id, isRemoved } = this.#options.replica;
    const { from, to, frames } = packet;
    if (to !== id) return;
    if (isRemoved?.(from) === true) this.#outbox.add(from, { kind: 'removed' });
    else if (this.#guard.admits(packet)) for (const frame of frames) this.#receiveFrame(from, frame);
  }

  #receiveFrame(from: MemberId, frame: PeerFrame): void {
    switch (frame.kind) {
      case 'raft':
        if (frame.message.from === from) this.#options.raft.step(frame.message);
        break;
      case 'snapshotChunk':
        this.#receiver?.received(from, frame);
        break;
      case 'snapshotAck':
        this.transfers?.acknowledged(from, frame);
        break;
      case 'call':
        this.calls.called(from, frame);
        break;
      case 'answer':
        this.calls.answered(from, frame);
        break;
      case 'removed':
        this.#options.onRemoved();
        break;
    }
  }

  tick(): void {
    const { durableIndex } = this.#options.replica.stateMachine;
    this.calls.expire();
    this.transfers?.tick(durableIndex);
    this.#guard.tick();
    this.#ticks += 1;
    if (this.#ticks % greetingTicks === 0 && !this.#isClosed) this.#greet();
  }

  /** Followers have nothing to say to each other. Without this they would not notice that one came back with less than it had. */
  #greet(): void {
    const { voters, learners } = this.#options.raft.confState;
    for (const member of [...voters, ...learners]) if (member !== this.#options.replica.id) this.#outbox.greet(member);
  }

  /** The member stops. */
  end(): void {
    this.calls.abandon();
    this.transfers?.end();
    this.#receiver?.end();
  }
}
