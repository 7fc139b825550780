import type { Logger } from '@conclave/wire';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

export const logLevels: readonly LogLevel[] = ['debug', 'info', 'warn', 'error'];

export interface JsonLogOptions {
  /** Takes a line, its newline included. */
  readonly write: (line: string) => void;
  /** Lines below it are not written. */
  readonly level: LogLevel;
  /** Milliseconds since 1970. */
  readonly wall: () => number;
}

/**
 * A log of JSON lines with etcd's names for what every line has: `level`, `ts`, `msg`. A field that cannot be written as JSON never costs the
 * line: 64-bit numbers become hexadecimal text, errors their message, bytes base64.
 */
export function jsonLog({ write, level, wall }: JsonLogOptions): Logger {
  const lowest = logLevels.indexOf(level);
  const at =
    (name: LogLevel) =>
    (fields: object, message: string): void => {
      if (logLevels.indexOf(name) < lowest) return;
      write(`${JSON.stringify({ level: name, ts: new Date(wall()).toISOString(), msg: message, ...fields }, plain)}\n`);
    };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

function plain(_name: string, value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString(16);
  if (value instanceof Error) return value.message;
  return value instanceof Uint8Array ? Buffer.from(value).toString('base64') : value;
}
