/** Parses the frames of an event stream into events without `id` and `retry`, which belong to one connection. */
import { createParser } from "eventsource-parser"
import { asBuffer } from "../internal/bytes.js"
import { FRAME_END } from "./SseFrames.js"

const LF = 0x0a
const CR = 0x0d
const COLON = 0x3a
const SPACE = 0x20

/** Handles the content of frames. */
export interface EventHandler {
  /** Called with the frame of an event, without `id` and `retry`, and with its id if it has one. */
  readonly event: (frame: Buffer, id: string | undefined) => void
  /**
   * Called with the id of a frame with empty data (2025-11-25, Transports, "Sending Messages to the Server") or without
   * data. A frame without data is not an event, but sets the last event id (WHATWG HTML, "Interpreting an event
   * stream").
   */
  readonly idOnly: (id: string) => void
  /** Called with the reconnection time, in milliseconds. */
  readonly retry: (millis: number) => void
}

/** Parses complete frames. Most frames have only `event` and `data` fields. They are split without parsing. */
export const readEvents = (frames: Buffer, reader: EventHandler): void => {
  if (!isPlain(frames)) return parse(frames, reader)
  for (let start = skipEmptyLines(frames, 0); start < frames.length;) {
    const border = frames.indexOf(FRAME_END, start)
    const end = border < 0 ? frames.length : border + FRAME_END.length
    const frame = frames.subarray(start, end)
    if (!isEmpty(frame)) reader.event(frame, undefined)
    start = skipEmptyLines(frames, end)
  }
}

/** Skips empty lines before a frame, because an empty line after a prepended id would end the event. */
const skipEmptyLines = (frames: Buffer, start: number): number => {
  let at = start
  while (frames[at] === LF) at++
  return at
}

const DATA_LINE = Buffer.from("\ndata:")

/** True if a frame has no data, or a single `data` field that is empty. */
const isEmpty = (frame: Buffer): boolean => {
  const startsWithData = isField(frame, 0, DATA)
  const line = startsWithData ? 0 : frame.indexOf(DATA_LINE) + 1
  if (!startsWithData && line === 0) return true
  const colon = line + DATA.colon
  const end = frame[colon + 1] === SPACE ? colon + 2 : colon + 1
  return frame[end] === LF && !frame.includes(DATA_LINE, end)
}

/** True if all lines are `data` fields, `event` fields or empty, and end with LF. */
const isPlain = (frames: Buffer): boolean => {
  if (frames.includes(CR)) return false
  for (let start = 0; start < frames.length; start = frames.indexOf(LF, start) + 1) {
    const isFrameEnd = frames[start] === LF && start > 0
    if (!isFrameEnd && !isField(frames, start, DATA) && !isField(frames, start, EVENT)) return false
  }
  return true
}

/** True if a field starts here. Compares the first four characters of its name, and the colon. */
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
  // The parser ignores a frame without data, also its id. An empty data field makes it report the id.
  let hasData = false
  // Decoding removes a byte order mark, which a stream may start with.
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

/** Prepends an id to a frame. */
export const withEventId = (id: string, frame: Uint8Array): Buffer => {
  const line = `id: ${id}\n`
  const bytes = Buffer.allocUnsafe(line.length + frame.length)
  bytes.write(line, 0, "latin1")
  bytes.set(asBuffer(frame), line.length)
  return bytes
}

/** Removes `id` and `retry` from the start of an incomplete frame, up to its data. */
export const withoutIdAndRetry = (piece: Buffer): Buffer => {
  const kept: Array<Buffer> = []
  let start = 0
  while (start < piece.length && !isField(piece, start, DATA)) {
    const end = lineEnd(piece, start)
    const line = piece.subarray(start, end)
    if (!ID_OR_RETRY.test(line.toString("latin1"))) kept.push(line)
    start = end
  }
  return Buffer.concat([...kept, piece.subarray(start)])
}

const ID_OR_RETRY = /^(?:id|retry)[:\r\n]/

const lineEnd = (frames: Buffer, start: number): number => {
  let end = start
  while (end < frames.length && frames[end] !== LF && frames[end] !== CR) end++
  return end + 1
}

/** Removes the line that `withEventId` prepended. */
export const withoutEventId = (frame: Buffer): Buffer => frame.subarray(frame.indexOf(LF) + 1)
