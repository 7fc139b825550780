import type { Runtime } from '@conclave/wire';

/** A word that nobody else draws: 128 bits. */
export function drawId(runtime: Runtime): string {
  const part = (): string =>
    Math.floor(runtime.random() * 2 ** 32)
      .toString(16)
      .padStart(8, '0');
  return `${part()}${part()}${part()}${part()}`;
}
