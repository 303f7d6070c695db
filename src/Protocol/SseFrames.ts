/** Server-sent events, as far as bytes are concerned: frames are told apart, not read. */
import { createParser } from "eventsource-parser"
import { type Message, parseMessages, type RequestId } from "./JsonRpc.js"
import { asBuffer } from "../internal/bytes.js"
import { asLine } from "../internal/lines.js"

/** The media type of a stream of server-sent events. */
export const EVENT_STREAM = "text/event-stream"

const LF = 0x0a
const CR = 0x0d

/** How much of an unfinished frame is held back before it is passed on in pieces, in bytes. */
const MAX_HELD = 1024 * 1024

/** Where there is room for unfinished frames, of many streams. */
export interface FrameBudget {
  /** Takes room for so many bytes, for a frame that holds so many already, or says that there is none. */
  readonly hold: (bytes: number, held: number) => boolean
  readonly release: (bytes: number) => void
}

const everywhere: FrameBudget = { hold: () => true, release: () => {} }

/**
 * Cuts a stream at the borders of its frames, so that something can be put between two of them. What it passes
 * on is what it got, byte for byte.
 */
export class FrameSplitter {
  private held: Array<Uint8Array> = []
  private heldBytes = 0
  /** Those of them that have taken room. */
  private countedBytes = 0
  private last: number | undefined
  private lastButOne: number | undefined
  private isWhole = true

  /** `bound` is how many bytes of an unfinished frame are held, if there is room; beyond, it is passed on in pieces. */
  constructor(
    private readonly bound = MAX_HELD,
    private readonly room = everywhere
  ) {}

  /** The complete frames that this chunk brings, if any. What follows them is held for the next one. */
  push(chunk: Uint8Array): Buffer | undefined {
    const border = this.lastBorder(chunk)
    if (chunk.length > 1) this.lastButOne = chunk[chunk.length - 2]
    else if (chunk.length === 1) this.lastButOne = this.last
    this.last = chunk[chunk.length - 1] ?? this.last
    if (border === 0) return this.hold(chunk)
    this.isWhole = true
    const frames =
      this.held.length === 0 && border === chunk.length ? chunk : this.release(chunk.subarray(0, border))
    if (border < chunk.length) this.keep(chunk.subarray(border))
    return asBuffer(frames)
  }

  /** Whether what was passed on so far ends at the border of a frame. */
  get isAtFrameEnd(): boolean {
    return this.isWhole
  }

  /** Where the first frame that ends in this chunk ends; else 0. */
  firstFrameEnd(chunk: Uint8Array): number {
    for (let end = 1; end <= chunk.length; end++) if (this.isBorder(chunk, end)) return end
    return 0
  }

  /** Nothing more is to come: what is unfinished stays so. */
  close(): void {
    this.room.release(this.countedBytes)
    this.held = []
    this.heldBytes = 0
    this.countedBytes = 0
  }

  private hold(chunk: Uint8Array): Buffer | undefined {
    if (this.heldBytes + chunk.length <= this.bound && this.keep(chunk)) return undefined
    this.isWhole = false
    return this.release(chunk)
  }

  /** Holds a chunk, and tells whether there is room for it; the beginning of a frame is held in any case. */
  private keep(chunk: Uint8Array): boolean {
    const hasRoom = this.room.hold(chunk.length, this.heldBytes)
    if (!hasRoom && this.heldBytes > 0) return false
    this.held.push(chunk)
    this.heldBytes += chunk.length
    if (hasRoom) this.countedBytes += chunk.length
    return true
  }

  private release(chunk: Uint8Array): Buffer {
    const released = Buffer.concat([...this.held, chunk])
    this.close()
    return released
  }

  /** Where the last frame that ends in this chunk ends; else 0. */
  private lastBorder(chunk: Uint8Array): number {
    for (let end = chunk.length; end > 0; end--) if (this.isBorder(chunk, end)) return end
    return 0
  }

  /** Whether a frame ends here: behind an empty line, with LF, CR or CRLF. */
  private isBorder(chunk: Uint8Array, end: number): boolean {
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

/** Whether a frame among these gives an id, by which the client could resume; an empty one takes it back. */
export const hasEventId = (frames: Buffer): boolean => {
  for (let at = frames.indexOf(ID); at >= 0; at = frames.indexOf(ID, at + 1)) {
    const isField = at === 0 || frames[at - 1] === LF || frames[at - 1] === CR
    if (isField && /^id: ?[^\r\n]/.test(frames.toString("latin1", at, at + 5))) return true
  }
  return false
}

const ID = Buffer.from("id:")

/** The JSON-RPC messages in these frames. */
export const messages = (frames: Buffer): ReadonlyArray<Message> => {
  const found: Array<Message> = []
  const parser = createParser({
    // A batch of 2025-03-26 may be answered by one event with all responses.
    onEvent: ({ data }) => found.push(...parseMessages(data))
  })
  parser.feed(frames.toString())
  // A CR at the end is held back, for it could be half of a CRLF.
  parser.feed("\n")
  return found
}

/** Whether these frames could hold a response: most frames of a long stream cannot, and need not be read. */
export const mayHoldResponse = (frames: Buffer): boolean => frames.includes(ID_MEMBER)

const ID_MEMBER = Buffer.from('"id"')

/** The same for a request, which is a message with an id and a method. */
export const mayHoldRequest = (frames: Buffer): boolean =>
  frames.includes(METHOD) && frames.includes(ID_MEMBER)

/**
 * Whether these frames are seen to answer a request without being read, which would cost a proxy as much as all
 * that it does of its own to relay a call. Servers write the id beside the version, at the message's beginning or
 * end; elsewhere, and where there may be a request, it is not seen.
 */
export const isPlainResponse = (frames: Buffer, id: RequestId): boolean => {
  const envelope = `"jsonrpc":"2.0","id":${JSON.stringify(id)}`
  return (
    (frames.includes(`data: {${envelope},`) || frames.includes(`${envelope}}\n`)) && !frames.includes(METHOD)
  )
}

const METHOD = Buffer.from('"method"')

/** The frame that carries a message. */
export const frame = (json: string | Buffer): Buffer =>
  typeof json === "string"
    ? Buffer.from(`event: message\ndata: ${json}\n\n`)
    : Buffer.concat([OPENING, json.includes(CR) ? asLine(json) : json, FRAME_END])

const OPENING = Buffer.from("event: message\ndata: ")
/** What ends a frame. */
export const FRAME_END = Buffer.from("\n\n")

/** A comment, which says nothing but that the stream is still there. */
export const KEEP_ALIVE = Buffer.from(": keep-alive\n\n")
