/** A command line or an environment that cannot be followed. */
export class UsageError extends Error {
  /** Of the process: 2 for a flag that is not one or has no such value, 1 for values that do not go together, as in etcd. */
  readonly exitCode: 1 | 2;

  constructor(exitCode: 1 | 2, message: string) {
    super(message);
    this.name = 'UsageError';
    this.exitCode = exitCode;
  }
}

/** One flag, in all the ways it can be given. */
export interface Flag {
  readonly name: string;
  /** A name it had in earlier releases. */
  readonly alias?: string;
  /** As it would be written; undefined when nothing stands for it. */
  readonly fallback?: string;
  /** True or false, and true when the flag stands alone: its value can only be behind an equals sign. */
  readonly isBoolean?: boolean;
  /** Throws with the reason when the value cannot be. */
  readonly check?: (value: string) => void;
  /** One line. */
  readonly help: string;
}

export interface GivenFlags {
  /** What was given for a flag, by its present name; an unset one is missing. */
  readonly values: ReadonlyMap<string, string>;
  /** True for these without a value, or with `=true`. */
  readonly switches: ReadonlySet<string>;
  readonly warnings: readonly string[];
}

/**
 * Reads `--flag value`, `--flag=value` and the same with one dash, and for what is not among them the environment: `ETCD_` and the flag's name in
 * capitals. A flag wins over its variable; an empty variable is none.
 *
 * @throws UsageError in etcd's words
 */
export function readFlags(
  flags: readonly Flag[],
  switches: readonly string[],
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): GivenFlags {
  const known = new Map<string, Flag>();
  for (const flag of flags) for (const name of [flag.name, flag.alias]) if (name !== undefined) known.set(name, flag);
  const given = readArguments(known, switches, argv);
  const warnings: string[] = [];
  for (const [variable, value] of Object.entries(env)) {
    if (!variable.startsWith('ETCD_') || value === undefined || value === '') continue;
    const flag = known.get(variable.slice('ETCD_'.length).toLowerCase().replaceAll('_', '-'));
    if (flag === undefined) warnings.push(`unrecognized environment variable ${variable}`);
    else if (given.values.has(flag.name)) warnings.push(`environment variable ${variable} is shadowed by the command-line flag`);
    else given.values.set(flag.name, checked(flag, value, 1, `${variable}`));
  }
  return { ...given, warnings };
}

function readArguments(
  known: ReadonlyMap<string, Flag>,
  switches: readonly string[],
  argv: readonly string[],
): { readonly values: Map<string, string>; readonly switches: Set<string> } {
  const values = new Map<string, string>();
  const on = new Set<string>();
  const rest = [...argv];
  for (let argument = rest.shift(); argument !== undefined; argument = rest.shift()) {
    const [, name, equals, attached = ''] = /^--?([^-=][^=]*)(=(.*))?$/s.exec(argument) ?? [];
    if (name === undefined) throw new UsageError(1, `'${argument}' is not a valid flag`);
    if (switches.includes(name)) {
      if (equals === undefined || attached === 'true') on.add(name);
      continue;
    }
    const flag = known.get(name);
    if (flag === undefined) throw new UsageError(2, `flag provided but not defined: -${name}`);
    if (flag.isBoolean) {
      values.set(flag.name, checkedBoolean(name, equals === undefined ? 'true' : attached));
      continue;
    }
    const value = equals === undefined ? rest.shift() : attached;
    if (value === undefined) throw new UsageError(2, `flag needs an argument: -${name}`);
    values.set(flag.name, checked(flag, value, 2, `flag -${name}`));
  }
  return { values, switches: on };
}

function checked(flag: Flag, value: string, exitCode: 1 | 2, where: string): string {
  try {
    flag.check?.(value);
    return value;
  } catch (error) {
    throw new UsageError(
      exitCode,
      `invalid value ${JSON.stringify(value)} for ${where}: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

function checkedBoolean(name: string, value: string): string {
  if (booleans.has(value)) return value;
  throw new UsageError(2, `invalid boolean value ${JSON.stringify(value)} for -${name}: parse error`);
}

/** As Go reads them. */
const booleans: ReadonlyMap<string, boolean> = new Map(
  ['1', 't', 'T', 'TRUE', 'true', 'True', '0', 'f', 'F', 'FALSE', 'false', 'False'].map((text, at) => [text, at < 6]),
);

export function parseBoolean(text: string): boolean {
  const value = booleans.get(text);
  if (value === undefined) throw new Error('parse error');
  return value;
}

/** A whole number in decimal, with or without a sign. */
export function parseInteger(text: string): number {
  return text.startsWith('-') ? -parseCount(text.slice(1)) : parseCount(text.replace(/^\+/, ''));
}

/** A whole number of at least 0, in decimal. */
export function parseCount(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text)) throw new Error('parse error');
  if (!Number.isSafeInteger(value)) throw new Error('value out of range');
  return value;
}

const unitMs: Readonly<Record<string, number>> = { ns: 1e-6, us: 1e-3, µs: 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Milliseconds of a duration as Go writes them: `10m`, `1h30m`, `1.5s`, `0`. */
export function parseDuration(text: string): number {
  if (text === '0') return 0;
  if (!/^(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))*$/.test(text)) throw new Error('parse error');
  let total = 0;
  for (const [, amount, unit = ''] of text.matchAll(/([\d.]+)([a-zµ]+)/g)) total += Number(amount) * (unitMs[unit] ?? 0);
  return total;
}
