/** The events in the frames of a stream of server-sent events, apart from what belongs to one connection. */
import { createParser } from "eventsource-parser"
import { asBuffer } from "../internal/bytes.js"
import { FRAME_END } from "./SseFrames.js"

const LF = 0x0a
const CR = 0x0d
const COLON = 0x3a
const SPACE = 0x20

/** Hears what is in the frames. */
export interface EventHandler {
  /** An event: its frame without `id` and `retry`, and the id if it has one. */
  readonly event: (frame: Buffer, id: string | undefined) => void
  /**
   * An id without a message: with empty data (2025-11-25, Transports, "Sending Messages to the Server") or with none
   * (WHATWG HTML, "Interpreting an event stream": it counts, though there is no event).
   */
  readonly idOnly: (id: string) => void
  /** How long to wait before connecting again, in milliseconds. */
  readonly retry: (millis: number) => void
}

/** Reads whole frames. Those with nothing but `event` and `data` fields, which most are, are told apart unread. */
export const readEvents = (frames: Buffer, reader: EventHandler): void => {
  if (!isPlain(frames)) return parse(frames, reader)
  for (let start = behindEmptyLines(frames, 0); start < frames.length;) {
    const border = frames.indexOf(FRAME_END, start)
    const end = border < 0 ? frames.length : border + FRAME_END.length
    const frame = frames.subarray(start, end)
    if (!isEmpty(frame)) reader.event(frame, undefined)
    start = behindEmptyLines(frames, end)
  }
}

/** An id is put in front of a frame, and an empty line that it begins with would part the two. */
const behindEmptyLines = (frames: Buffer, start: number): number => {
  let at = start
  while (frames[at] === LF) at++
  return at
}

const DATA_LINE = Buffer.from("\ndata:")

/** Whether a frame has no data, or a single line of it that is empty. */
const isEmpty = (frame: Buffer): boolean => {
  const begins = isField(frame, 0, DATA)
  const line = begins ? 0 : frame.indexOf(DATA_LINE) + 1
  if (!begins && line === 0) return true
  const colon = line + DATA.colon
  const end = frame[colon + 1] === SPACE ? colon + 2 : colon + 1
  return frame[end] === LF && !frame.includes(DATA_LINE, end)
}

/** Whether all lines are `data` and `event` fields, or empty, and end with LF. */
const isPlain = (frames: Buffer): boolean => {
  if (frames.includes(CR)) return false
  for (let start = 0; start < frames.length; start = frames.indexOf(LF, start) + 1) {
    const isBorder = frames[start] === LF && start > 0
    if (!isBorder && !isField(frames, start, DATA) && !isField(frames, start, EVENT)) return false
  }
  return true
}

/** Whether a field stands here: its name, seen at its first four characters, and the colon behind it. */
const isField = (frames: Buffer, start: number, { colon, name }: typeof DATA): boolean =>
  start + colon < frames.length && frames.readUInt32BE(start) === name && frames[start + colon] === COLON

const DATA = { name: Buffer.from("data").readUInt32BE(), colon: 4 }
const EVENT = { name: Buffer.from("even").readUInt32BE(), colon: 5 }

const parse = (frames: Buffer, reader: EventHandler): void => {
  const parser = createParser({
    onEvent: ({ data, event, id }) => {
      if (data !== "") reader.event(frameOf(data, event), id)
      else if (id !== undefined) reader.idOnly(id)
    },
    onRetry: (millis) => reader.retry(millis)
  })
  // The parser tells nothing of a frame without data, whose id counts all the same: it is given some.
  let hasData = false
  // Decoding drops a byte order mark, which may stand at the beginning of a stream.
  const lines = decoder.decode(frames).split(LINE_END)
  for (const line of lines) {
    hasData ||= IS_DATA.test(line)
    parser.feed(line === "" && !hasData ? "data\n\n" : `${line}\n`)
    if (line === "") hasData = false
  }
}

const decoder = new TextDecoder()

const LINE_END = /\r\n|\n|\r/

const IS_DATA = /^data(?::|$)/

const frameOf = (data: string, event: string | undefined): Buffer => {
  const type = event === undefined ? "" : `event: ${event}\n`
  return Buffer.from(`${type}data: ${data.replaceAll("\n", "\ndata: ")}\n\n`)
}

/** A frame with an id in front of it. */
export const withEventId = (id: string, frame: Uint8Array): Buffer => {
  const line = `id: ${id}\n`
  const bytes = Buffer.allocUnsafe(line.length + frame.length)
  bytes.write(line, 0, "latin1")
  bytes.set(asBuffer(frame), line.length)
  return bytes
}

/** A frame that has begun, without the fields that belong to one connection, as far as they stand before its data. */
export const withoutIdAndRetry = (beginning: Buffer): Buffer => {
  const kept: Array<Buffer> = []
  let start = 0
  while (start < beginning.length && !isField(beginning, start, DATA)) {
    const end = lineEnd(beginning, start)
    const line = beginning.subarray(start, end)
    if (!PLACE.test(line.toString("latin1"))) kept.push(line)
    start = end
  }
  return Buffer.concat([...kept, beginning.subarray(start)])
}

const PLACE = /^(?:id|retry)[:\r\n]/

const lineEnd = (frames: Buffer, start: number): number => {
  let end = start
  while (end < frames.length && frames[end] !== LF && frames[end] !== CR) end++
  return end + 1
}

/** The frame behind that line. */
export const withoutEventId = (frame: Buffer): Buffer => frame.subarray(frame.indexOf(LF) + 1)
