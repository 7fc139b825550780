/**
 * Runs the scripts of ../testdata: a block is one or more commands, a line of dashes, and what they printed. With REWRITE=1 the output is
 * written into the scripts instead of compared; read the difference before it is committed.
 *
 * The vocabulary is the methods of Raft and the events of its host; `host` below is a minimal one, whose disk and state machine finish when the
 * script says so. README.md in testdata lists the commands.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { decodeConfChange } from './conf-change.ts';
import type { RaftConfig } from './config.ts';
import { Raft } from './raft.ts';
import type {
  ConfChange,
  ConfState,
  Entry,
  HardState,
  MemberId,
  Message,
  PeerMessage,
  ProposalResult,
  Ready,
  StorageAppend,
} from './types.ts';

const folder = join(import.meta.dirname, '../testdata');

type Fields = ReadonlyMap<string, string>;

class Host {
  raft!: Raft;
  #config!: Omit<RaftConfig, 'initial'>;
  #voters: ConfState = { voters: [], learners: [] };
  readonly #appends: StorageAppend[] = [];
  readonly #applies: (readonly Entry[])[] = [];
  // What survives a crash.
  #durable: Entry[] = [];
  #hardState: HardState | undefined;
  #applied = 0;

  run(line: string): string[] {
    const [command, ...words] = line.split(/\s+/);
    const fields = new Map(words.map((word) => [word.split('=')[0]!, word.split('=').slice(1).join('=')]));
    const handler = this.#commands[command!];
    if (!handler) throw new Error(`no command ${command}`);
    try {
      return handler(words, fields);
    } catch (error) {
      if (error instanceof Error && error.name === 'InvariantError') return [`stopped: ${error.message}`];
      throw error;
    }
  }

  readonly #commands: Readonly<Record<string, (words: readonly string[], fields: Fields) => string[]>> = {
    new: (_, fields) => this.#new(fields),
    restart: () => this.#restart(),
    campaign: () => this.#did(() => this.raft.campaign()),
    tick: ([count = '1']) =>
      this.#did(() => {
        for (let tick = 0; tick < Number(count); tick++) this.raft.tick();
      }),
    propose: ([data]) => [proposal(this.raft.propose(bytes(data!)))],
    'propose-conf': ([type, id]) => [
      proposal(this.raft.proposeConfChange({ type: type as ConfChange['type'], member: BigInt(id!), context: bytes('') })),
    ],
    'read-index': ([context]) => [this.raft.readIndex(bytes(context!)) ? 'asked' : 'no leader'],
    transfer: ([id]) => [this.raft.transferLeadership(BigInt(id!)) ? 'started' : 'refused'],
    compact: ([index]) => this.#did(() => this.raft.compact(Number(index))),
    deliver: ([type], fields) => this.#did(() => this.raft.step(message(type!, fields))),
    ready: () => this.#ready(),
    'storage-append-done': ([which]) => this.#appendDone(which === 'all' ? this.#appends.length : Number(which ?? 1)),
    'storage-append-again': ([number]) => this.#appendAgain(Number(number)),
    'storage-apply-done': () => this.#applyDone(),
    stabilize: () => this.#stabilize(),
    status: () => this.#status(),
  };

  #did(act: () => void): string[] {
    act();
    return [];
  }

  #new(fields: Fields): string[] {
    const number = (name: string, otherwise: number): number => Number(fields.get(name) ?? otherwise);
    this.#config = {
      id: BigInt(fields.get('id') ?? 1),
      incarnation: 1,
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
    this.#voters = { voters: members(fields.get('voters') ?? '1'), learners: members(fields.get('learners') ?? '') };
    this.#durable = entries(fields.get('log') ?? '', 1);
    const [term, vote, commit] = (fields.get('hardstate') ?? '').split('/');
    this.#hardState = fields.has('hardstate') ? { term: Number(term), vote: BigInt(vote!), commit: Number(commit) } : undefined;
    this.#applied = number('applied', 0);
    return this.#restart();
  }

  #restart(): string[] {
    this.#appends.length = 0;
    this.#applies.length = 0;
    const initial = { hardState: this.#hardState, confState: this.#voters, compacted: { index: 0, term: 0 }, entries: this.#durable };
    this.raft = new Raft({ ...this.#config, initial: { ...initial, appliedIndex: this.#applied } });
    return this.#status();
  }

  #ready(): string[] {
    if (!this.raft.hasReady()) return ['nothing'];
    const ready = this.raft.ready();
    if (ready.append) this.#appends.push(ready.append);
    if (ready.apply) this.#applies.push(ready.apply.entries);
    return readyText(ready);
  }

  /** The disk works in order; one flush may make several appends durable. */
  #appendDone(count: number): string[] {
    const done = this.#appends.splice(0, count);
    if (done.length < count || count === 0) return ['nothing is under way'];
    for (const { entries, hardState } of done) {
      const first = entries[0]?.index ?? Number.POSITIVE_INFINITY;
      this.#durable = [...this.#durable.filter((entry) => entry.index < first), ...entries];
      this.#hardState = hardState ?? this.#hardState;
    }
    return done.flatMap(({ responses }) => responses.flatMap((response) => this.#release(response)));
  }

  #release(response: Message): string[] {
    if ('to' in response && response.to !== this.#config.id) return [`send ${messageText(response)}`];
    this.raft.step(response);
    return [];
  }

  /** A storage that acknowledges something it was not asked to, or a second time. */
  #appendAgain(number: number): string[] {
    this.raft.step({ type: 'storageAppendResponse', append: number, index: 1, term: 1 });
    return [];
  }

  #applyDone(): string[] {
    const done = this.#applies.shift();
    if (!done) return ['nothing is under way'];
    const lines: string[] = [];
    for (const entry of done) {
      if (entry.type !== 'confChange') continue;
      this.#voters = this.raft.applyConfChange(decodeConfChange(entry.data));
      lines.push(confText(this.#voters));
    }
    this.#applied = done.at(-1)!.index;
    this.raft.step({ type: 'storageApplyResponse', index: this.#applied });
    return lines;
  }

  #stabilize(): string[] {
    const lines: string[] = [];
    while (this.raft.hasReady() || this.#appends.length > 0 || this.#applies.length > 0) {
      if (this.raft.hasReady()) lines.push(...this.#ready());
      if (this.#appends.length > 0) lines.push(...this.#appendDone(this.#appends.length));
      if (this.#applies.length > 0) lines.push(...this.#applyDone());
    }
    return lines.length > 0 ? lines : ['nothing'];
  }

  #status(): string[] {
    const { role, leader, term, vote, commitIndex, appliedIndex, durableIndex, lastIndex, confState, uncommittedBytes } =
      this.raft.status();
    return [
      `${role} in term ${term}, leader ${member(leader)}, vote ${member(vote)}`,
      `last ${lastIndex}, durable ${durableIndex}, committed ${commitIndex}, applied ${appliedIndex}, uncommitted ${uncommittedBytes} bytes`,
      confText(confState),
    ];
  }
}

// ---- reading -------------------------------------------------------------------------------------------------------------------------

function bytes(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text));
}

function members(list: string): MemberId[] {
  return list === '' ? [] : list.split(',').map(BigInt);
}

/** `1:a,1:b,2:c`: terms and data, from `first` on. */
function entries(list: string, first: number): Entry[] {
  if (list === '') return [];
  return list.split(',').map((item, at) => {
    const [term, data = ''] = item.split(':');
    return { term: Number(term), index: first + at, type: 'normal', data: bytes(data) };
  });
}

function message(type: string, fields: Fields): Message {
  const number = (name: string): number => Number(fields.get(name) ?? 0);
  const pair = (name: string): readonly [term: number, index: number] => {
    const [term = 0, index = 0] = (fields.get(name) ?? '').split('/').map(Number);
    return [term, index];
  };
  const envelope = { from: BigInt(fields.get('from') ?? 2), to: BigInt(fields.get('to') ?? 1), term: number('term') };
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
    case 'appendEntriesResponse':
      return { type, ...envelope, index: number('index'), rejected, hintIndex: 0, hintTerm: 0 };
    case 'heartbeat':
      return { type, ...envelope, leaderCommit: number('commit'), round: number('round') };
    case 'heartbeatResponse':
      return { type, ...envelope, round: number('round') };
    case 'readIndex':
      return { type, ...envelope, ...numbers };
    case 'readIndexResponse':
      return { type, ...envelope, ...numbers, index: number('index') };
    case 'installSnapshot': {
      const [term, index] = pair('snapshot');
      return { type, ...envelope, snapshot: { term, index, confState: { voters: [1n], learners: [] } } };
    }
    case 'timeoutNow':
      return { type, ...envelope };
    case 'propose':
      return { type, ...envelope, ...numbers, entries: [{ type: 'normal', data: bytes(fields.get('data') ?? 'x') }] };
    case 'unreachable':
      return { type, member: envelope.from };
    default:
      throw new Error(`no message ${type}`);
  }
}

