/** Lines of text as bytes: splitting a byte stream into lines, and encoding JSON as one line. */
import { asBuffer } from "./bytes.js"

const LF = 0x0a
const CR = 0x0d
const SPACE = 0x20

/** Splits a byte stream into lines that end with LF or CRLF. Does not decode it, so a chunk can split a character. */
export class LineSplitter {
  private buffered: Array<Uint8Array> = []
  private bufferedBytes = 0

  /** `maxBytes` is the maximum size of a line. */
  constructor(private readonly maxBytes: number) {}

  /**
   * Calls `onLine` with every line that the chunk completes, without the line ending. Returns false if a line is too
   * long. The splitter then drops its buffered part and the rest of the chunk.
   */
  push(chunk: Uint8Array, onLine: (line: Buffer) => void): boolean {
    let start = 0
    for (let end = chunk.indexOf(LF); end >= 0; end = chunk.indexOf(LF, start)) {
      const line = this.complete(chunk.subarray(start, end))
      if (line === undefined) return false
      onLine(line)
      start = end + 1
    }
    return this.append(chunk.subarray(start))
  }

  /** Removes and returns the bytes after the last line ending; `undefined` if there are none. */
  flush(): Buffer | undefined {
    return this.bufferedBytes === 0 ? undefined : this.complete(new Uint8Array())
  }

  private complete(end: Uint8Array): Buffer | undefined {
    if (!this.append(end)) return undefined
    const [first] = this.buffered
    const line =
      this.buffered.length === 1 && first !== undefined ? asBuffer(first) : Buffer.concat(this.buffered)
    this.reset()
    return line.at(-1) === CR ? line.subarray(0, -1) : line
  }

  private append(part: Uint8Array): boolean {
    if (this.bufferedBytes + part.length > this.maxBytes) {
      this.reset()
      return false
    }
    if (part.length > 0) this.buffered.push(part)
    this.bufferedBytes += part.length
    return true
  }

  private reset(): void {
    this.buffered = []
    this.bufferedBytes = 0
  }
}

/** Replaces line endings in JSON by spaces. Valid JSON has no raw line endings inside of strings. */
export const asLine = (json: Uint8Array): Buffer => {
  const line = asBuffer(json)
  if (!line.includes(LF) && !line.includes(CR)) return line
  return Buffer.from(line.map((byte) => (byte === LF || byte === CR ? SPACE : byte)))
}

/** Encodes JSON as one line, with the line ending. */
export const lineOf = (json: Uint8Array | string): Buffer =>
  Buffer.concat([asLine(typeof json === "string" ? Buffer.from(json) : json), LINE_ENDING])

const LINE_ENDING = Buffer.from("\n")
