/** What goes between members, for people to read. */
import { decodeConfChange } from '../src/conf-change.ts';
import type { ConfState, Entry, MemberId, PeerMessage } from '../src/types.ts';

export function memberText(id: MemberId): string {
  return id === 0n ? 'none' : String(id);
}

export function dataText(data: Uint8Array): string {
  return Buffer.from(data).toString();
}

/** Term, index, and what it holds. */
export function entryText({ term, index, type, data }: Entry): string {
  return `${term}/${index}${contentText({ type, data })}`;
}

export function entriesText(list: readonly Entry[]): string {
  return list.length > 0 ? list.map(entryText).join(', ') : 'nothing';
}

function contentText({ type, data }: Pick<Entry, 'type' | 'data'>): string {
  if (type === 'normal') return data.length > 0 ? ` ${dataText(data)}` : '';
  const change = decodeConfChange(data);
  return ` ${change.type} ${change.member}`;
}

export function confText({ voters, learners }: ConfState): string {
  return `voters ${voters.join(' ') || 'none'}${learners.length > 0 ? `, learners ${learners.join(' ')}` : ''}`;
}

export function messageText(message: PeerMessage): string {
  const { type, from, to, term } = message;
  return `${type} ${from}->${to} term ${term}${bodyText(message)}`;
}

function bodyText(message: PeerMessage): string {
  switch (message.type) {
    case 'requestVote':
    case 'requestPreVote':
      return `, log ends at ${message.lastLogTerm}/${message.lastLogIndex}${message.leadershipTransfer ? ', for a transfer' : ''}`;
    case 'requestVoteResponse':
    case 'requestPreVoteResponse':
      return message.granted ? ', granted' : ', refused';
    case 'appendEntries':
      return `, after ${message.prevLogTerm}/${message.prevLogIndex}: ${entriesText(message.entries)}, commit ${message.leaderCommit}`;
    case 'appendEntriesResponse':
      return message.rejected
        ? `, rejected ${message.index}, at most ${message.hintTerm}/${message.hintIndex}`
        : `, holds ${message.index}`;
    case 'heartbeat':
      return `, round ${message.round}, commit ${message.leaderCommit}`;
    case 'commit':
      return `, up to ${message.leaderCommit}`;
    case 'heartbeatResponse':
      return `, round ${message.round}`;
    case 'installSnapshot':
      return `, state at ${message.snapshot.term}/${message.snapshot.index}, ${confText(message.snapshot.confState)}`;
    case 'timeoutNow':
      return '';
    case 'propose':
      return `, ${message.incarnation}.${message.sequence}:${message.entries.map(contentText).join(',')}`;
    case 'readIndex':
      return `, ${message.incarnation}.${message.sequence}`;
    case 'readIndexResponse':
      return `, ${message.incarnation}.${message.sequence} at ${message.index}`;
  }
}
