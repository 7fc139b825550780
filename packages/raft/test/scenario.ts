/** Plays the scripts of ../testdata on members whose disks, state machines and network do what the script says. README.md there lists the commands. */
import { encodeConfChange } from '../src/conf-change.ts';
import type {
  ConfChange,
  Entry,
  HardState,
  MemberId,
  Message,
  PeerMessage,
  PeerReport,
  ProposalResult,
  Ready,
  StorageAppend,
} from '../src/types.ts';
import { emptyState, Host, type HostListener } from './host.ts';
import { confText, dataText, entriesText, entryText, memberText, messageText } from './print.ts';

type Fields = ReadonlyMap<string, string>;
type Command = (host: Host, words: readonly string[], fields: Fields) => void;

export class Scenario implements HostListener {
  readonly #hosts: Map<MemberId, Host> = new Map();
  /** Messages under way, oldest first. */
  #wire: PeerMessage[] = [];
  /** Pairs "from->to" that do not reach each other. */
  readonly #cut: Set<string> = new Set();
  #lines: string[] = [];

  /** @returns what the command printed. */
  run(line: string): readonly string[] {
    this.#lines = [];
    const words = line.split(/\s+/);
    const isForOne = /^\d+$/.test(words[0]!);
    const hosts = isForOne ? [this.#host(BigInt(words.shift()!))] : [...this.#hosts.values()];
    const [command = '', ...rest] = words;
    try {
      this.#run(command, rest, isForOne || hosts.length === 1 ? hosts[0] : undefined);
    } catch (error) {
      if (!(error instanceof Error && error.name === 'InvariantError')) throw error;
      this.#lines.push(`stopped: ${error.message}`);
    }
    return this.#lines;
  }

  #run(command: string, words: readonly string[], host: Host | undefined): void {
    const fields: Fields = new Map(words.map((word) => [word.split('=')[0]!, word.split('=').slice(1).join('=')]));
    const ofAll = this.#commandsOfAll[command];
    const ofOne = this.#commandsOfOne[command];
    if (ofAll && (!ofOne || !host)) ofAll(words, fields);
    else if (ofOne && host) ofOne(host, words, fields);
    else throw new Error(ofOne ? `which member is to ${command}?` : `no command ${command}`);
  }

  readonly #commandsOfAll: Readonly<Record<string, (words: readonly string[], fields: Fields) => void>> = {
    new: (_, fields) => this.#new(fields),
    pass: (words) => this.#takeFromWire(words, (message) => this.#hosts.get(message.to)?.raft.step(message)),
    drop: (words) => this.#takeFromWire(words, () => {}),
    repeat: (words) => this.#repeat(words),
    cut: (words) => this.#cutOff(words),
    heal: () => this.#cut.clear(),
    stabilize: () => this.#stabilizeAll(),
    settle: () => this.#settle(),
    time: ([ticks = '1']) => {
      for (let tick = 0; tick < Number(ticks); tick++) {
        for (const { raft } of this.#hosts.values()) raft.tick();
        this.#settle();
      }
    },
    status: () => {
      for (const host of this.#hosts.values()) this.#say(host, shortStatus(host));
    },
    log: () => {
      for (const host of this.#hosts.values()) this.#say(host, logText(host));
    },
  };

  readonly #commandsOfOne: Readonly<Record<string, Command>> = {
    restart: (host) => this.#restart(host),
    campaign: (host) => host.raft.campaign(),
    tick: (host, [count = '1']) => {
      for (let tick = 0; tick < Number(count); tick++) host.raft.tick();
    },
    propose: (host, [data]) => this.#say(host, proposalText(host.raft.propose(bytes(data!)))),
    'propose-conf': (host, [type, id]) => {
      const change: ConfChange = { type: type as ConfChange['type'], member: BigInt(id!), context: bytes('') };
      this.#say(host, proposalText(host.raft.proposeConfChange(change)));
    },
    'read-index': (host, [context]) => this.#say(host, host.raft.readIndex(bytes(context!)) ? 'asked' : 'no leader'),
    transfer: (host, [id]) => this.#say(host, host.raft.transferLeadership(BigInt(id!)) ? 'started' : 'refused'),
    compact: (host, [index]) => host.raft.compact(Number(index)),
    deliver: (host, [type], fields) => {
      const received = message(host.id, type!, fields);
      if (received.type === 'installSnapshot') host.disk.received.set(received.snapshot.index, { ...emptyState, ...received.snapshot });
      host.raft.step(received);
    },
    report: (host, [type, member]) => host.raft.step({ type: type as PeerReport['type'], member: BigInt(member!) }),
    ready: (host) => this.#ready(host),
    'storage-append-done': (host, [which]) => this.#appendDone(host, which === 'all' ? host.appends.length : Number(which ?? 1)),
    'storage-append-again': (host, [number]) => {
      host.raft.step({ type: 'storageAppendResponse', append: Number(number), index: 1, term: 1 });
    },
    'storage-apply-done': (host) => this.#applyDone(host),
    snapshot: (host, [member]) => this.#bringSnapshot(host, this.#host(BigInt(member!))),
    stabilize: (host) => this.#stabilize(host),
    status: (host) => this.#say(host, ...statusText(host)),
    log: (host) => this.#say(host, logText(host)),
    progress: (host) => {
      for (const { member, state, matchIndex, nextIndex } of host.raft.status().progress) {
        this.#say(host, `${member}: ${state}, match ${matchIndex}, next ${nextIndex}`);
      }
    },
  };

  #host(id: MemberId): Host {
    const host = this.#hosts.get(id);
    if (!host) throw new Error(`no member ${id}`);
    return host;
  }

