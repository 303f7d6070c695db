import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import {
  EventStorage,
  type LogChange,
  type RejectedChange,
  type StoredEvent,
  type StoredLog,
  type StoredStream,
  type StreamChange
} from "../EventTracker/EventStorage.js"
import type { StoreError } from "../ProxyError.js"

const stream = (number: number, change: Partial<StoredStream> = {}): StoredStream => ({
  number,
  requests: "[1]",
  ends: "[]",
  cursor: undefined,
  lastSequence: 0,
  hasEnded: false,
  events: [],
  ...change
})

const event = (sequence: number, upstreamId?: string): StoredEvent => ({
  sequence,
  // Not valid UTF-8: a frame is bytes.
  frame: Buffer.from([0xff, 0x00, sequence]),
  upstreamId
})

const put = (
  number: number,
  change: Partial<StoredStream> = {},
  evictUpTo: number | undefined = undefined
): StreamChange => ({ ...stream(number, change), evictUpTo })

const change = (session: string, fields: Partial<LogChange> = {}): LogChange => ({
  session,
  secret: "secret",
  generation: 0,
  kind: "update",
  streamCount: 1,
  streams: [],
  removedStreams: [],
  ...fields
})

const opening = (session: string, fields: Partial<LogChange> = {}): LogChange =>
  change(session, { kind: "create", streamCount: 0, ...fields })

const rejectedAs = (
  reason: RejectedChange["reason"],
  ...sessions: ReadonlyArray<string>
): ReadonlyArray<RejectedChange> => sessions.map((session) => ({ session, reason }))

const stored = (fields: Partial<StoredLog> = {}): Option.Option<StoredLog> =>
  Option.some({ secret: "secret", generation: 0, streamCount: 1, streams: [], ...fields })

/**
 * Registers the tests of `EventStorage` that every backend must pass. Each test builds the layer again. The title of a
 * test is the rule that it checks.
 */
