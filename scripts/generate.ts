/**
 * Writes the message codec of @conclave/protocol from its .proto files.
 *
 *     node --import tsx scripts/generate.ts           write what changed
 *     node --import tsx scripts/generate.ts --check   write nothing, fail when something would change
 *
 * One TypeScript file per .proto file under src/gen, and the descriptors for the tests under testdata. The shape of the
 * generated code, and why it is not that of a library, is in packages/protocol/DESIGN.md.
 */

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  createFileRegistry,
  type DescEnum,
  type DescField,
  type DescFile,
  type DescMessage,
  type DescMethod,
  type DescOneof,
  type DescService,
  fromBinary,
  ScalarType,
  toBinary,
} from '@bufbuild/protobuf';
import { type FileDescriptorSet, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';

const root = fileURLToPath(new URL('..', import.meta.url));
const packageDir = join(root, 'packages', 'protocol');
const genDir = join(packageDir, 'src', 'gen');
const testdataDir = join(packageDir, 'testdata');

/**
 * The 64-bit fields that name something. They may use all 64 bits and are only ever compared for equality, so they stay
 * bigint; every other 64-bit field counts something and becomes a number.
 */
const idFields: ReadonlySet<string> = new Set([
  'etcdserverpb.ResponseHeader.cluster_id',
  'etcdserverpb.ResponseHeader.member_id',
  'mvccpb.KeyValue.lease',
  'etcdserverpb.PutRequest.lease',
  'etcdserverpb.Compare.lease',
  'etcdserverpb.LeaseGrantRequest.ID',
  'etcdserverpb.LeaseGrantResponse.ID',
  'etcdserverpb.LeaseRevokeRequest.ID',
  'etcdserverpb.LeaseCheckpoint.ID',
  'etcdserverpb.LeaseKeepAliveRequest.ID',
  'etcdserverpb.LeaseKeepAliveResponse.ID',
  'etcdserverpb.LeaseTimeToLiveRequest.ID',
  'etcdserverpb.LeaseTimeToLiveResponse.ID',
  'etcdserverpb.LeaseStatus.ID',
  'v3lockpb.LockRequest.lease',
  'v3electionpb.CampaignRequest.lease',
  'v3electionpb.LeaderKey.lease',
  'etcdserverpb.Member.ID',
  'etcdserverpb.MemberRemoveRequest.ID',
  'etcdserverpb.MemberUpdateRequest.ID',
  'etcdserverpb.MemberPromoteRequest.ID',
  'etcdserverpb.AlarmRequest.memberID',
  'etcdserverpb.AlarmMember.memberID',
  'etcdserverpb.StatusResponse.leader',
  'etcdserverpb.MoveLeaderRequest.targetID',
  'etcdserverpb.WatchCreateRequest.watch_id',
  'etcdserverpb.WatchCancelRequest.watch_id',
  'etcdserverpb.WatchResponse.watch_id',
  'conclavepb.MemberRecord.ID',
  'conclavepb.MemberPublication.ID',
]);

/** 64-bit fields whose name looks like an id's must be in the table: a new one may not become a number unnoticed. */
const looksLikeId = /(?:^|_)id$|ID$|^lease$|^leader$/;

/** How one scalar kind is handled; `read` and `write` are methods of Reader and Writer. */
interface Scalar {
  readonly type: string;
  readonly zero: string;
  readonly method: string;
  readonly wireType: 0 | 2;
}

const lines = (...parts: readonly (string | readonly string[])[]): string[] => parts.flat();
const indent = (body: readonly string[]): string[] => body.map((line) => (line === '' ? '' : `  ${line}`));

/** camelCase with acronyms as words: `peerURLs` becomes `peerUrls`, `prev_kv` becomes `prevKv`, `HashKV` becomes `hashKv`. */
function camelCase(name: string): string {
  const words = name.match(/[A-Z]+s?(?![a-z])|[A-Z]?[a-z0-9]+/g) ?? [];
  return words.map((word, at) => (at === 0 ? word.toLowerCase() : word.charAt(0).toUpperCase() + word.slice(1).toLowerCase())).join('');
}

/** A name without its package, nested types joined by `_`. */
function typeNameOf(desc: DescMessage | DescEnum): string {
  const prefix = desc.file.proto.package;
  return desc.typeName.slice(prefix.length + 1).replaceAll('.', '_');
}

const fieldNameOf = (field: DescField): string => camelCase(field.name);

function fieldPath(field: DescField): string {
  return `${field.parent.typeName}.${field.name}`;
}

function scalarOf(field: DescField): Scalar {
  if (field.enum !== undefined) return { type: 'number', zero: '0', method: 'int32', wireType: 0 };
  const isId = idFields.has(fieldPath(field));
  switch (field.scalar) {
    case ScalarType.BYTES:
      return { type: 'Uint8Array', zero: 'emptyBytes', method: 'view', wireType: 2 };
    case ScalarType.STRING:
      return { type: 'string', zero: "''", method: 'string', wireType: 2 };
    case ScalarType.BOOL:
      return { type: 'boolean', zero: 'false', method: 'bool', wireType: 0 };
    case ScalarType.INT32:
      return { type: 'number', zero: '0', method: 'int32', wireType: 0 };
    case ScalarType.UINT32:
      return { type: 'number', zero: '0', method: 'uint32', wireType: 0 };
    case ScalarType.INT64:
      return isId
        ? { type: 'bigint', zero: '0n', method: 'int64Id', wireType: 0 }
        : { type: 'number', zero: '0', method: 'int64', wireType: 0 };
    case ScalarType.UINT64:
      return isId
        ? { type: 'bigint', zero: '0n', method: 'uint64Id', wireType: 0 }
        : { type: 'number', zero: '0', method: 'uint64', wireType: 0 };
    default:
      throw new Error(`${fieldPath(field)}: this kind of field is not supported`);
  }
}

const tagOf = (field: DescField, wireType: number): number => field.number * 8 + wireType;

function checkSupported(field: DescField): void {
  if (field.fieldKind === 'map') throw new Error(`${fieldPath(field)}: map fields are not supported`);
  if (field.proto.proto3Optional) throw new Error(`${fieldPath(field)}: optional scalars are not supported`);
  const is64 = field.scalar === ScalarType.INT64 || field.scalar === ScalarType.UINT64;
  if (is64 && looksLikeId.test(field.name) && !idFields.has(fieldPath(field))) {
    throw new Error(`${fieldPath(field)} looks like an id: add it to idFields, or say here why it is none`);
  }
}

function checkIdFields(files: readonly DescFile[]): void {
  const known = new Set(
    files.flatMap((file) => file.messages.flatMap((message) => message.fields.filter((f) => f.scalar !== undefined).map(fieldPath))),
  );
  for (const name of idFields) if (!known.has(name)) throw new Error(`idFields names ${name}, which does not exist`);
}

// --- Documentation -------------------------------------------------------------------------------------------------

/** Comments of one file by the path of what they belong to. */
type Comments = ReadonlyMap<string, string>;

function commentsOf(file: DescFile): Comments {
  const found = new Map<string, string>();
  for (const location of file.proto.sourceCodeInfo?.location ?? []) {
    if (location.leadingComments !== '') found.set(location.path.join('.'), location.leadingComments.trim());
  }
  return found;
}

const docLines = (text: string | undefined): string[] =>
  text === undefined
    ? []
    : [
        `/** ${text
          .split('\n')
          .map((line) => line.trim())
          .join(' ')
          .replaceAll('*/', '* /')} */`,
      ];

// The numbers are those of descriptor.proto: FileDescriptorProto.message_type is 4, enum_type 5, service 6;
// DescriptorProto.field is 2, enum_type 4; EnumDescriptorProto.value is 2; ServiceDescriptorProto.method is 2.
function pathOf(desc: DescMessage | DescEnum | DescService): string {
  if (desc.kind === 'service') return `6.${desc.file.services.indexOf(desc)}`;
  const { parent } = desc;
  if (desc.kind === 'enum')
    return parent === undefined ? `5.${desc.file.enums.indexOf(desc)}` : `${pathOf(parent)}.4.${parent.nestedEnums.indexOf(desc)}`;
  if (parent !== undefined) throw new Error(`${desc.typeName}: nested messages are not supported`);
  return `4.${desc.file.messages.indexOf(desc)}`;
}

// --- Messages ------------------------------------------------------------------------------------------------------

function interfaceLines(message: DescMessage, comments: Comments): string[] {
  const body = message.fields.flatMap((field, at) => {
    checkSupported(field);
    const doc = docLines(comments.get(`${pathOf(message)}.2.${at}`));
    return [...doc, `${fieldNameOf(field)}: ${fieldType(field)};`];
  });
  const doc = docLines(comments.get(pathOf(message)));
  const name = typeNameOf(message);
  // An empty interface would accept every value there is.
  if (body.length === 0) return lines(doc, `export type ${name} = Record<string, never>;`);
  return lines(doc, `export interface ${name} {`, indent(body), '}');
}

function fieldType(field: DescField): string {
  const single = field.message !== undefined ? typeNameOf(field.message) : scalarOf(field).type;
  if (field.fieldKind === 'list') return `${single}[]`;
  return field.message !== undefined || field.oneof !== undefined ? `${single} | undefined` : single;
}

function fieldDefault(field: DescField): string {
  if (field.fieldKind === 'list') return '[]';
  return field.message !== undefined || field.oneof !== undefined ? 'undefined' : scalarOf(field).zero;
}

function emptyLines(message: DescMessage): string[] {
  const name = typeNameOf(message);
  const body = message.fields.map((field) => `${fieldNameOf(field)}: ${fieldDefault(field)},`);
  if (body.length === 0) return [`export function empty${name}(): ${name} {`, '  return {};', '}'];
  return lines(`export function empty${name}(): ${name} {`, '  return {', indent(indent(body)), '  };', '}');
}

function createLines(message: DescMessage): string[] {
  const name = typeNameOf(message);
  if (message.fields.length === 0) {
    return [`export function create${name}(_init?: Init<${name}>): ${name} {`, '  return {};', '}'];
  }
  const body = message.fields.map((field) => {
    const property = fieldNameOf(field);
    const make = field.message === undefined ? undefined : `create${typeNameOf(field.message)}`;
    const given = `init.${property}`;
    let value = make === undefined ? given : `${make}(${given})`;
    if (field.fieldKind === 'list') value = make === undefined ? `[...${given}]` : `${given}.map((each) => ${make}(each))`;
    return `if (${given} !== undefined) message.${property} = ${value};`;
  });
  return lines(
    `export function create${name}(init?: Init<${name}>): ${name} {`,
    `  const message = empty${name}();`,
    '  if (init === undefined) return message;',
    indent(body),
    '  return message;',
    '}',
  );
}

function readCases(field: DescField): string[] {
  const property = `message.${fieldNameOf(field)}`;
  const cleared =
    field.oneof !== undefined
      ? field.oneof.fields.filter((other) => other !== field).map((other) => `message.${fieldNameOf(other)} = undefined;`)
      : [];
  if (field.message !== undefined) {
    const name = typeNameOf(field.message);
    const isList = field.fieldKind === 'list';
    return lines(
      `case ${tagOf(field, 2)}: {`,
      '  const outer = reader.enter();',
      // A message field sent twice is one message in two parts.
      `  const part = ${isList ? `empty${name}()` : `${property} ?? empty${name}()`};`,
      `  merge${name}(reader, part);`,
      '  reader.leave(outer);',
      indent(cleared),
      isList ? `  ${property}.push(part);` : `  ${property} = part;`,
      '  break;',
      '}',
    );
  }
  const scalar = scalarOf(field);
  const read = `reader.${scalar.method}()`;
  if (field.fieldKind !== 'list') {
    return lines(`case ${tagOf(field, scalar.wireType)}:`, indent(cleared), `  ${property} = ${read};`, '  break;');
  }
  const single = [`case ${tagOf(field, scalar.wireType)}:`, `  ${property}.push(${read});`, '  break;'];
  if (scalar.wireType === 2) return single;
  return lines(
    single,
    `case ${tagOf(field, 2)}: {`,
    '  const outer = reader.pack();',
    `  while (reader.pos < reader.limit) ${property}.push(${read});`,
    '  reader.unpack(outer);',
    '  break;',
    '}',
  );
}

function mergeLines(message: DescMessage): string[] {
  const name = typeNameOf(message);
  if (message.fields.length === 0) {
    return [
      `export function merge${name}(reader: Reader, _message: ${name}): void {`,
      '  while (reader.pos < reader.limit) reader.skip(reader.tag());',
      '}',
    ];
  }
  const known = message.fields.map((field) => `case ${field.number}:`);
  const fallback = lines(
    'default:',
    '  switch (tag >>> 3) {',
    indent(indent(known)),
    `      throw reader.wrongWireType(tag, '${message.typeName}');`,
    '    default:',
    '      reader.skip(tag);',
    '  }',
  );
  return lines(
    `export function merge${name}(reader: Reader, message: ${name}): void {`,
    '  while (reader.pos < reader.limit) {',
    '    const tag = reader.tag();',
    '    switch (tag) {',
    indent(indent(indent([...message.fields.flatMap(readCases), ...fallback]))),
    '    }',
    '  }',
    '}',
  );
}

/** Writes one present value. The writer goes backwards: contents first, then length and tag. */
function writeValue(field: DescField, value: string): string[] {
  if (field.message !== undefined) {
    return [
      'const end = writer.size();',
      `write${typeNameOf(field.message)}(writer, ${value});`,
      'writer.small(writer.size() - end);',
      `writer.small(${tagOf(field, 2)});`,
    ];
  }
  const scalar = scalarOf(field);
  return [`writer.${scalar.method}(${value});`, `writer.small(${tagOf(field, scalar.wireType)});`];
}

function writeField(field: DescField): string[] {
  const property = `message.${fieldNameOf(field)}`;
  const local = fieldNameOf(field);
  if (field.fieldKind === 'list') {
    const packed = field.message === undefined && scalarOf(field).wireType === 0;
    const loop = (body: readonly string[]): string[] => lines(`for (let at = ${local}.length - 1; at >= 0; at--) {`, indent(body), '}');
    const each = `${local}[at]!`;
    const body = packed
      ? lines(
          'const end = writer.size();',
          loop([`writer.${scalarOf(field).method}(${each});`]),
          'writer.small(writer.size() - end);',
          `writer.small(${tagOf(field, 2)});`,
        )
      : loop(writeValue(field, each));
    return lines(
      `const ${local} = ${property};`,
      `if (${local} !== undefined${packed ? ` && ${local}.length > 0` : ''}) {`,
      indent(body),
      '}',
    );
  }
  if (field.message !== undefined) {
    return lines(`const ${local} = ${property};`, `if (${local} !== undefined) {`, indent(writeValue(field, local)), '}');
  }
  const scalar = scalarOf(field);
  if (scalar.type === 'boolean') return lines(`if (${property} === true) {`, indent(writeValue(field, 'true')), '}');
  const present = scalar.type === 'Uint8Array' ? `${local}.length > 0` : `${local} !== ${scalar.zero}`;
  return lines(`const ${local} = ${property};`, `if (${local} !== undefined && ${present}) {`, indent(writeValue(field, local)), '}');
}

function writeOneof(oneof: DescOneof): string[] {
  const members = [...oneof.fields].sort((a, b) => b.number - a.number);
  const branches = members.flatMap((field, at) => {
    const property = `message.${fieldNameOf(field)}`;
    const open = `if (${property} !== undefined) {`;
    return lines(at === 0 ? open : `} else ${open}`, indent(writeValue(field, property)));
  });
  return [...branches, '}'];
}

function writeLines(message: DescMessage): string[] {
  const name = typeNameOf(message);
  if (message.fields.length === 0) return [`export function write${name}(_writer: Writer, _message: Init<${name}>): void {}`];
  const done = new Set<DescOneof>();
  const body = [...message.fields]
    .sort((a, b) => b.number - a.number)
    .flatMap((field) => {
      if (field.oneof === undefined) return writeField(field);
      if (done.has(field.oneof)) return [];
      done.add(field.oneof);
      return writeOneof(field.oneof);
    });
  return lines(`export function write${name}(writer: Writer, message: Init<${name}>): void {`, indent(body), '}');
}

function typeLines(message: DescMessage): string[] {
  const name = typeNameOf(message);
  return [
    `export const ${name}: MessageType<${name}> = {`,
    `  typeName: '${message.typeName}',`,
    `  create: create${name},`,
    `  encode: (message, headroom) => encodeWith(write${name}, message, headroom),`,
    '  decode: (bytes) => {',
    `    const message = empty${name}();`,
    `    merge${name}(new Reader(bytes), message);`,
    '    return message;',
    '  },',
    '};',
  ];
}

function messageLines(message: DescMessage, comments: Comments): string[] {
  return lines(
    interfaceLines(message, comments),
    '',
    typeLines(message),
    '',
    '/** @internal */',
    emptyLines(message),
    '',
    '/** @internal */',
    createLines(message),
    '',
    '/** @internal */',
    mergeLines(message),
    '',
    '/** @internal */',
    writeLines(message),
    '',
  );
}

// --- Enums and services --------------------------------------------------------------------------------------------

function enumLines(desc: DescEnum, comments: Comments): string[] {
  const values = desc.values.flatMap((value, at) => [
    ...docLines(comments.get(`${pathOf(desc)}.2.${at}`)),
    `${value.name}: ${value.number},`,
  ]);
  return lines(docLines(comments.get(pathOf(desc))), `export const ${typeNameOf(desc)} = {`, indent(values), '} as const;', '');
}

function methodType(method: DescMethod): string {
  const clientStreaming = method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming';
  const serverStreaming = method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming';
  return `MethodDescriptor<${typeNameOf(method.input)}, ${typeNameOf(method.output)}, ${clientStreaming}, ${serverStreaming}>`;
}

function serviceLines(service: DescService, comments: Comments): string[] {
  const types = service.methods.map((method) => `readonly ${camelCase(method.name)}: ${methodType(method)};`);
  const values = service.methods.flatMap((method) => [
    `${camelCase(method.name)}: {`,
    `  name: '${method.name}',`,
    `  path: '/${service.typeName}/${method.name}',`,
    `  input: ${typeNameOf(method.input)},`,
    `  output: ${typeNameOf(method.output)},`,
    `  clientStreaming: ${method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming'},`,
    `  serverStreaming: ${method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming'},`,
    '},',
  ]);
  return lines(
    docLines(comments.get(pathOf(service))),
    `export const ${service.name}: {`,
    `  readonly typeName: '${service.typeName}';`,
    '  readonly methods: {',
    indent(indent(types)),
    '  };',
    '} = {',
    `  typeName: '${service.typeName}',`,
    '  methods: {',
    indent(indent(values)),
    '  },',
    '};',
    '',
  );
}

// --- Files ---------------------------------------------------------------------------------------------------------

/** The import lines that `body` needs. A name counts as used when it occurs; generated code has no prose to mislead that. */
function importLines(file: DescFile, body: string): string[] {
  const uses = (name: string): boolean => new RegExp(`\\b${name}\\b`).test(body);
  const runtime = ['emptyBytes', 'encodeWith', 'type Init', 'type MessageType', 'type MethodDescriptor', 'Reader', 'type Writer'];
  const found = [
    importFrom(
      runtime.filter((name) => uses(name.replace('type ', ''))),
      '../codec.ts',
    ),
  ];
  for (const dependency of file.dependencies) {
    const names = dependency.messages.flatMap((message) => {
      const name = typeNameOf(message);
      const functions = ['create', 'empty', 'merge', 'write'].map((verb) => verb + name).filter(uses);
      const plain = new RegExp(`\\b(?:input|output): ${name},`).test(body) ? [name] : uses(name) ? [`type ${name}`] : [];
      return [...functions, ...plain];
    });
    found.push(importFrom(names, `./${basename(dependency.name)}.ts`));
  }
  return found.flat();
}

function importFrom(names: readonly string[], from: string): string[] {
  const bare = (name: string): string => name.replace('type ', '');
  const sorted = [...names].sort((a, b) => (bare(a) < bare(b) ? -1 : 1));
  const line = `import { ${sorted.join(', ')} } from '${from}';`;
  if (names.length === 0) return [];
  return line.length <= 140 ? [line] : lines('import {', indent(sorted.map((name) => `${name},`)), `} from '${from}';`);
}

function enumsOf(file: DescFile): DescEnum[] {
  return [...file.enums, ...file.messages.flatMap((message) => message.nestedEnums)];
}

function fileText(file: DescFile): string {
  const comments = commentsOf(file);
  const body = lines(
    enumsOf(file).flatMap((desc) => enumLines(desc, comments)),
    file.messages.flatMap((message) => messageLines(message, comments)),
    file.services.flatMap((service) => serviceLines(service, comments)),
  );
  const header = '// generated by scripts/generate.ts; do not edit';
  return `${[header, '', ...importLines(file, body.join('\n')), '', ...body].join('\n').trimEnd()}\n`;
}

function buildDescriptors(): FileDescriptorSet {
  const scratch = mkdtempSync(join(tmpdir(), 'descriptors-'));
  const output = join(scratch, 'set.binpb');
  try {
    const buf = join(root, 'node_modules', '.bin', 'buf');
    execFileSync(buf, ['build', join(packageDir, 'proto'), '--as-file-descriptor-set', '-o', output], { stdio: 'inherit' });
    return fromBinary(FileDescriptorSetSchema, readFileSync(output));
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function outputs(): Map<string, Uint8Array> {
  const set = buildDescriptors();
  const files = [...createFileRegistry(set).files];
  checkIdFields(files);
  const text = new TextEncoder();
  const found = new Map(files.map((file) => [join(genDir, `${basename(file.name)}.ts`), text.encode(fileText(file))]));
  for (const file of set.file) {
    file.sourceCodeInfo = undefined;
    delete file.$unknown;
  }
  found.set(join(testdataDir, 'descriptors.bin'), toBinary(FileDescriptorSetSchema, set));
  return found;
}

function main(checkOnly: boolean): number {
  const wanted = outputs();
  const stale = readdirSync(genDir)
    .map((name) => join(genDir, name))
    .filter((path) => !wanted.has(path));
  const changed = [...wanted].filter(([path, content]) => !existsSync(path) || !readFileSync(path).equals(content));
  if (checkOnly) {
    for (const path of [...stale, ...changed.map(([path]) => path)]) console.error(`differs: ${path.slice(root.length)}`);
    return stale.length + changed.length === 0 ? 0 : 1;
  }
  for (const path of stale) rmSync(path);
  for (const [path, content] of changed) writeFileSync(path, content);
  return 0;
}

for (const dir of [genDir, testdataDir]) mkdirSync(dir, { recursive: true });
process.exitCode = main(process.argv.includes('--check'));