  /** With several members each line says whose it is. */
  #say(host: Host, ...lines: readonly string[]): void {
    this.#lines.push(...lines.map((line) => (this.#hosts.size > 1 ? `${host.id}: ${line}` : line)));
  }

  // ---- members ----

  /** `id=1,2,3`: several that are alike. An id that is there begins everything anew. */
  #new(fields: Fields): void {
    const ids = members(fields.get('id') ?? '1');
    if (ids.some((id) => this.#hosts.has(id))) this.#reset();
    for (const id of ids) this.#add(id, fields);
    const isAlone = this.#hosts.size === 1;
    for (const id of ids) this.#say(this.#host(id), ...(isAlone ? statusText(this.#host(id)) : [shortStatus(this.#host(id))]));
  }

  #reset(): void {
    this.#hosts.clear();
    this.#wire = [];
    this.#cut.clear();
  }

  #add(id: MemberId, fields: Fields): void {
    const number = (name: string, otherwise: number): number => Number(fields.get(name) ?? otherwise);
    const config = {
      id,
      electionTimeoutTicks: number('election', 3),
      heartbeatTicks: 1,
      preVote: fields.get('prevote') !== 'off',
      checkQuorum: fields.get('checkquorum') !== 'off',
      maxUncommittedBytes: number('max-uncommitted', 1000),
      maxEntriesPerAppendBytes: number('max-append', 1000),
      maxInflightAppends: number('max-inflight', 16),
      maxInflightBytes: number('max-inflight-bytes', 100_000),
      electionTimeoutJitter: () => number('jitter', 0),
    };
    const confState = { voters: members(fields.get('voters') ?? '1'), learners: members(fields.get('learners') ?? '') };
    const [term, vote, commit] = (fields.get('hardstate') ?? '').split('/');
    const hardState: HardState | undefined = term === '' ? undefined : { term: Number(term), vote: BigInt(vote!), commit: Number(commit) };
    const list = entries(fields.get('log') ?? '', 1);
    const index = number('applied', 0);
    const machine = { ...emptyState, index, term: list[index - 1]?.term ?? 0, confState };
    const disk = { hardState, entries: list, compacted: { index: 0, term: 0 }, machine, received: new Map(), incarnation: 0 };
    const host = new Host(config, disk, this);
    this.#hosts.set(id, host);
    host.start();
  }

  #restart(host: Host): void {
    host.crash(0, 0);
    host.start();
    this.#say(host, ...statusText(host));
  }

  #ready(host: Host): void {
    if (!host.raft.hasReady()) this.#say(host, 'nothing');
    else this.#handle(host);
  }

  #handle(host: Host): void {
    const before = this.#lines;
    this.#lines = [];
    const ready = host.ready();
    const sent = this.#lines;
    this.#lines = before;
    this.#say(host, ...readyText(ready, this.#hosts.size === 1));
    this.#lines.push(...sent);
  }

  #appendDone(host: Host, count: number): void {
    if (count === 0 || host.appends.length < count) this.#say(host, 'nothing is under way');
    else for (let at = 0; at < count; at++) host.flush();
  }

  #applyDone(host: Host): void {
    if (host.applies.length === 0) this.#say(host, 'nothing is under way');
    else this.#apply(host);
  }

  /** What is applied is on the state machine's disk at once. */
  #apply(host: Host): void {
    host.apply();
    host.save();
  }

  #stabilize(host: Host): void {
    const isBusy = (): boolean => host.raft.hasReady() || host.appends.length > 0 || host.applies.length > 0;
    if (!isBusy()) this.#say(host, 'nothing');
    while (isBusy()) {
      if (host.raft.hasReady()) this.#handle(host);
      if (host.appends.length > 0) this.#appendDone(host, host.appends.length);
      if (host.applies.length > 0) this.#apply(host);
    }
  }

  /** Everybody, and the network, until nothing is left to do. */
  #stabilizeAll(): void {
    let isBusy: boolean;
    do {
      isBusy = false;
      for (const host of this.#hosts.values()) {
        if (!(host.raft.hasReady() || host.appends.length > 0 || host.applies.length > 0)) continue;
        this.#stabilize(host);
        isBusy = true;
      }
      isBusy ||= this.#wire.length > 0;
      this.#takeFromWire([], (message) => this.#hosts.get(message.to)?.raft.step(message));
    } while (isBusy);
  }

  #settle(): void {
    this.#stabilizeAll();
    this.#lines = [];
  }

  // ---- network ----

  send(host: Host, message: PeerMessage): void {
    const isCut = this.#cut.has(`${message.from}->${message.to}`);
    this.#say(host, `send ${messageText(message)}${isCut ? ' (lost)' : ''}`);
    if (!isCut && this.#hosts.has(message.to)) this.#wire.push(message);
  }

  /** `1->2`, a type, both or nothing: which messages under way are meant. */
  #selects([...words]: readonly string[]): (message: PeerMessage) => boolean {
    return ({ from, to, type }) => words.every((word) => word === `${from}->${to}` || word === type);
  }

  #takeFromWire(words: readonly string[], act: (message: PeerMessage) => void): void {
    const isMeant = this.#selects(words);
    const taken = this.#wire.filter(isMeant);
    this.#wire = this.#wire.filter((message) => !isMeant(message));
    for (const message of taken) act(message);
  }

  /** Delivered, and still under way. */
  #repeat(words: readonly string[]): void {
    for (const message of this.#wire.filter(this.#selects(words))) this.#hosts.get(message.to)!.raft.step(message);
  }

  /** `1->2`: one direction. `3`: all from and to a member. */
  #cutOff(words: readonly string[]): void {
    for (const word of words) {
      if (word.includes('->')) this.#cut.add(word);
      else for (const id of this.#hosts.keys()) this.#cut.add(`${word}->${id}`).add(`${id}->${word}`);
    }
    this.#wire = this.#wire.filter(({ from, to }) => !this.#cut.has(`${from}->${to}`));
  }

  /** The hosts move the state: complete, verified and durable at the receiver. */
  #bringSnapshot(host: Host, target: Host): void {
    const { index, term, confState } = host.machine;
    target.disk.received.set(index, host.machine);
    this.#say(host, `brings ${target.id} the state at ${term}/${index}`);
    const snapshot = { index, term, confState };
    target.raft.step({ type: 'installSnapshot', from: host.id, to: target.id, term: host.raft.term, snapshot });
  }

  // ---- state machines ----

  applied(): void {}

  changed(host: Host): void {
    this.#say(host, confText(host.machine.confState));
  }

  restored(host: Host): void {
    this.#say(host, `state is now that at ${host.machine.term}/${host.machine.index}, ${confText(host.machine.confState)}`);
  }
}

