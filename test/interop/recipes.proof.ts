import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { campaign, leader, lock, tryLock } from '@conclave/recipes';
import { type Client, connect, prefix } from '@conclave/sdk';
import { type EtcdLine, etcdBinary, eventually, type RunningProcess, testTargets, within } from '@conclave/testkit';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

const lines: readonly EtcdLine[] = ['3.5', '3.4'];
const tools = lines.filter((line) => etcdBinary(line, 'etcdctl') !== undefined);

/** `etcdctl` at work, and what it has printed. */
class Tool {
  readonly #process: ChildProcess;
  output = '';

  constructor(line: EtcdLine, address: string, args: readonly string[]) {
    const env = { ...process.env, ETCDCTL_API: '3' };
    this.#process = spawn(etcdBinary(line, 'etcdctl') ?? '', [`--endpoints=${address}`, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env,
    });
    const onOutput = (chunk: Buffer): void => {
      this.output += chunk.toString();
    };
    this.#process.stdout?.on('data', onOutput);
    this.#process.stderr?.on('data', onOutput);
  }

  async prints(text: string): Promise<void> {
    await eventually(`etcdctl prints ${text}`, () => this.output.includes(text));
  }

  /** As Ctrl-C: it gives back what it holds. */
  async interrupt(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const exited = once(this.#process, 'exit');
    this.#process.kill('SIGINT');
    await within('etcdctl ends', exited);
  }
}

describe.each(testTargets())('recipes beside etcdctl on $name', (target) => {
  if (target.skip !== undefined) {
    it(`needs ${target.name}`, () => expect.fail(target.skip ?? ''));
    return;
  }
  describe.each(tools)('%s', (line) => {
    let server: RunningProcess;
    let client: Client;
    let running: Tool[] = [];
    let mine = '';

    const etcdctl = (...args: string[]): Tool => {
      const tool = new Tool(line, server.address, args);
      running.push(tool);
      return tool;
    };
    const contenders = async (count: number): Promise<void> => {
      await eventually(`${count} contenders`, async () => (await client.list(prefix(`${mine}/`))).count === count);
    };

    beforeAll(async () => {
      server = await target.start();
      client = await connect({ endpoints: server.address });
    });
    afterAll(async () => {
      await client?.close();
      await server?.[Symbol.asyncDispose]();
    });
    beforeEach(({ task }) => {
      mine = `interop/${task.id}`;
    });
    afterEach(async () => {
      for (const tool of running) await tool.interrupt();
      running = [];
    });

    it('lock() waits for etcdctl lock', async () => {
      const holder = etcdctl('lock', mine);
      await holder.prints(`${mine}/`);
      expect(await tryLock(client, mine)).toBeUndefined();
      await expect(lock(client, mine, { timeoutMs: 200 })).rejects.toMatchObject({ code: 'lock-timeout' });
      const waiting = lock(client, mine);
      await contenders(2);
      await holder.interrupt();
      const held = await within('the lock', waiting);
      expect(held.isHeld).toBe(true);
      await held.release();
    });

    it('etcdctl lock waits for lock()', async () => {
      const held = await lock(client, mine);
      const waiter = etcdctl('lock', mine);
      await contenders(2);
      expect(waiter.output).toBe('');
      await held.release();
      await waiter.prints(`${mine}/`);
    });

    it('both pass a lock on in the order in which they queued', async () => {
      const first = await lock(client, mine);
      const second = etcdctl('lock', mine);
      await contenders(2);
      const third = lock(client, mine);
      await contenders(3);
      await first.release();
      await second.prints(`${mine}/`);
      await contenders(2);
      await second.interrupt();
      await (await within('the lock', third)).release();
    });

    it('campaign() waits for etcdctl elect, and sees its proposal', async () => {
      const theirs = etcdctl('elect', mine, 'their-proposal');
      await theirs.prints('their-proposal');
      expect((await leader(client, mine))?.value).toBe('their-proposal');
      const waiting = campaign(client, mine, { value: 'ours' });
      await contenders(2);
      await theirs.interrupt();
      const leadership = await within('the election', waiting);
      expect((await leader(client, mine))?.token).toBe(leadership.token);
      await leadership.resign();
    });

    it('etcdctl elect waits for campaign(), and etcdctl elect -l follows ours', async () => {
      const leadership = await campaign(client, mine, { value: 'ours' });
      const observer = etcdctl('elect', '-l', mine);
      await observer.prints('ours');
      await leadership.proclaim('still-ours');
      await observer.prints('still-ours');
      const theirs = etcdctl('elect', mine, 'their-proposal');
      await contenders(2);
      expect(theirs.output).toBe('');
      await leadership.resign();
      await theirs.prints('their-proposal');
      await observer.prints('their-proposal');
    });
  });
});
