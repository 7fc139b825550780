import { preload } from '@conclave/sdk';
import type { ClusterOptions } from './cluster-options.ts';
import { TestCluster } from './test-cluster.ts';

const sizeMax = 7;

/**
 * Starts a cluster in this process, in virtual time: real members, real clients, and a network, disks and clocks that are simulated. An hour of it
 * takes a moment, nothing depends on how fast the machine is, and the same seed gives the same run.
 *
 * Time stands still but within {@link TestCluster.run} and the other methods of the cluster that return a promise. So calls of a client are
 * awaited inside of `run`, and code under test takes its timers from `client.runtime`; `setTimeout` knows nothing of virtual time.
 *
 * @throws TypeError when an option cannot be
 * @example
 * ```ts
 * await using c = await cluster({ size: 3, seed: 7 });
 * await c.run(async () => {
 *   const client = await c.client();
 *   await client.put('greeting', 'hello');
 *   c.crash(await c.leader());
 *   console.log((await client.get('greeting'))?.value); // hello: the other two elect another
 * });
 * ```
 */
export async function cluster(options: ClusterOptions = {}): Promise<TestCluster> {
  const { size = 1, seed = 1, delayMs = [1, 1] } = options;
  if (!Number.isInteger(size) || size < 1 || size > sizeMax) throw new TypeError(`a cluster has 1 to ${sizeMax} members, not ${size}`);
  if (!Number.isInteger(seed)) throw new TypeError(`a seed is a whole number, not ${seed}`);
  const [least, most] = Array.isArray(delayMs) ? (delayMs as readonly [number, number]) : [Number.NaN, Number.NaN];
  if (!(least >= 0 && most >= least && most < Number.POSITIVE_INFINITY))
    throw new TypeError(`delayMs must be [least, most], not ${String(delayMs)}`);
  // Virtual time does not wait for files.
  await preload();
  const built = new TestCluster({ ...options, size, seed, delayMs });
  try {
    await built.restart();
    return built;
  } catch (error) {
    await built.close();
    throw error;
  }
}