// ---- printing ------------------------------------------------------------------------------------------------------------------------

function member(id: MemberId): string {
  return id === 0n ? 'none' : String(id);
}

function text(data: Uint8Array): string {
  return Buffer.from(data).toString();
}

function entryText({ term, index, type, data }: Entry): string {
  if (type === 'normal') return `${term}/${index}${data.length > 0 ? ` ${text(data)}` : ''}`;
  const change = decodeConfChange(data);
  return `${term}/${index} ${change.type} ${change.member}`;
}

function entriesText(list: readonly Entry[]): string {
  return list.length > 0 ? list.map(entryText).join(', ') : 'nothing';
}

function confText({ voters, learners }: ConfState): string {
  return `voters ${voters.join(' ') || 'none'}${learners.length > 0 ? `, learners ${learners.join(' ')}` : ''}`;
}

function proposal(result: ProposalResult): string {
  if (result.status === 'appended') return `appended ${result.term}/${result.index}`;
  return result.status === 'forwarded' ? `forwarded to ${result.leader}` : `dropped: ${result.reason}`;
}

function readyText(ready: Ready): string[] {
  const { softState, append, apply, readStates, messages } = ready;
  const lines: string[] = [];
  if (softState) lines.push(`now ${softState.role} in term ${softState.term}, leader ${member(softState.leader)}`);
  if (append) lines.push(...appendText(append));
  if (apply) lines.push(`apply ${entriesText(apply.entries)}`);
  for (const { context, index } of readStates) lines.push(`read ${text(context)} at ${index}`);
  for (const sent of messages) lines.push(`send ${messageText(sent)}`);
  return lines;
}

