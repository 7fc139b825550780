import type { Value } from '../kv/text.ts';
import type { SchemaInput, SchemaOutput, StandardResult, StandardSchemaV1, ValueIssue } from './standard-schema.ts';

/**
 * How the values of a key space are stored and read. What it throws, or rejects with, says that a value cannot be: an `issues` property, if
 * there is one, is passed on.
 *
 * @example
 * ```ts
 * const dates: Codec<Date> = { encode: (date) => date.toISOString(), decode: (bytes) => new Date(Buffer.from(bytes).toString()) };
 * ```
 */
export interface Codec<In, Out = In> {
  encode(value: In): Value | Promise<Value>;
  decode(bytes: Uint8Array): Out | Promise<Out>;
}

/** What JSON can say. */
export type JsonValue = string | number | boolean | null | readonly JsonValue[] | { readonly [name: string]: JsonValue };

/**
 * Values as JSON. With a schema each value is validated when it is read, and before it is written as it will be read: what has no JSON form
 * (a Date where the schema wants one) is found out by the writer. What a schema adds or changes, it adds when the value is read; it is not
 * stored.
 *
 * @example
 * ```ts
 * const users = client.space('users/', json(z.object({ name: z.string() })));
 * await users.put('7', { name: 'Ada' });
 * ```
 */
export function json(): Codec<JsonValue>;
export function json<Schema extends StandardSchemaV1>(schema: Schema): Codec<SchemaInput<Schema>, SchemaOutput<Schema>>;
export function json(schema?: StandardSchemaV1): Codec<unknown> {
  return {
    encode(value) {
      const text: string | undefined = JSON.stringify(value);
      if (text === undefined) throw new InvalidValue([{ message: `JSON has no word for ${typeof value}` }]);
      if (schema === undefined) return text;
      const validated = validate(schema, JSON.parse(text));
      return validated instanceof Promise ? validated.then(() => text) : text;
    },
    decode(bytes) {
      const value: unknown = JSON.parse(strictText(bytes));
      return schema === undefined ? value : validate(schema, value);
    },
  };
}

/**
 * Values as text, which must be UTF-8.
 *
 * @example
 * ```ts
 * await client.space('greetings/', text()).put('en', 'hello');
 * ```
 */
export function text(): Codec<string> {
  return { encode: (value) => value, decode: strictText };
}

/**
 * Values as they are. The bytes that are read are a view of the answer they came in: copy what you keep for long.
 *
 * @example
 * ```ts
 * await client.space('blobs/', bytes()).put('zero', new Uint8Array(16));
 * ```
 */
export function bytes(): Codec<Uint8Array> {
  return { encode: (value) => value, decode: (value) => value };
}

/** What generators of protobuf code make of a message: bytes at once, or a writer to be finished. */
export interface MessageType<In, Out> {
  encode(message: In): Uint8Array | { finish(): Uint8Array };
  decode(bytes: Uint8Array): Out;
}

/**
 * Values as protobuf messages, of any generator whose types have `encode` and `decode`. For one that has functions instead, write the
 * {@link Codec} out: `{ encode: (user) => toBinary(UserSchema, user), decode: (bytes) => fromBinary(UserSchema, bytes) }`.
 *
 * @example
 * ```ts
 * const users = client.space('users/', message(User)); // User: as generated
 * ```
 */
export function message<In, Out>(type: MessageType<In, Out>): Codec<In, Out> {
  return {
    encode(value) {
      const encoded = type.encode(value);
      return encoded instanceof Uint8Array ? encoded : encoded.finish();
    },
    decode: (data) => type.decode(data),
  };
}

export function isSchema(codec: object): codec is StandardSchemaV1 {
  return '~standard' in codec;
}

class InvalidValue extends Error {
  readonly issues: readonly ValueIssue[];

  constructor(issues: readonly ValueIssue[]) {
    super(issues.map(({ message }) => message).join('; '));
    this.issues = issues;
  }
}

/** What a codec that gave up says is wrong. */
export function issuesOf(error: unknown): readonly ValueIssue[] {
  if (typeof error === 'object' && error !== null && 'issues' in error && Array.isArray(error.issues)) return error.issues;
  return [{ message: error instanceof Error ? error.message : String(error) }];
}

function validate(schema: StandardSchemaV1, value: unknown): unknown {
  const result = schema['~standard'].validate(value);
  return result instanceof Promise ? result.then(accepted) : accepted(result);
}

function accepted(result: StandardResult<unknown>): unknown {
  if (result.issues !== undefined) throw new InvalidValue(result.issues);
  return result.value;
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function strictText(data: Uint8Array): string {
  return decoder.decode(data);
}
