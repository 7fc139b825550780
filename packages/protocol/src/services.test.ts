import { readFileSync } from 'node:fs';
import { createFileRegistry, fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { expect, expectTypeOf, test } from 'vitest';
import * as protocol from './index.ts';
import { AlarmType, KV, Maintenance, type MethodDescriptor, type ServiceDescriptor, Watch } from './index.ts';

const descriptors = readFileSync(new URL('../testdata/descriptors.bin', import.meta.url));
const files = [...createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors)).files];
const services = files.flatMap((file) => file.services);

function exported(name: string): ServiceDescriptor {
  return (protocol as unknown as Record<string, ServiceDescriptor>)[name] as ServiceDescriptor;
}

test.each(services.map((service) => [service.typeName, service] as const))('%s has its procedures as declared', (_name, service) => {
  const ours = exported(service.name);
  expect(ours.typeName).toBe(service.typeName);
  const methods = Object.values(ours.methods);
  expect(methods.map((method) => method.name)).toEqual(service.methods.map((method) => method.name));
  for (const [at, declared] of service.methods.entries()) {
    expect(methods[at]).toMatchObject({
      path: `/${service.typeName}/${declared.name}`,
      input: { typeName: declared.input.typeName },
      output: { typeName: declared.output.typeName },
      clientStreaming: declared.proto.clientStreaming,
      serverStreaming: declared.proto.serverStreaming,
    });
  }
});

test('every enum is exported with the spelling of the wire', () => {
  const enums = files.flatMap((file) => [...file.enums, ...file.messages.flatMap((message) => message.nestedEnums)]);
  for (const desc of enums) {
    const name = desc.typeName.slice(desc.file.proto.package.length + 1).replaceAll('.', '_');
    const values = Object.fromEntries(desc.values.map((value) => [value.name, value.number]));
    expect((protocol as unknown as Record<string, unknown>)[name]).toEqual(values);
  }
});

test('descriptors keep the types of both ends', () => {
  expectTypeOf(KV.methods.range).toEqualTypeOf<MethodDescriptor<protocol.RangeRequest, protocol.RangeResponse, false, false>>();
  expectTypeOf(KV.methods.rangeStream.serverStreaming).toEqualTypeOf<true>();
  expectTypeOf(Watch.methods.watch).toEqualTypeOf<MethodDescriptor<protocol.WatchRequest, protocol.WatchResponse, true, true>>();
  expectTypeOf(Maintenance.methods.hashKv.path).toEqualTypeOf<string>();
  expectTypeOf(AlarmType.NOSPACE).toEqualTypeOf<1>();
  const any: ServiceDescriptor = KV;
  expect(any.typeName).toBe('etcdserverpb.KV');
});
