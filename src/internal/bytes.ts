/** Returns a `Buffer` that shares the memory of the bytes. */
export const asBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** No bytes. */
export const EMPTY = Buffer.alloc(0)