export const eventStorageContract = <E>(name: string, layer: Layer.Layer<EventStorage, E>): void => {
  const rule = (
    title: string,
    test: (storage: EventStorage["Type"]) => Effect.Effect<void, StoreError>
  ): void => it.effect(title, () => Effect.provide(Effect.flatMap(EventStorage, test), layer))

  describe(name, () => {
    rule("load returns none for a session without a log", (storage) =>
      Effect.gen(function* () {
        expect(yield* storage.load("a")).toEqual(Option.none())
      })
    )

    rule("a change of kind create creates the log", (storage) =>
      Effect.gen(function* () {
        expect(yield* storage.write([opening("a"), opening("b", { secret: "other" })])).toEqual([])
        expect(yield* storage.load("a")).toEqual(stored({ streamCount: 0 }))
        expect(yield* storage.load("b")).toEqual(stored({ secret: "other", streamCount: 0 }))
      })
    )

    rule(
      "a change of kind create is rejected if the session has a log of another secret or generation",
      (storage) =>
        Effect.gen(function* () {
          yield* storage.write([opening("a")])
          for (const fields of [{ secret: "other" }, { generation: 1 }])
            expect(yield* storage.write([opening("a", fields)])).toEqual(rejectedAs("superseded", "a"))
          expect(yield* storage.load("a")).toEqual(stored({ streamCount: 0 }))
        })
    )

    rule(
      "a change of kind create creates a log that was lost, in any generation, and may be repeated",
      (storage) =>
        Effect.gen(function* () {
          const lost = opening("a", {
            generation: 3,
            streamCount: 4,
            streams: [put(4, { ends: "[[2,1]]", lastSequence: 2, events: [event(1), event(2)] })]
          })
          const expected = stored({
            generation: 3,
            streamCount: 4,
            streams: [stream(4, { ends: "[[2,1]]", lastSequence: 2, events: [event(1), event(2)] })]
          })
          for (let count = 0; count < 2; count++) {
            expect(yield* storage.write([lost])).toEqual([])
            expect(yield* storage.load("a")).toEqual(expected)
          }
        })
    )

    rule("a change of kind open follows only the generation before it", (storage) =>
      Effect.gen(function* () {
        yield* storage.write([opening("a"), change("a", { streams: [put(1, { events: [event(1)] })] })])
        const next = opening("a", {
          kind: "open",
          generation: 1,
          streamCount: 1,
          streams: [put(1, { ends: "[[0,1]]", lastSequence: 1 })]
        })
        expect(yield* storage.write([next])).toEqual([])
        const expected = stored({
          generation: 1,
          streams: [stream(1, { ends: "[[0,1]]", lastSequence: 1, events: [event(1)] })]
        })
        expect(yield* storage.load("a")).toEqual(expected)
        for (const rejected of [
          next,
          { ...next, generation: 3 },
          { ...next, generation: 2, secret: "other" }
        ])
          expect(yield* storage.write([rejected])).toEqual(rejectedAs("superseded", "a"))
        expect(yield* storage.write([{ ...next, session: "b" }])).toEqual(rejectedAs("missing", "b"))
        expect(yield* storage.load("a")).toEqual(expected)
        expect(yield* storage.load("b")).toEqual(Option.none())
      })
    )

    rule("write stores the state of streams and adds their events in order", (storage) =>
      Effect.gen(function* () {
        yield* storage.write([opening("a")])
        yield* storage.write([
          change("a", {
            streamCount: 2,
            streams: [
              put(2, { requests: '["two"]', cursor: "up-2", lastSequence: 2, events: [event(2, "up-2")] }),
              put(1, { lastSequence: 1, events: [event(1)] })
            ]
          })
        ])
        yield* storage.write([
          change("a", {
            streamCount: 3,
            streams: [
              put(1, { lastSequence: 12, hasEnded: true, events: [event(2), event(10), event(12, "")] })
            ]
          })
        ])
        expect(yield* storage.load("a")).toEqual(
          stored({
            streamCount: 3,
            streams: [
              stream(1, {
                lastSequence: 12,
                hasEnded: true,
                events: [event(1), event(2), event(10), event(12, "")]
              }),
              stream(2, {
                requests: '["two"]',
                cursor: "up-2",
                lastSequence: 2,
                events: [event(2, "up-2")]
              })
            ]
          })
        )
      })
    )

    rule("write clears the cursor of a stream", (storage) =>
      Effect.gen(function* () {
        yield* storage.write([opening("a"), change("a", { streams: [put(1, { cursor: "up-1" })] })])
        yield* storage.write([change("a", { streams: [put(1)] })])
        expect(yield* storage.load("a")).toEqual(stored({ streams: [stream(1)] }))
      })
    )

    rule("write removes evicted events", (storage) =>
      Effect.gen(function* () {
        const events = [event(1), event(2), event(3)]
        yield* storage.write([
          opening("a"),
          change("a", { streams: [put(1, { events }), put(2, { events })] })
        ])
        yield* storage.write([change("a", { streams: [put(1, { events: [event(4)] }, 2)] })])
        expect(yield* storage.load("a")).toEqual(
          stored({ streams: [stream(1, { events: [event(3), event(4)] }), stream(2, { events })] })
        )
      })
    )

    rule("write removes streams with their events", (storage) =>
      Effect.gen(function* () {
        const streams = [put(1, { events: [event(1)] }), put(2, { events: [event(1)] })]
        yield* storage.write([opening("a"), change("a", { streams })])
        yield* storage.write([change("a", { removedStreams: [1, 3] })])
        expect(yield* storage.load("a")).toEqual(stored({ streams: [stream(2, { events: [event(1)] })] }))
        yield* storage.write([change("a", { streams: [put(1)] })])
        expect(yield* storage.load("a")).toEqual(
          stored({ streams: [stream(1), stream(2, { events: [event(1)] })] })
        )
      })
    )

    rule("a change that is written twice has the effect of one", (storage) =>
      Effect.gen(function* () {
        yield* storage.write([
          opening("a"),
          change("a", { streams: [put(1, { events: [event(1)] }), put(2)] })
        ])
        const again = change("a", {
          streams: [put(1, { lastSequence: 3, events: [event(2), event(3)] }, 1)],
          removedStreams: [2]
        })
        yield* storage.write([again])
        const once = yield* storage.load("a")
        expect(yield* storage.write([again])).toEqual([])
        expect(yield* storage.load("a")).toEqual(once)
      })
    )

    rule("write rejects a change of a log with another secret or generation as superseded", (storage) =>
      Effect.gen(function* () {
        yield* storage.write([opening("a"), opening("d")])
        const streams = [put(1, { events: [event(1)] })]
        expect(
          yield* storage.write([change("a", { secret: "other", streams }), change("d", { streams })])
        ).toEqual(rejectedAs("superseded", "a"))
        expect(yield* storage.write([change("a", { generation: 1, streams })])).toEqual(
          rejectedAs("superseded", "a")
        )
        expect(yield* storage.load("a")).toEqual(stored({ streamCount: 0 }))
        expect(yield* storage.load("d")).toEqual(stored({ streams: [stream(1, { events: [event(1)] })] }))
      })
    )

    rule("write rejects a change of a session without a log as missing", (storage) =>
      Effect.gen(function* () {
        yield* storage.write([opening("a"), opening("d")])
        yield* storage.remove(["a"])
        const streams = [put(1, { events: [event(1)] })]
        expect(yield* storage.write(["a", "b", "d"].map((session) => change(session, { streams })))).toEqual(
          rejectedAs("missing", "a", "b")
        )
        for (const session of ["a", "b"]) expect(yield* storage.load(session)).toEqual(Option.none())
        expect(yield* storage.load("d")).toEqual(stored({ streams: [stream(1, { events: [event(1)] })] }))
      })
    )

    rule("remove removes logs with everything in them, and ignores sessions without a log", (storage) =>
      Effect.gen(function* () {
        const streams = [put(1, { events: [event(1)] })]
        yield* storage.write(
          ["a", "b", "c"].flatMap((session) => [opening(session), change(session, { streams })])
        )
        yield* storage.remove(["a", "missing", "c"])
        for (const session of ["a", "c"]) expect(yield* storage.load(session)).toEqual(Option.none())
        expect(yield* storage.load("b")).toEqual(stored({ streams: [stream(1, { events: [event(1)] })] }))
        expect(yield* storage.write([change("a", { streams })])).toEqual(rejectedAs("missing", "a"))
        yield* storage.write([opening("a", { secret: "other" })])
        expect(yield* storage.load("a")).toEqual(stored({ secret: "other", streamCount: 0 }))
      })
    )

    rule("the logs of sessions are separate", (storage) =>
      Effect.gen(function* () {
        yield* storage.write([
          opening("a"),
          opening("a:b"),
          change("a", { streams: [put(1, { events: [event(1)] })] }),
          change("a:b", { streams: [put(1, { events: [event(2)] })] })
        ])
        yield* storage.write([change("a", { streams: [put(1, {}, 9)] })])
        expect(yield* storage.load("a")).toEqual(stored({ streams: [stream(1)] }))
        expect(yield* storage.load("a:b")).toEqual(stored({ streams: [stream(1, { events: [event(2)] })] }))
      })
    )
  })
}
