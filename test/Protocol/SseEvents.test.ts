import { describe, expect, it } from "@effect/vitest"
import { createParser } from "eventsource-parser"
import * as FastCheck from "effect/FastCheck"
import { readEvents, withEventId } from "../../src/Protocol/SseEvents.js"
import { FrameSplitter } from "../../src/Protocol/SseFrames.js"
import { pieces } from "../fixtures/pieces.js"

interface Event {
  readonly id: string | undefined
  readonly event: string | undefined
  readonly data: string
}

/** The events that the official clients read. */
const oracle = (
  stream: string
): { readonly events: ReadonlyArray<Event>; readonly retries: ReadonlyArray<number> } => {
  const events: Array<Event> = []
  const retries: Array<number> = []
  const parser = createParser({
    onEvent: ({ data, event, id }) => events.push({ id, event, data }),
    onRetry: (millis) => retries.push(millis)
  })
  parser.feed(stream.replace(/^\uFEFF/, ""))
  parser.feed("\n")
  return { events, retries }
}

/** The event ids of a stream, as specified (WHATWG HTML, "Interpreting an event stream"). */
const idsOf = (stream: string): ReadonlyArray<string> => {
  const ids: Array<string> = []
  let id: string | undefined
  for (const line of stream.replace(/^\uFEFF/, "").split(/\r\n|\n|\r/)) {
    const [isId, value = ""] = /^id(?:: ?(.*))?$/s.exec(line) ?? []
    if (isId !== undefined && !value.includes("\0")) id = value
    if (line !== "" || id === undefined) continue
    ids.push(id)
    id = undefined
  }
  return ids
}

/** The events that the clients read from the frames of the proxy, with the ids restored. */
const read = (chunks: ReadonlyArray<Buffer>) => {
  const events: Array<Event> = []
  const retries: Array<number> = []
  const ids: Array<string> = []
  const splitter = new FrameSplitter()
  for (const chunk of chunks) {
    const frames = splitter.push(chunk)
    if (frames === undefined) continue
    readEvents(frames, {
      event: (frame, id) => {
        const made = oracle(withEventId("of the proxy", frame).toString()).events
        expect(made).toMatchObject([{ id: "of the proxy" }])
        events.push(...made.map((event) => ({ ...event, id })))
        if (id !== undefined) ids.push(id)
      },
      idOnly: (id) => ids.push(id),
      retry: (millis) => retries.push(millis)
    })
  }
  return { events, retries, ids }
}

const field = FastCheck.oneof(
  FastCheck.constantFrom(
    "data: x",
    "data:",
    "data",
    "data:  two spaces",
    'data: {"jsonrpc":"2.0","method":"é✓"}',
    "event: message",
    "event:",
    "id: 7",
    "id:",
    "id: a\0b",
    "retry: 3000",
    "retry: soon",
    ": comment",
    ":",
    "unknown: field",
    "dataset: no"
  ),
  FastCheck.string({ maxLength: 8 }).map((text) => text.replaceAll(/[\r\n]/g, "é"))
)
const end = FastCheck.constantFrom("\n", "\n", "\r\n", "\r")
/** Frames as most servers write them, with some extra empty lines. */
const plainStream = FastCheck.array(
  FastCheck.constantFrom("data: x", 'data: {"jsonrpc":"2.0"}', "event: message", "data:", "", "", "")
).map((lines) => lines.map((line) => `${line}\n`).join(""))
const anyStream = FastCheck.tuple(
  FastCheck.constantFrom("", "", "\uFEFF"),
  FastCheck.array(FastCheck.tuple(FastCheck.oneof(field, FastCheck.constant("")), end), { maxLength: 24 })
).map(([mark, lines]) => mark + lines.flat().join(""))
const lengths = FastCheck.array(FastCheck.integer({ min: 1, max: 12 }), { maxLength: 60 })

describe("readEvents", () => {
  it.prop(
    "finds the events that the official clients read, for arbitrary chunks",
    [FastCheck.oneof(plainStream, anyStream), lengths],
    ([stream, lengths]) => {
      // Only frames that end with an empty line are events.
      const whole = `${stream}\n\n`
      const { events, ids, retries } = read(pieces(Buffer.from(whole), lengths))
      const expected = oracle(whole)
      expect(events).toEqual(expected.events.filter(({ data }) => data !== ""))
      expect(retries).toEqual(expected.retries)
      expect(ids).toEqual(idsOf(whole))
    },
    { fastCheck: { numRuns: 2_000 } }
  )

  it("does not copy frames with data only", () => {
    const frames = Buffer.from("event: message\ndata: 1\n\ndata: 2\n\n")
    const found: Array<Buffer> = []
    readEvents(frames, { event: (frame) => found.push(frame), idOnly: () => {}, retry: () => {} })
    expect(found.map(String)).toEqual(["event: message\ndata: 1\n\n", "data: 2\n\n"])
    expect(found.every(({ buffer }) => buffer === frames.buffer)).toBe(true)
  })

  it("calls the handler as a method, also for retry", () => {
    class Remembering {
      readonly calls: Array<unknown> = []
      event(frame: Buffer, id: string | undefined) {
        this.calls.push(frame.toString(), id)
      }
      idOnly(id: string) {
        this.calls.push(id)
      }
      retry(millis: number) {
        this.calls.push(millis)
      }
    }
    const reader = new Remembering()
    readEvents(Buffer.from("id: 7\nretry: 50\ndata: x\n\n"), reader)
    expect(reader.calls).toEqual([50, "data: x\n\n", "7"])
  })

  it("withEventId prepends an id", () => {
    expect(
      oracle(withEventId("a.1.2", Buffer.from("event: message\ndata: x\n\n")).toString()).events
    ).toEqual([{ id: "a.1.2", event: "message", data: "x" }])
  })
})
