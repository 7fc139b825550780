import { expect, test } from 'vitest';
import { parseEndpoints } from './endpoint.ts';

test.each([
  ['127.0.0.1:2379', ['127.0.0.1:2379']],
  ['http://127.0.0.1:2379', ['127.0.0.1:2379']],
  ['http://member-1', ['member-1:2379']],
  ['https://127.0.0.1:2379', ['127.0.0.1:2379']],
  ['http://127.0.0.1:2379/', ['127.0.0.1:2379']],
  ['localhost', ['localhost:2379']],
  ['etcd.example.org', ['etcd.example.org:2379']],
  ['[::1]', ['[::1]:2379']],
  ['[::1]:5000', ['[::1]:5000']],
  ['unix:/run/etcd.sock', ['unix:/run/etcd.sock']],
  ['unix:///run/etcd.sock', ['unix:/run/etcd.sock']],
  ['member-1', ['member-1']],
  ['a:1, b:2,a:1', ['a:1', 'b:2']],
  [
    ['a:1', 'http://b:2'],
    ['a:1', 'b:2'],
  ],
])('%o means %o', (given, addresses) => {
  expect(parseEndpoints(given).addresses).toEqual(addresses);
});

test.each([
  ['a:1', undefined],
  ['http://a:1,b:1', false],
  ['unix:/run/etcd.sock', false],
  ['a:1,https://b:1', true],
])('whether %o speak TLS: %o', (given, isSecure) => {
  expect(parseEndpoints(given).isSecure).toBe(isSecure);
});

test.each([[''], [[]], ['a:1,'], ['http://'], ['https://'], ['http://a:1,https://b:1'], ['https://a:1,unix:/run/etcd.sock']])(
  '%o is refused',
  (given) => {
    expect(() => parseEndpoints(given)).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
  },
);
