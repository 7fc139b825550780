// A KeyValue of everyday size in a buffer of its own costs more for the buffer than for the bytes, at its making and at every collection of
// garbage. So they share slabs. A slab lives as long as any of them, which bounds what one long-lived row can hold on to.
const slabBytes = 8192;
const sharedBytesMax = 1024;

let slab = new ArrayBuffer(slabBytes);
let used = 0;

/** New bytes, all zero. */
export function allocate(size: number): Uint8Array {
  if (size > sharedBytesMax) return new Uint8Array(size);
  if (used + size > slabBytes) {
    slab = new ArrayBuffer(slabBytes);
    used = 0;
  }
  const bytes = new Uint8Array(slab, used, size);
  used += size;
  return bytes;
}
