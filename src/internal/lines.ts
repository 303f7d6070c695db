/** Text in lines, as far as bytes are concerned. */
import { asBuffer } from "./bytes.js"

const LF = 0x0a
const CR = 0x0d
const SPACE = 0x20

/** Cuts bytes at the ends of their lines. A character may be split between two chunks, for bytes are not read. */
export class LineSplitter {
  private held: Array<Uint8Array> = []
  private heldBytes = 0

  /** `bound` is how many bytes a line may have. */
  constructor(private readonly bound: number) {}

  /**
   * Calls `each` with every line that this chunk completes, without its end. False when a line is too long: what is
   * held of it is let go, and the rest of the chunk is not looked at.
   */
  push(chunk: Uint8Array, each: (line: Buffer) => void): boolean {
    let start = 0
    for (let end = chunk.indexOf(LF); end >= 0; end = chunk.indexOf(LF, start)) {
      const line = this.complete(chunk.subarray(start, end))
      if (line === undefined) return false
      each(line)
      start = end + 1
    }
    return this.hold(chunk.subarray(start))
  }

  /** What follows the last end of a line. */
  flush(): Buffer | undefined {
    return this.heldBytes === 0 ? undefined : this.complete(new Uint8Array())
  }

  private complete(end: Uint8Array): Buffer | undefined {
    if (!this.hold(end)) return undefined
    const [first] = this.held
    const line = this.held.length === 1 && first !== undefined ? asBuffer(first) : Buffer.concat(this.held)
    this.letGo()
    return line.at(-1) === CR ? line.subarray(0, -1) : line
  }

  private hold(part: Uint8Array): boolean {
    if (this.heldBytes + part.length > this.bound) {
      this.letGo()
      return false
    }
    if (part.length > 0) this.held.push(part)
    this.heldBytes += part.length
    return true
  }

  private letGo(): void {
    this.held = []
    this.heldBytes = 0
  }
}

/** JSON as one line: outside of its strings, which hold no raw line ends, these are as good as spaces. */
export const asLine = (json: Uint8Array): Buffer => {
  const line = asBuffer(json)
  if (!line.includes(LF) && !line.includes(CR)) return line
  return Buffer.from(line.map((byte) => (byte === LF || byte === CR ? SPACE : byte)))
}

/** The same with the end of the line. */
export const lineOf = (json: Uint8Array | string): Buffer =>
  Buffer.concat([asLine(typeof json === "string" ? Buffer.from(json) : json), END])

const END = Buffer.from("\n")