// ---- reading -------------------------------------------------------------------------------------------------------------------------

function bytes(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text));
}

function members(list: string): MemberId[] {
  return list === '' ? [] : list.split(',').map(BigInt);
}

const confChangeTypes = ['addVoter', 'addLearner', 'remove', 'update'];

/** `1:a,1:b,2:addVoter:4`: terms and what the entries hold, from `first` on. */
function entries(list: string, first: number): Entry[] {
  if (list === '') return [];
  return list.split(',').map((item, at) => {
    const [term, data = '', id] = item.split(':');
    const position = { term: Number(term), index: first + at };
    if (!confChangeTypes.includes(data)) return { ...position, type: 'normal', data: bytes(data) };
    const change: ConfChange = { type: data as ConfChange['type'], member: BigInt(id!), context: bytes('') };
    return { ...position, type: 'confChange', data: encodeConfChange(change) };
  });
}

function message(self: MemberId, type: string, fields: Fields): Message {
  const number = (name: string): number => Number(fields.get(name) ?? 0);
  const pair = (name: string): readonly [term: number, index: number] => {
    const [term = 0, index = 0] = (fields.get(name) ?? '').split('/').map(Number);
    return [term, index];
  };
  const envelope = { from: BigInt(fields.get('from') ?? 2), to: BigInt(fields.get('to') ?? self), term: number('term') };
  const numbers = { incarnation: Number(fields.get('incarnation') ?? 1), sequence: Number(fields.get('sequence') ?? 1) };
  const rejected = fields.has('rejected');
  const [commitTerm, commitIndex] = pair('committed');
  switch (type) {
    case 'requestVote':
    case 'requestPreVote': {
      const [lastLogTerm, lastLogIndex] = pair('last');
      return { type, ...envelope, lastLogTerm, lastLogIndex, leadershipTransfer: fields.has('transfer'), commitIndex, commitTerm };
    }
    case 'requestVoteResponse':
    case 'requestPreVoteResponse':
      return { type, ...envelope, granted: !rejected, commitIndex, commitTerm };
    case 'appendEntries': {
      const [prevLogTerm, prevLogIndex] = pair('prev');
      const list = entries(fields.get('entries') ?? '', prevLogIndex + 1);
      return { type, ...envelope, prevLogTerm, prevLogIndex, entries: list, leaderCommit: number('commit') };
    }
    case 'appendEntriesResponse': {
      const [hintTerm, hintIndex] = pair('hint');
      return { type, ...envelope, index: number('index'), rejected, hintIndex, hintTerm };
    }
    case 'heartbeat':
      return { type, ...envelope, leaderCommit: number('commit'), round: number('round') };
    case 'commit':
      return { type, ...envelope, leaderCommit: number('commit') };
    case 'heartbeatResponse':
      return { type, ...envelope, round: number('round') };
    case 'readIndex':
      return { type, ...envelope, ...numbers };
    case 'readIndexResponse':
      return { type, ...envelope, ...numbers, index: number('index') };
    case 'installSnapshot': {
      const [term, index] = pair('snapshot');
      const confState = { voters: members(fields.get('voters') ?? '1'), learners: members(fields.get('learners') ?? '') };
      return { type, ...envelope, snapshot: { term, index, confState } };
    }
    case 'timeoutNow':
      return { type, ...envelope };
    case 'propose':
      return { type, ...envelope, ...numbers, entries: [{ type: 'normal', data: bytes(fields.get('data') ?? 'x') }] };
    default:
      throw new Error(`no message ${type}`);
  }
}

