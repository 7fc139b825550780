import assert from 'node:assert/strict';
import { type Compare, Compare_CompareResult, Compare_CompareTarget, type Init } from '@conclave/protocol';
import type { Case } from '../case.ts';
import { bytes, type Context } from '../context.ts';

const { EQUAL, GREATER, LESS, NOT_EQUAL } = Compare_CompareResult;
const { VERSION, CREATE, MOD, VALUE, LEASE } = Compare_CompareTarget;

interface Filled {
  readonly base: number;
  readonly lease: bigint;
}

/** `a` is created at 1, modified at 3, at version 2, has value `m` and a lease; `x` does not exist; `p1`, `p2`, `p3` are like it with values 1, 2, 3. */
async function fill(t: Context): Promise<Filled> {
  const lease = await t.grant(60, 0x100n);
  await t.put('a', '0', lease);
  await t.write('b=0');
  await t.put('a', 'm', lease);
  await t.write('p1=1', 'p2=2', 'p3=3');
  return { base: t.base, lease };
}

/** Operands below, equal to and above what `a` has. */
const targets: readonly (readonly [name: string, operand: (filled: Filled, side: -1 | 0 | 1) => Init<Compare>])[] = [
  ['VERSION', (_filled, side) => ({ target: VERSION, version: 2 + side })],
  ['CREATE', ({ base }, side) => ({ target: CREATE, createRevision: base + 1 + side })],
  ['MOD', ({ base }, side) => ({ target: MOD, modRevision: base + 3 + side })],
  ['VALUE', (_filled, side) => ({ target: VALUE, value: bytes(['l', 'm', 'n'][side + 1] ?? '') })],
  ['LEASE', ({ lease }, side) => ({ target: LEASE, lease: lease + BigInt(side) })],
];

const results: readonly (readonly [name: string, result: number, holds: (side: -1 | 0 | 1) => boolean])[] = [
  ['EQUAL', EQUAL, (side) => side === 0],
  ['GREATER', GREATER, (side) => side < 0],
  ['LESS', LESS, (side) => side > 0],
  ['NOT_EQUAL', NOT_EQUAL, (side) => side !== 0],
];

const sides = [
  [-1, 'a lower operand'],
  [0, 'an equal operand'],
  [1, 'a higher operand'],
] as const;

async function holds(t: Context, ...compare: readonly Init<Compare>[]): Promise<boolean> {
  return (await t.txn(compare, [])).succeeded;
}

const present: readonly Case[] = targets.flatMap(([target, operand]) =>
  results.map(([result, resultValue, expected]) => ({
    name: `compare: ${target} ${result} on a key that exists`,
    async run(t: Context) {
      const filled = await fill(t);
      for (const [side, told] of sides) {
        const compare = { key: bytes('a'), result: resultValue, ...operand(filled, side) };
        assert.equal(await holds(t, compare), expected(side), told);
      }
    },
  })),
);

const zeroOperands: readonly (readonly [name: string, operand: Init<Compare>])[] = [
  ['VERSION', { target: VERSION, version: 0 }],
  ['CREATE', { target: CREATE, createRevision: 0 }],
  ['MOD', { target: MOD, modRevision: 0 }],
  ['LEASE', { target: LEASE, lease: 0n }],
];

const missing: readonly Case[] = zeroOperands.flatMap(([target, operand]) =>
  results.map(([result, resultValue, expected]) => ({
    name: `compare: ${target} ${result} on a missing key compares as 0`,
    async run(t: Context) {
      await fill(t);
      assert.equal(await holds(t, { key: bytes('x'), result: resultValue, ...operand }), expected(0));
    },
  })),
);

const missingValue: readonly Case[] = results.map(([result, resultValue]) => ({
  name: `compare: VALUE ${result} on a missing key is false whatever the operand`,
  async run(t: Context) {
    await fill(t);
    assert.equal(await holds(t, { key: bytes('x'), result: resultValue, target: VALUE, value: bytes('m') }), false);
    assert.equal(await holds(t, { key: bytes('x'), result: resultValue, target: VALUE, value: bytes('') }), false);
    assert.equal(await holds(t, { key: bytes('x'), result: resultValue, target: VALUE }), false);
  },
}));

const p = { key: bytes('p'), rangeEnd: bytes('q') };