function appendText({ entries: list, hardState, responses }: StorageAppend): string[] {
  const state = hardState ? `, term ${hardState.term} vote ${member(hardState.vote)} commit ${hardState.commit}` : '';
  const held = responses.map((response) => {
    if (response.type === 'storageAppendResponse')
      return `  then acknowledge append ${response.append} at ${response.term}/${response.index}`;
    return `  then ${messageText(response)}`;
  });
  return [`append ${entriesText(list)}${state}`, ...held];
}

function messageText(sent: Message): string {
  if (!('to' in sent)) return sent.type;
  const { type, from, to, term, ...rest } = sent as PeerMessage & Record<string, unknown>;
  const fields = Object.entries(rest).map(([name, value]) => `${name} ${valueText(value)}`);
  return [`${type} ${from}->${to} term ${term}`, ...fields].join(' ');
}

function valueText(value: unknown): string {
  if (value instanceof Uint8Array) return JSON.stringify(text(value));
  if (Array.isArray(value)) return `[${value.map((item: Entry) => text(item.data)).join(' ')}]`;
  return String(value);
}

// ---- scripts -------------------------------------------------------------------------------------------------------------------------

interface Block {
  /** Comments and commands. */
  readonly commands: readonly string[];
  readonly output: readonly string[];
}

function parse(script: string): Block[] {
  return script
    .trim()
    .split(/\n\s*\n/)
    .map((block) => {
      const lines = block.split('\n');
      const bar = lines.indexOf('----');
      return bar < 0 ? { commands: lines, output: [] } : { commands: lines.slice(0, bar), output: lines.slice(bar + 1) };
    });
}

function play(blocks: readonly Block[]): Block[] {
  const host = new Host();
  return blocks.map(({ commands }) => {
    const output = commands.filter((line) => line !== '' && !line.startsWith('#')).flatMap((line) => host.run(line));
    return { commands, output: output.length > 0 ? output : ['ok'] };
  });
}

function print(blocks: readonly Block[]): string {
  const isComment = ({ commands }: Block): boolean => commands.every((line) => line.startsWith('#'));
  return `${blocks.map((block) => [...block.commands, ...(isComment(block) ? [] : ['----', ...block.output])].join('\n')).join('\n\n')}\n`;
}

describe('scenario', () => {
  const scripts = readdirSync(folder).filter((name) => name.endsWith('.txt'));

  it.each(scripts)('%s', (name) => {
    const path = join(folder, name);
    const script = readFileSync(path, 'utf8');
    const played = print(play(parse(script)));
    if (process.env['REWRITE'] === '1') writeFileSync(path, played);
    else expect(played).toBe(script);
  });

  it('scripts are found', () => {
    expect(scripts.length).toBeGreaterThanOrEqual(10);
  });
});
