import { expect, test } from 'vitest';
import { errorMessages } from './error-messages.ts';

test('of tests it is their summary: the name and the message of each, and no stack', () => {
  const output = `
\u001b[31m\u001b[1mAssertionError\u001b[22m: expected 1 to be 2\u001b[39m
 \u276f packages/a/src/a.test.ts:3:5

Not run:
  packages/a/src/a.test.ts: needs etcd

Failed:
packages/a/src/a.test.ts: counting > to two
AssertionError: expected 1 to be 2
    at /somewhere/a.test.ts:3:5
    at async file:///somewhere/runner.js:1903:20
packages/b/src/b.test.ts: waits
Error: 'the leader' did not come to be within 30000 ms
it was: follower
    at /somewhere/b.test.ts:3:5
outside of any test: TypeError: x is not a function
    at /somewhere/c.ts:1:1

12 passed, 2 failed, 1 skipped
`;
  expect(errorMessages(output, 600)).toBe(`packages/a/src/a.test.ts: counting > to two
AssertionError: expected 1 to be 2
packages/b/src/b.test.ts: waits
Error: 'the leader' did not come to be within 30000 ms
it was: follower
outside of any test: TypeError: x is not a function`);
});

test('of a program that ended with an error, that and its causes', () => {
  const output = `1000 images
/somewhere/main.ts:82
  throw new Error('a server was not caught');
        ^

Error: a server was not caught
    at main (/somewhere/main.ts:82:9)
    at async /somewhere/main.ts:113:1 {
  [cause]: ConclaveError: no endpoint could be reached
      at fromCallEnd (/somewhere/from-call-end.ts:74:10) {
    code: 'unavailable',
    [cause]: Error [ECONNREFUSED]: connect ECONNREFUSED 127.0.0.1:1
        at TCPConnectWrap.afterConnect
  }
}

Node.js v20.20.2
`;
  expect(errorMessages(output, 600)).toBe(`Error: a server was not caught
[cause]: ConclaveError: no endpoint could be reached
[cause]: Error [ECONNREFUSED]: connect ECONNREFUSED 127.0.0.1:1`);
});

test('of a list of verdicts, those that are bad', () => {
  const output = `  found     1 s  raft: one
  MISSED    9 s  raft: votes twice   seed 7 of 100
passed     12.0 s  partition
failed     10.1 s  clock jumps

2 failures.
`;
  expect(errorMessages(output, 600)).toBe('MISSED    9 s  raft: votes twice   seed 7 of 100\nfailed     10.1 s  clock jumps');
});

test('of a program that was ended from outside, or by its engine, why', () => {
  const output = `12 images
<--- Last few GCs --->

FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory
 1: 0xb9c310 node::Abort() [node]
 2: 0xaa27ee  [node]

Error: the process was ended by SIGABRT
`;
  expect(errorMessages(output, 600)).toBe(`FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory
Error: the process was ended by SIGABRT`);
});

test('of a test whose error has no stack, no more than its message', () => {
  expect(errorMessages('\nFailed:\na.test.ts: one\nError: just text\nb.test.ts: two\nError: more\n', 600)).toBe(
    'a.test.ts: one\nError: just text\nb.test.ts: two\nError: more',
  );
});

test('is never more than asked for; without a message it is the end', () => {
  expect(errorMessages('Error: 12345', 9)).toBe('Error: 12');
  expect(errorMessages('what is this\nsegmentation fault\n', 18)).toBe('segmentation fault');
});