// ---- printing ------------------------------------------------------------------------------------------------------------------------

function statusText({ raft }: Host): readonly string[] {
  const { role, leader, term, vote, commitIndex, appliedIndex, durableIndex, lastIndex, confState, uncommittedBytes } = raft.status();
  return [
    `${role} in term ${term}, leader ${memberText(leader)}, vote ${memberText(vote)}`,
    `last ${lastIndex}, durable ${durableIndex}, committed ${commitIndex}, applied ${appliedIndex}, uncommitted ${uncommittedBytes} bytes`,
    confText(confState),
  ];
}

function shortStatus({ raft }: Host): string {
  const { role, term, leader, lastIndex, commitIndex, appliedIndex } = raft.status();
  return `${role} in term ${term}, leader ${memberText(leader)}, last ${lastIndex}, committed ${commitIndex}, applied ${appliedIndex}`;
}

/** What is on disk. */
function logText({ disk }: Host): string {
  const { compacted, entries: list } = disk;
  const before = compacted.index > 0 ? `after ${compacted.term}/${compacted.index}: ` : '';
  return `${before}${list.map(entryText).join(', ') || 'nothing'}`;
}

function proposalText(result: ProposalResult): string {
  if (result.status === 'appended') return `appended ${result.term}/${result.index}`;
  return result.status === 'forwarded' ? `forwarded to ${result.leader}` : `dropped: ${result.reason}`;
}

/** @param inFull also which responses wait for the disk. */
function readyText({ softState, append, apply, readStates, snapshotsFor }: Ready, inFull: boolean): readonly string[] {
  const lines: string[] = [];
  if (softState) lines.push(`now ${softState.role} in term ${softState.term}, leader ${memberText(softState.leader)}`);
  if (append && (inFull || append.hardState)) lines.push(...appendText(append, inFull));
  if (apply) lines.push(`apply ${entriesText(apply.entries)}`);
  for (const { context, index } of readStates) lines.push(`read ${dataText(context)} at ${index}`);
  if (snapshotsFor.length > 0) lines.push(`bring a snapshot to ${snapshotsFor.join(', ')}`);
  return lines;
}

function appendText({ snapshot, entries: list, hardState, responses }: StorageAppend, inFull: boolean): readonly string[] {
  const what = snapshot ? `snapshot ${snapshot.term}/${snapshot.index}, ` : '';
  const state = hardState ? `, term ${hardState.term} vote ${memberText(hardState.vote)} commit ${hardState.commit}` : '';
  const held = responses.map((response) => {
    if (response.type === 'storageAppendResponse')
      return `  then acknowledge append ${response.append} at ${response.term}/${response.index}`;
    return `  then ${messageText(response)}`;
  });
  return [`append ${what}${entriesText(list)}${state}`, ...(inFull ? held : [])];
}