export const txnCompareCases: readonly Case[] = [
  ...present,
  ...missing,
  ...missingValue,
  {
    name: 'compare: with a range the predicate must hold for every key in it',
    async run(t) {
      await fill(t);
      assert.equal(await holds(t, { ...p, target: VALUE, result: GREATER, value: bytes('0') }), true);
      assert.equal(await holds(t, { ...p, target: VALUE, result: GREATER, value: bytes('1') }), false);
      assert.equal(await holds(t, { ...p, target: VALUE, result: NOT_EQUAL, value: bytes('3') }), false);
      assert.equal(await holds(t, { ...p, target: VERSION, result: EQUAL, version: 1 }), true);
      assert.equal(await holds(t, { ...p, target: CREATE, result: LESS, createRevision: t.base + 6 }), false);
      assert.equal(await holds(t, { ...p, target: MOD, result: LESS, modRevision: t.base + 7 }), true);
    },
  },
  {
    name: 'compare: an empty range behaves like a missing key',
    async run(t) {
      await fill(t);
      const none = { key: bytes('x'), rangeEnd: bytes('y') };
      assert.equal(await holds(t, { ...none, target: VERSION, result: EQUAL, version: 0 }), true);
      assert.equal(await holds(t, { ...none, target: VERSION, result: GREATER, version: 0 }), false);
      assert.equal(await holds(t, { ...none, target: VALUE, result: NOT_EQUAL, value: bytes('1') }), false);
    },
  },
  {
    name: 'compare: a range whose end lies before its start behaves like a missing key',
    async run(t) {
      await fill(t);
      assert.equal(await holds(t, { key: bytes('q'), rangeEnd: bytes('a'), target: VERSION, result: EQUAL, version: 0 }), true);
    },
  },
  {
    name: 'compare: a range end of one zero byte reaches to the last key',
    async run(t) {
      await fill(t);
      const from = { key: bytes('b'), rangeEnd: new Uint8Array([0]) };
      assert.equal(await holds(t, { ...from, target: VERSION, result: EQUAL, version: 1 }), true);
      assert.equal(await holds(t, { key: bytes('a'), rangeEnd: new Uint8Array([0]), target: VERSION, result: EQUAL, version: 1 }), false);
    },
  },
  {
    name: 'compare: all compares of the list must hold',
    async run(t) {
      await fill(t);
      const yes = { key: bytes('a'), target: VERSION, result: EQUAL, version: 2 };
      const no = { key: bytes('a'), target: VERSION, result: EQUAL, version: 3 };
      assert.equal(await holds(t, yes, yes), true);
      assert.equal(await holds(t, yes, no), false);
      assert.equal(await holds(t, no, yes), false);
    },
  },
  {
    name: 'compare: an empty list holds',
    async run(t) {
      assert.equal(await holds(t), true);
    },
  },
  {
    name: 'compare: a missing operand is 0, or no bytes',
    async run(t) {
      await fill(t);
      assert.equal(await holds(t, { key: bytes('x'), target: VERSION, result: EQUAL }), true);
      assert.equal(await holds(t, { key: bytes('a'), target: MOD, result: GREATER }), true);
      assert.equal(await holds(t, { key: bytes('a'), target: VALUE, result: GREATER }), true);
      await t.write('e=');
      assert.equal(await holds(t, { key: bytes('e'), target: VALUE, result: EQUAL }), true);
    },
  },
  {
    name: 'compare: the operand of another target counts as missing',
    async run(t) {
      await fill(t);
      assert.equal(await holds(t, { key: bytes('a'), target: VERSION, result: EQUAL, modRevision: 2 }), false);
      assert.equal(await holds(t, { key: bytes('a'), target: VERSION, result: GREATER, value: bytes('zzz') }), true);
    },
  },
  {
    name: 'compare: an unknown target compares as equal',
    async run(t) {
      await fill(t);
      assert.equal(await holds(t, { key: bytes('a'), target: 9, result: EQUAL }), true);
      assert.equal(await holds(t, { key: bytes('a'), target: 9, result: LESS }), false);
    },
  },
  {
    name: 'compare: an unknown result holds',
    async run(t) {
      await fill(t);
      assert.equal(await holds(t, { key: bytes('a'), target: VERSION, result: 9, version: 77 }), true);
    },
  },
  {
    name: 'compare: values compare bytewise',
    async run(t) {
      await t.write('a=ab');
      assert.equal(await holds(t, { key: bytes('a'), target: VALUE, result: LESS, value: bytes('b') }), true);
      assert.equal(await holds(t, { key: bytes('a'), target: VALUE, result: GREATER, value: bytes('a') }), true);
      assert.equal(await holds(t, { key: bytes('a'), target: VALUE, result: LESS, value: new Uint8Array([0xff]) }), true);
    },
  },
  {
    name: 'compare: a negative operand is below everything',
    async run(t) {
      await t.write('a=1');
      assert.equal(await holds(t, { key: bytes('a'), target: MOD, result: GREATER, modRevision: -1 }), true);
      assert.equal(await holds(t, { key: bytes('x'), target: VERSION, result: LESS, version: -1 }), false);
    },
  },
  {
    name: 'compare: LEASE of a key without a lease is 0',
    async run(t) {
      await t.write('a=1');
      assert.equal(await holds(t, { key: bytes('a'), target: LEASE, result: EQUAL, lease: 0n }), true);
    },
  },
];
