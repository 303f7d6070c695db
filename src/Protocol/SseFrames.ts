/** Splits event streams into frames, without parsing them. */
import { createParser } from "eventsource-parser"
import { type Message, parseMessages, type RequestId } from "./JsonRpc.js"
import { asBuffer } from "../internal/bytes.js"
import { asLine } from "../internal/lines.js"

/** The media type of an event stream. */
export const EVENT_STREAM = "text/event-stream"

const LF = 0x0a
const CR = 0x0d

/** The default maximum size of a held frame, in bytes. */
const MAX_HELD = 1024 * 1024

/** The memory for incomplete frames, shared by many streams. */
export interface FrameBudget {
  /** Reserves bytes for a frame that already has `held` bytes. Returns false if the budget is exhausted. */
  readonly hold: (bytes: number, held: number) => boolean
  readonly release: (bytes: number) => void
}

const unlimited: FrameBudget = { hold: () => true, release: () => {} }

/** Splits a stream between frames, so that other frames can be inserted there. Does not change any bytes. */
export class FrameSplitter {
  private held: Array<Uint8Array> = []
  private heldBytes = 0
  /** The held bytes that are reserved in the budget. */
  private reservedBytes = 0
  private last: number | undefined
  private lastButOne: number | undefined
  private isComplete = true

  /** `maxHeld` is the maximum size of a held frame, in bytes. A larger frame is passed on in pieces. */
  constructor(
    private readonly maxHeld = MAX_HELD,
    private readonly budget = unlimited
  ) {}

  /** Returns the frames that this chunk completes, if any. Holds the rest until the next chunk. */
  push(chunk: Uint8Array): Buffer | undefined {
    const end = this.lastFrameEnd(chunk)
    if (chunk.length > 1) this.lastButOne = chunk[chunk.length - 2]
    else if (chunk.length === 1) this.lastButOne = this.last
    this.last = chunk[chunk.length - 1] ?? this.last
    if (end === 0) return this.hold(chunk)
    this.isComplete = true
    const frames =
      this.held.length === 0 && end === chunk.length ? chunk : this.release(chunk.subarray(0, end))
    if (end < chunk.length) this.keep(chunk.subarray(end))
    return asBuffer(frames)
  }

  /** True if the bytes passed on so far end with a complete frame. */
  get isAtFrameEnd(): boolean {
    return this.isComplete
  }

  /** Returns the end of the first frame that ends in this chunk; 0 if none does. */
  firstFrameEnd(chunk: Uint8Array): number {
    for (let end = 1; end <= chunk.length; end++) if (this.isFrameEnd(chunk, end)) return end
    return 0
  }

  /** Discards the incomplete frame. */
  close(): void {
    this.budget.release(this.reservedBytes)
    this.held = []
    this.heldBytes = 0
    this.reservedBytes = 0
  }

  private hold(chunk: Uint8Array): Buffer | undefined {
    if (this.heldBytes + chunk.length <= this.maxHeld && this.keep(chunk)) return undefined
    this.isComplete = false
    return this.release(chunk)
  }

  /** Holds a chunk. Returns false if the budget is exhausted. The start of a frame is always held. */
  private keep(chunk: Uint8Array): boolean {
    const isReserved = this.budget.hold(chunk.length, this.heldBytes)
    if (!isReserved && this.heldBytes > 0) return false
    this.held.push(chunk)
    this.heldBytes += chunk.length
    if (isReserved) this.reservedBytes += chunk.length
    return true
  }

  private release(chunk: Uint8Array): Buffer {
    const released = Buffer.concat([...this.held, chunk])
    this.close()
    return released
  }

  /** Returns the end of the last frame that ends in this chunk; 0 if none does. */
  private lastFrameEnd(chunk: Uint8Array): number {
    for (let end = chunk.length; end > 0; end--) if (this.isFrameEnd(chunk, end)) return end
    return 0
  }

  /** True if a frame ends here: after an empty line with LF, CR or CRLF. */
  private isFrameEnd(chunk: Uint8Array, end: number): boolean {
    const last = chunk[end - 1]
    if (last !== LF && last !== CR) return false
    const previous = this.byteAt(chunk, end - 2)
    const before = last === LF && previous === CR ? this.byteAt(chunk, end - 3) : previous
    return before === LF || before === CR
  }

  private byteAt(chunk: Uint8Array, index: number): number | undefined {
    return index >= 0 ? chunk[index] : index === -1 ? this.last : index === -2 ? this.lastButOne : undefined
  }
}

/** True if a frame has an event id from which a client can resume. An empty id resets the id. */
export const hasEventId = (frames: Buffer): boolean => {
  for (let at = frames.indexOf(ID); at >= 0; at = frames.indexOf(ID, at + 1)) {
    const isField = at === 0 || frames[at - 1] === LF || frames[at - 1] === CR
    if (isField && /^id: ?[^\r\n]/.test(frames.toString("latin1", at, at + 5))) return true
  }
  return false
}

const ID = Buffer.from("id:")

/** Parses the JSON-RPC messages in frames. */
export const messages = (frames: Buffer): ReadonlyArray<Message> => {
  const found: Array<Message> = []
  const parser = createParser({
    // One event may hold all responses to a batch (2025-03-26).
    onEvent: ({ data }) => found.push(...parseMessages(data))
  })
  parser.feed(frames.toString())
  // The parser holds a final CR, which may be half of a CRLF.
  parser.feed("\n")
  return found
}

/** False if frames cannot hold a response. Most frames of a long stream need no parsing then. */
export const mayHoldResponse = (frames: Buffer): boolean => frames.includes(ID_MEMBER)

const ID_MEMBER = Buffer.from('"id"')

/** False if frames cannot hold a request. They need no parsing then. */
export const mayHoldRequest = (frames: Buffer): boolean =>
  frames.includes(METHOD) && frames.includes(ID_MEMBER)

/**
 * True if a search without parsing finds the response to a request. Parsing would double the cost of relaying a call.
 * Servers write the id next to the version, at the start or the end of the message. False if the id is elsewhere, or if
 * the frames may hold a request.
 */
export const isPlainResponse = (frames: Buffer, id: RequestId): boolean => {
  const envelope = `"jsonrpc":"2.0","id":${JSON.stringify(id)}`
  return (
    (frames.includes(`data: {${envelope},`) || frames.includes(`${envelope}}\n`)) && !frames.includes(METHOD)
  )
}

const METHOD = Buffer.from('"method"')

/** Encodes a message as a frame. */
export const frame = (json: string | Buffer): Buffer =>
  typeof json === "string"
    ? Buffer.from(`event: message\ndata: ${json}\n\n`)
    : Buffer.concat([OPENING, json.includes(CR) ? asLine(json) : json, FRAME_END])

const OPENING = Buffer.from("event: message\ndata: ")
/** The end of a frame. */
export const FRAME_END = Buffer.from("\n\n")

/** The comment that keeps a silent stream open. */
export const KEEP_ALIVE = Buffer.from(": keep-alive\n\n")
