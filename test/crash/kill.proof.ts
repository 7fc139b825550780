import { type Client, connect, isConclaveError, prefix, put } from '@conclave/sdk';
import { launchServer, type RunningProcess } from '@conclave/testkit';
import { describe, expect, it } from 'vitest';

const rounds = 200;
const writers = 8;

/** What one writer was told about the key it owns: a number that only grows. */
interface Ledger {
  /** The highest number whose write was acknowledged, and the revision the acknowledgement named. */
  acknowledged: number;
  revision: bigint;
  /** The highest number that was sent. */
  sent: number;
}

describe('kill -9 under load', () => {
  it(`${rounds} times: nothing acknowledged is lost, the revision never goes back, and the server starts unaided`, async () => {
    await using server = await launchServer();
    const ledgers = Array.from({ length: writers }, (): Ledger => ({ acknowledged: 0, revision: 0n, sent: 0 }));
    let highest = 0n;
    let acknowledgements = 0;
    let restartMs = 0;
    for (let round = 0; round < rounds; round++) {
      const client = await connect({ endpoints: server.address });
      const before = ledgers.map(({ acknowledged }) => acknowledged);
      const load = ledgers.map((ledger, at) => write(client, `kill/${at}`, ledger));
      // Killed in the middle of writes: after a number of acknowledgements that differs from round to round, not after a time.
      const quota = 20 + ((round * 37) % 180);
      while (ledgers.reduce((sum, { acknowledged }, at) => sum + acknowledged - (before[at] ?? 0), 0) < quota) {
        await new Promise((resolve) => setImmediate(resolve));
      }
      await server.kill();
      await client.close();
      await Promise.all(load);
      const startedAt = performance.now();
      await server.restart();
      restartMs += performance.now() - startedAt;
      acknowledgements += ledgers.reduce((sum, { acknowledged }, at) => sum + acknowledged - (before[at] ?? 0), 0);
      for (const { revision } of ledgers) highest = revision > highest ? revision : highest;
      highest = await check(server, ledgers, highest, round);
    }
    console.log(
      `${rounds} kills, ${acknowledgements} acknowledged writes, all there; ready after ${(restartMs / rounds).toFixed(0)} ms on average`,
    );
    expect(acknowledgements).toBeGreaterThan(rounds * 20);
  });
});

/** Writes growing numbers, each to two keys in one transaction, until the connection ends. */
async function write(client: Client, name: string, ledger: Ledger): Promise<void> {
  for (;;) {
    ledger.sent += 1;
    const number = String(ledger.sent);
    try {
      const { revision } = await client
        .txn()
        .then(put(name, number), put(`${name}/twin`, number))
        .commit();
      ledger.acknowledged = ledger.sent;
      ledger.revision = revision;
    } catch (error) {
      if (isConclaveError(error) && error.outcome !== 'applied') return;
      throw error;
    }
  }
}

/** Reads everything back. Returns the revision the server is at. */
async function check(server: RunningProcess, ledgers: readonly Ledger[], highest: bigint, round: number): Promise<bigint> {
  await using client = await connect({ endpoints: server.address });
  const { kvs, revision } = await client.list(prefix('kill/'));
  expect(revision, `round ${round}: the revision`).toBeGreaterThanOrEqual(highest);
  const values = new Map(kvs.map((kv) => [kv.key, Number(kv.value)]));
  for (const [at, ledger] of ledgers.entries()) {
    const value = values.get(`kill/${at}`) ?? 0;
    expect(value, `round ${round}, writer ${at}: acknowledged`).toBeGreaterThanOrEqual(ledger.acknowledged);
    expect(value, `round ${round}, writer ${at}: never sent`).toBeLessThanOrEqual(ledger.sent);
    expect(values.get(`kill/${at}/twin`) ?? 0, `round ${round}, writer ${at}: half a transaction`).toBe(value);
    ledger.sent = value;
    ledger.acknowledged = value;
  }
  return revision;
}
