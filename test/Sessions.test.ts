import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { LimitReached, SessionNotFound, ShuttingDown, UpstreamError } from "../src/ProxyError.js"
import { settle } from "./fixtures/ManualClock.js"
import { makeProxied } from "./fixtures/Proxied.js"
import {
  call,
  cancellation,
  initialize,
  modernCall,
  notification,
  response,
  revision
} from "./fixtures/requests.js"

describe("opening", () => {
  it.scoped("answers under an id of the proxy's own, and stores what a revival needs", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      const { answer, exchange, lease, session } = yield* proxied.open("10.0.0.7")
      expect(answer).toMatchObject({ status: 200, ending: "end", violations: [] })
      expect(answer.headers["mcp-session-id"]).toBe(session.id)
      expect(session.id).toMatch(/^[A-Za-z0-9_-]{22}$/)
      expect(proxied.sessions.get(session.id)).toBe(session)
      expect(lease.revision).toBe(revision)
      expect(exchange.isAborted).toBe(false)
      expect(Option.getOrThrow(yield* proxied.records.get(session.id))).toMatchObject({
        id: session.id,
        upstream: proxied.pool.name,
        upstreamSessionId: "upstream-0",
        protocolVersion: revision,
        initialize: JSON.stringify(initialize().params),
        client: "10.0.0.7"
      })
    })
  )

  it.scoped("gives each session an id and a lease of its own", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      const all = yield* Effect.forEach([1, 2, 3], () => proxied.open())
      expect(new Set(all.map(({ session }) => session.id)).size).toBe(3)
      expect(new Set(all.map(({ lease }) => lease)).size).toBe(3)
    })
  )

  it.scoped(
    "does not cancel `initialize` when its client goes, but ends the session once it is answered",
    () =>
      Effect.gen(function* () {
        const proxied = yield* makeProxied()
        const { exchange, disconnect } = yield* proxied.connect()
        yield* disconnect
        yield* settle
        expect(exchange.isOver).toBe(false)
        expect(proxied.sessions.size().sessions).toBe(1)
        exchange.act("json")
        yield* settle
        expect(proxied.isEmpty).toBe(true)
        expect((yield* proxied.records.list).length).toBe(0)
      })
  )

  it.scoped.each(["json", "response"] as const)(
    "ends the session whose client goes in the moment of the answer (%s)",
    (act) =>
      Effect.gen(function* () {
        const proxied = yield* makeProxied()
        const { exchange, disconnect } = yield* proxied.connect()
        exchange.act(act)
        yield* disconnect
        yield* settle
        expect(proxied.isEmpty).toBe(true)
        expect(proxied.pool.open).toEqual([])
      })
  )

  it.scoped("fails when the upstream cannot be leased, and gives the place back", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      proxied.pool.mode = "refused"
      const { outcome } = yield* proxied.connect()
      expect(yield* outcome).toEqual(
        Exit.fail(new UpstreamError({ reason: "Unreachable", upstream: proxied.pool.name }))
      )
      expect(proxied.isEmpty).toBe(true)
    })
  )

  it.scoped.each([
    ["fail", "Closed"],
    ["time out", "ResponseTimeout"],
    ["not mcp", "NotMcp"],
    ["wrong response", "NotMcp"],
    ["accepted", "NotMcp"]
  ] as const)("fails when the upstream answers `initialize` with '%s'", ([act, reason]) =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      const { answer, exchange, outcome } = yield* proxied.connect()
      exchange.act(act)
      expect(yield* outcome).toMatchObject({ _tag: "Failure", cause: { error: { reason } } })
      expect(proxied.isEmpty).toBe(true)
      expect(proxied.pool.open).toEqual([])
      expect(answer.isOver).toBe(false)
    })
  )

  it.scoped.each([
    ["not found", 404],
    ["server error", 500],
    ["error response", 200]
  ] as const)("passes on the upstream's own '%s', with no session id", ([act, status]) =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      const { answer, exchange, outcome } = yield* proxied.connect()
      exchange.act(act)
      expect(yield* outcome).toMatchObject({
        _tag: "Failure",
        cause: { error: { reason: "InitializeRefused" } }
      })
      expect(answer).toMatchObject({ status, ending: "end", violations: [] })
      expect(answer.headers["mcp-session-id"]).toBeUndefined()
      expect(proxied.isEmpty).toBe(true)
    })
  )

  it.scoped("does not wait for ever for an answer that stops in the middle of its JSON", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      const { exchange, outcome } = yield* proxied.connect()
      exchange.act("half json")
      yield* proxied.clock.advance("5 minutes")
      expect(yield* outcome).toMatchObject({ _tag: "Failure", cause: { error: { status: 504 } } })
      expect(proxied.isEmpty).toBe(true)
      expect(exchange.isAborted).toBe(true)
    })
  )

  it.scoped.each(["open stream", "half frame", "event"] as const)(
    "waits for an answer on a stream that is silent after '%s' for as long as its client does",
    (act) =>
      Effect.gen(function* () {
        const proxied = yield* makeProxied()
        const { exchange, disconnect } = yield* proxied.connect()
        exchange.act(act)
        yield* proxied.clock.advance("1 hour")
        expect(exchange.isAborted).toBe(false)
        yield* disconnect
        yield* proxied.clock.advance("1 minute")
        expect(exchange.isAborted).toBe(true)
        expect(proxied.isEmpty).toBe(true)
      })
  )

  it.scoped("tells the client of a failure between the first message of the answer and the session", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      const { answer, exchange, outcome } = yield* proxied.connect()
      exchange.act("response")
      exchange.act("fail")
      expect(yield* outcome).toMatchObject({ _tag: "Success" })
      expect(answer.isOver).toBe(true)
      expect(answer.responsesTo(0)).toBe(1)
    })
  )

  it.scoped("passes a streamed answer on as it comes", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      const { answer, exchange, outcome } = yield* proxied.connect()
      exchange.act("event")
      expect(yield* outcome).toBeUndefined()
      exchange.act("response")
      expect(yield* outcome).toMatchObject({ _tag: "Success" })
      expect(answer.messages().map(({ method }) => method)).toEqual(["notifications/message", undefined])
      exchange.act("event")
      exchange.act("end")
      expect(answer.messages().length).toBe(3)
      expect(answer).toMatchObject({ ending: "end", violations: [] })
    })
  )
})

describe("bounds", () => {
  it.scoped("refuses sessions past --max-sessions, and takes them again when one has ended", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied({ maxSessions: 2 })
      const { session } = yield* proxied.open()
      yield* proxied.open()
      const { outcome } = yield* proxied.connect()
      expect(yield* outcome).toEqual(Exit.fail(new LimitReached({ limit: "max-sessions", bound: 2 })))
      expect(proxied.pool.leases.length).toBe(2)
      yield* proxied.sessions.close(session.id, "deleted")
      yield* proxied.open()
      expect(proxied.sessions.size().sessions).toBe(2)
    })
  )

  it.scoped("counts sessions that are still being opened", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied({ maxSessions: 1 })
      yield* proxied.connect()
      const { outcome } = yield* proxied.connect()
      expect(yield* outcome).toEqual(Exit.fail(new LimitReached({ limit: "max-sessions", bound: 1 })))
    })
  )

  it.scoped("holds the bound of one client without shutting out the others", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied({ maxPerClient: 1 })
      yield* proxied.open("a")
      const { outcome } = yield* proxied.connect("a")
      expect(yield* outcome).toEqual(Exit.fail(new LimitReached({ limit: "max-per-client", bound: 1 })))
      yield* proxied.open("b")
    })
  )

  it.scoped("refuses requests past --max-exchanges, but lets the client's responses through", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied({ maxExchanges: 2 })
      const { session } = yield* proxied.open()
      const first = proxied.request(session, call(1))
      proxied.request(session, call(2))
      const third = proxied.request(session, call(3))
      expect(third.answer.ending).toEqual(new LimitReached({ limit: "max-exchanges", bound: 2 }))
      const fromClient = proxied.request(session, response(0))
      expect(fromClient.answer.isOver).toBe(false)
      fromClient.exchange.act("accepted")
      first.exchange.act("json")
      expect(proxied.request(session, call(4)).answer.isOver).toBe(false)
    })
  )

  it.scoped("bounds the requests without a session", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied({ maxStateless: 2, maxExchanges: 1 })
      const first = proxied.stateless(modernCall(1))
      proxied.stateless(modernCall(2))
      const { answer } = proxied.stateless(modernCall(3))
      expect(answer).toMatchObject({ ending: { limit: "max-stateless", status: 503 }, isSettled: true })
      first.disconnect()
      expect(first.exchange.isAborted).toBe(true)
      expect(proxied.stateless(modernCall(4)).answer.isOver).toBe(false)
    })
  )
})

describe("one session at a time", () => {
  const single = { multiSession: false }

  it.scoped("replaces a session that has only been tried out", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied(single)
      const { lease, session } = yield* proxied.open()
      proxied.request(session, notification("notifications/initialized")).exchange.act("accepted")
      proxied.request(session, call(1, "ping")).exchange.act("json")
      const stream = proxied.request(session)
      yield* proxied.open()
      expect(proxied.sessions.get(session.id)).toBeUndefined()
      expect(lease.releases).toBe(1)
      expect(stream.exchange.isAborted).toBe(true)
      const over = yield* Effect.fork(proxied.sessions.over)
      yield* settle
      expect(yield* Fiber.poll(over)).toEqual(Option.none())
    })
  )

  it.scoped("does not replace a session in use, and names the option for more", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied(single)
      const { session } = yield* proxied.open()
      proxied.request(session, call(1)).exchange.act("json")
      const { outcome } = yield* proxied.connect()
      expect(yield* outcome).toMatchObject({ cause: { error: { limit: "multi-session", status: 503 } } })
      expect(proxied.sessions.get(session.id)).toBe(session)
    })
  )

  it.scoped("is over when the session ends", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied(single)
      const { session } = yield* proxied.open()
      yield* proxied.sessions.close(session.id, "deleted")
      expect(yield* proxied.sessions.over).toBe("deleted")
    })
  )

  it.scoped("is not over when no session could be opened", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied(single)
      const { exchange } = yield* proxied.connect()
      exchange.act("server error")
      const over = yield* Effect.fork(proxied.sessions.over)
      yield* settle
      expect(yield* Fiber.poll(over)).toEqual(Option.none())
      yield* proxied.open()
    })
  )
})

describe("an initialize whose client has gone", () => {
  it.scoped("makes room for another at once where there is one session at a time", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied({ multiSession: false })
      const { exchange, disconnect } = yield* proxied.connect()
      yield* disconnect
      yield* settle
      expect(proxied.sessions.size().sessions).toBe(1)
      const { session } = yield* proxied.open()
      expect(exchange.isAborted).toBe(true)
      expect(proxied.sessions.get(session.id)).toBe(session)
    })
  )

  it.scoped("does not end a proxy of one session when it is answered after all", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied({ multiSession: false })
      const { exchange, disconnect } = yield* proxied.connect()
      yield* disconnect
      yield* settle
      exchange.act("json")
      yield* settle
      expect(proxied.isEmpty).toBe(true)
      const over = yield* Effect.fork(proxied.sessions.over)
      yield* settle
      expect(yield* Fiber.poll(over)).toEqual(Option.none())
      yield* proxied.open()
    })
  )

  it.scoped("keeps its place for a minute and no longer", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      const { exchange, disconnect } = yield* proxied.connect()
      yield* disconnect
      yield* proxied.clock.advance("59 seconds")
      expect(exchange.isAborted).toBe(false)
      yield* proxied.clock.advance("1 second")
      expect(exchange.isAborted).toBe(true)
      expect(proxied.isEmpty).toBe(true)
    })
  )

  it.scoped("is not waited for by a shutdown", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      const { disconnect } = yield* proxied.connect()
      const quiet = yield* Effect.fork(proxied.sessions.idle)
      yield* settle
      expect(Option.isNone(yield* Fiber.poll(quiet))).toBe(true)
      yield* disconnect
      yield* settle
      expect(Option.isSome(yield* Fiber.poll(quiet))).toBe(true)
    })
  )
})

describe("closing", () => {
  it.scoped("waits until everything is released", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      proxied.pool.releaseTime = 2_000
      const { lease, session } = yield* proxied.open()
      const closing = yield* Effect.fork(proxied.sessions.close(session.id, "deleted"))
      yield* proxied.clock.advance("1 second")
      expect(proxied.sessions.get(session.id)).toBeUndefined()
      expect((yield* proxied.records.list).length).toBe(0)
      expect(proxied.sessions.size().sessions).toBe(1)
      yield* proxied.clock.advance("1 second")
      expect(yield* Fiber.join(closing)).toBe(true)
      expect(lease.releases).toBe(1)
      expect(proxied.sessions.size().sessions).toBe(0)
    })
  )

  it.scoped("says when there is no such session", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      expect(yield* proxied.sessions.close("unknown", "deleted")).toBe(false)
    })
  )

  it.scoped("tells those who wait that the session has ended", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      const { session } = yield* proxied.open()
      const silent = proxied.request(session, call(1))
      const streamed = proxied.request(session, call(2))
      streamed.exchange.act("event")
      const stream = proxied.request(session)
      stream.exchange.act("open stream")
      yield* proxied.sessions.close(session.id, "deleted")
      expect(silent.answer.ending).toEqual(new SessionNotFound())
      expect(streamed.answer.ending).toBe("end")
      expect(streamed.answer.messages().at(-1)).toMatchObject({ id: 2, error: { code: -32001 } })
      expect(stream.answer.ending).toBe("end")
      expect(stream.answer.messages()).toEqual([])
      expect(proxied.pool.open).toEqual([])
    })
  )

  it.scoped("ends a session that its upstream no longer knows, and has nothing to end there", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      const { lease, session } = yield* proxied.open()
      const { answer, exchange } = proxied.request(session, call(1))
      exchange.act("not found")
      expect(answer.status).toBe(404)
      yield* settle
      expect(proxied.sessions.get(session.id)).toBeUndefined()
      expect(lease.isEnded).toBe(false)
      expect(proxied.isEmpty).toBe(true)
    })
  )

  it.scoped("a 404 to the GET of a stream ends nothing, for it may come from a server that has none", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      const { session } = yield* proxied.open()
      const { answer, exchange } = proxied.request(session)
      exchange.act("not found")
      yield* settle
      expect(answer).toMatchObject({ status: 404, ending: "end" })
      expect(proxied.sessions.get(session.id)).toBe(session)
    })
  )

  it.scoped("has one reason, the first", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied({ multiSession: false })
      const { session } = yield* proxied.open()
      const { answer } = proxied.request(session, call(1))
      session.end("deleted")
      session.end("drained")
      expect(yield* proxied.sessions.over).toBe("deleted")
      expect(answer.ending).toEqual(new SessionNotFound())
    })
  )

  it.scoped("a 404 from an upstream without session ids ends nothing", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      proxied.pool.givesIds = false
      const { session } = yield* proxied.open()
      proxied.request(session, call(1)).exchange.act("not found")
      yield* settle
      expect(proxied.sessions.get(session.id)).toBe(session)
    })
  )
})

describe("idle sessions", () => {
  const short = { sessionTimeout: "10 minutes", cleanupInterval: "1 minute" } as const

  it.scoped("end after the timeout, and not before", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied(short)
      const { session } = yield* proxied.open()
      yield* proxied.clock.advance("9 minutes")
      expect(proxied.sessions.get(session.id)).toBe(session)
      yield* proxied.clock.advance("2 minutes")
      expect(proxied.sessions.get(session.id)).toBeUndefined()
      expect(proxied.isEmpty).toBe(true)
      expect((yield* proxied.records.list).length).toBe(0)
    })
  )

  it.scoped("are put off by every exchange", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied(short)
      const { session } = yield* proxied.open()
      for (let round = 0; round < 3; round++) {
        yield* proxied.clock.advance("9 minutes")
        proxied.request(session, call(round)).exchange.act("json")
      }
      yield* proxied.clock.advance("9 minutes")
      expect(proxied.sessions.get(session.id)).toBe(session)
    })
  )

  it.scoped.each([
    ["a stream is open", undefined],
    ["a call is in flight", call(1)]
  ] as const)("do not end while %s, and their record does not expire", ([, json]) =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied(short)
      const { session } = yield* proxied.open()
      const { disconnect } = proxied.request(session, json)
      yield* proxied.clock.advance("1 hour")
      expect(proxied.sessions.get(session.id)).toBe(session)
      expect((yield* proxied.records.list).length).toBe(1)
      disconnect()
      // For as long again as a session may be idle, the answer may still come.
      yield* proxied.clock.advance("21 minutes")
      expect(proxied.isEmpty).toBe(true)
    })
  )

  it.scoped("have a record for as long as they are live", () =>
    Effect.gen(function* () {
      // The sweep comes seldom: what happens between the expiry and the sweep revives a session that is live.
      const proxied = yield* makeProxied({ sessionTimeout: "1 minute", cleanupInterval: "10 minutes" })
      const { session } = yield* proxied.open()
      yield* proxied.clock.advance("5 minutes")
      const live = proxied.sessions.get(session.id)
      if (live !== undefined) proxied.request(live, call(1)).exchange.act("json")
      yield* settle
      const isLive = proxied.sessions.get(session.id) !== undefined
      expect((yield* proxied.records.list).length).toBe(isLive ? 1 : 0)
    })
  )
})

describe("sessions that are swept late", () => {
  it.scoped("are ended at the upstream once each, though their records have expired as well", () =>
    Effect.gen(function* () {
      const count = 500
      const proxied = yield* makeProxied({ maxSessions: count, maxPerClient: count })
      yield* Effect.forEach(Array.from({ length: count }), () => proxied.open())
      yield* proxied.clock.oversleep("1 hour")
      yield* proxied.clock.advance("1 hour")
      expect(proxied.isEmpty).toBe(true)
      expect((yield* proxied.records.list).length).toBe(0)
      expect(proxied.pool.leases.filter(({ releases }) => releases === 1)).toHaveLength(count)
      expect(proxied.pool.leases).toHaveLength(count)
    })
  )
})

describe("calls that get no answer", () => {
  it.scoped("a cancelled call ends after five seconds without a response and frees its place", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied({ maxExchanges: 1 })
      const { session } = yield* proxied.open()
      const { answer, exchange } = proxied.request(session, call("x"))
      proxied.request(session, cancellation("x")).exchange.act("accepted")
      yield* proxied.clock.advance("4 seconds")
      expect(answer.isOver).toBe(false)
      yield* proxied.clock.advance("2 seconds")
      expect(answer).toMatchObject({ status: 200, ending: "end", text: "", violations: [] })
      expect(answer.isEventStream).toBe(true)
      expect(exchange.isAborted).toBe(true)
      expect(proxied.request(session, call("x")).answer.isOver).toBe(false)
    })
  )

  it.scoped("a cancel names its request by value and type", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      const { session } = yield* proxied.open()
      const { answer } = proxied.request(session, call(7))
      proxied.request(session, cancellation("7")).exchange.act("accepted")
      yield* proxied.clock.advance("10 seconds")
      expect(answer.isOver).toBe(false)
    })
  )

  it.scoped("a cancelled call may still be answered in time", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      const { session } = yield* proxied.open()
      const { answer, exchange } = proxied.request(session, call(1))
      proxied.request(session, cancellation(1)).exchange.act("accepted")
      yield* proxied.clock.advance("1 second")
      exchange.act("json")
      yield* proxied.clock.advance("10 seconds")
      expect(answer).toMatchObject({ status: 200, ending: "end", violations: [] })
      expect(answer.responsesTo(1)).toBe(1)
    })
  )

  it.scoped("the upstream is told that a call has timed out, within the session's scope", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      const { session } = yield* proxied.open()
      const { answer, exchange } = proxied.request(session, call("slow"))
      exchange.act("time out")
      expect(answer.ending).toMatchObject({ status: 504 })
      expect(proxied.pool.open.map(({ request }) => request.body?.messages[0])).toMatchObject([
        { method: "notifications/cancelled", params: { requestId: "slow" } }
      ])
      // Nobody waits for the answer to that.
      yield* proxied.sessions.idle
      yield* proxied.sessions.close(session.id, "deleted")
      expect(proxied.pool.open).toEqual([])
    })
  )
})

/** A session whose client has left a standalone stream, which nothing feeds any more. */
const unfed = Effect.gen(function* () {
  const proxied = yield* makeProxied({}, {})
  const { session } = yield* proxied.open()
  const { answer, exchange, disconnect } = proxied.request(session)
  exchange.act("event with id")
  answer.goes()
  disconnect()
  proxied.pool.onExchange = (resumed) => resumed.act("not found")
  exchange.act("end")
  yield* proxied.clock.advance("1 second")
  return { answer, proxied, session }
})

describe("streams that are kept", () => {
  it.scoped(
    "go on at the upstream, and their exchange there ends with the response, however soon it comes",
    () =>
      Effect.gen(function* () {
        const proxied = yield* makeProxied({}, {})
        const { session } = yield* proxied.open()
        const { answer, exchange } = proxied.request(session, call(1))
        exchange.act("break")
        proxied.pool.onExchange = (resumed) => resumed.act("response with id")
        yield* proxied.clock.advance("1 second")
        expect(answer.responsesTo(1)).toBe(1)
        expect(answer).toMatchObject({ ending: "end", violations: [] })
        expect(proxied.pool.exchanges.length).toBe(3)
        expect(proxied.pool.open).toEqual([])
        expect(session.load.exchanges).toBe(0)
      })
  )

  it.scoped("are asked for again where another of the kind is in the way, or the upstream is not well", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied({}, {})
      const { session } = yield* proxied.open()
      const { answer, exchange } = proxied.request(session, call(1))
      exchange.act("break")
      const asked: Array<unknown> = []
      const acts = ["conflict", "server error", "break", "response with id"] as const
      proxied.pool.onExchange = (resumed) => {
        resumed.act(acts[asked.length] ?? "fail")
        asked.push(resumed.request.headers["last-event-id"])
      }
      yield* proxied.clock.advance("5 seconds")
      expect(asked).toEqual(["1.1", "1.1", "1.1", "1.2"])
      expect(answer.messages().map(({ id }) => id)).toEqual([undefined, undefined, 1])
      expect(answer).toMatchObject({ ending: "end", violations: [] })
    })
  )

  it.scoped("that the upstream will not go on with end with an error", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied({}, {})
      const { session } = yield* proxied.open()
      const { answer, exchange } = proxied.request(session, call(1))
      exchange.act("break")
      proxied.pool.onExchange = (resumed) => resumed.act("not found")
      yield* proxied.clock.advance("1 second")
      expect(answer.messages().at(-1)).toMatchObject({ id: 1, error: { code: -32000 } })
      expect(answer).toMatchObject({ ending: "end", violations: [] })
      expect(proxied.pool.exchanges.length).toBe(3)
    })
  )

  it.scoped("and stand alone end with what feeds them: who comes back is not left in silence", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied({}, {})
      const { session } = yield* proxied.open()
      const { answer, exchange } = proxied.request(session)
      exchange.act("open stream")
      const second = proxied.request(session)
      exchange.act("event")
      exchange.act("end")
      proxied.pool.onExchange = (resumed) => resumed.act("not found")
      yield* proxied.clock.advance("1 second")
      for (const { ending, violations } of [answer, second.answer])
        expect({ ending, violations }).toEqual({ ending: "end", violations: [] })
      expect(second.answer.messages().length).toBe(1)
      const back = proxied.resume(session, second.answer.eventIds().at(-1))
      expect(back.answer.failure).toMatchObject({ status: 405, reason: "StreamEnded" })
      const { exchange: anew } = proxied.request(session)
      expect(anew.request.method).toBe("GET")
    })
  )

  it.scoped("can be come back to whatever else is in flight", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied({ maxExchanges: 1 }, {})
      const { session } = yield* proxied.open()
      const { answer, exchange, disconnect } = proxied.request(session, call(1))
      exchange.act("event")
      answer.goes()
      disconnect()
      exchange.act("response")
      const back = proxied.resume(session, answer.eventIds().at(-1))
      expect(back.answer).toMatchObject({ status: 200 })
      expect(back.answer.messages()).toMatchObject([{ id: 1 }])
    })
  )

  it.scoped.each(["conflict", "server error"] as const)(
    "and stand alone are given back though the upstream has none at the moment (%s), and go on with it",
    (act) =>
      Effect.gen(function* () {
        const { answer, proxied, session } = yield* unfed
        const acts = [act, act, "event with id"] as const
        let asked = 0
        proxied.pool.onExchange = (resumed) => resumed.act(acts[asked++] ?? "open stream")
        const back = proxied.resume(session, answer.eventIds().at(-1))
        expect(back.answer).toMatchObject({ status: 200, ending: undefined })
        yield* proxied.clock.advance("5 seconds")
        expect(asked).toBe(3)
        expect(back.answer.messages()).toMatchObject([{ method: "notifications/message" }])
        expect(back.answer).toMatchObject({ ending: undefined, violations: [] })
      })
  )

  it.scoped("and stand alone go on where they stood, though what goes on with them breaks at once", () =>
    Effect.gen(function* () {
      const { answer, proxied, session } = yield* unfed
      const asked: Array<unknown> = []
      proxied.pool.onExchange = (resumed) => {
        asked.push(resumed.request.headers["last-event-id"])
        resumed.act("open stream")
        if (asked.length === 1) resumed.act("end")
      }
      proxied.resume(session, answer.eventIds().at(-1))
      yield* proxied.clock.advance("1 second")
      expect(asked).toEqual(["1.1", "1.1"])
    })
  )

  it.scoped("that answer no request are passed on as they are", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied({}, {})
      const { session } = yield* proxied.open()
      const { answer, exchange } = proxied.request(session, notification("notifications/roots/list_changed"))
      exchange.act("event with id")
      exchange.act("end")
      expect(answer.eventIds()).toEqual(["1.1"])
      expect(answer).toMatchObject({ ending: "end", violations: [] })
    })
  )

  it.scoped("and stand alone keep what they have when what feeds them is over", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied({}, {})
      const { session } = yield* proxied.open()
      const { answer, exchange, disconnect } = proxied.request(session)
      exchange.act("event")
      answer.goes()
      disconnect()
      exchange.act("event")
      exchange.act("end")
      proxied.pool.onExchange = (resumed) => resumed.act("not found")
      yield* proxied.clock.advance("1 second")
      const back = proxied.resume(session, answer.eventIds().at(-1))
      expect(back.answer.messages().length).toBe(1)
      expect(back.answer).toMatchObject({ status: 200, ending: "end", violations: [] })
    })
  )
})

describe("shutting down", () => {
  it.scoped("waits for calls, but not for streams nor for clients that have gone", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      const { session } = yield* proxied.open()
      proxied.request(session)
      proxied.stateless(modernCall(9, "subscriptions/listen"))
      const left = proxied.request(session, call(1))
      const waiting = proxied.request(session, call(2))
      const quiet = yield* Effect.fork(proxied.sessions.idle)
      left.disconnect()
      yield* settle
      expect(yield* Fiber.poll(quiet)).toEqual(Option.none())
      waiting.exchange.act("json")
      yield* Fiber.join(quiet)
    })
  )

  it.scoped("waits for a call whose client has come back, as long as it stays", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied({}, {})
      const { session } = yield* proxied.open()
      const { answer, exchange, disconnect } = proxied.request(session, call(1))
      exchange.act("event")
      answer.goes()
      disconnect()
      yield* proxied.sessions.idle
      const back = proxied.resume(session, answer.eventIds().at(-1))
      const waiting = yield* Effect.fork(proxied.sessions.idle)
      yield* settle
      expect(yield* Fiber.poll(waiting)).toEqual(Option.none())
      exchange.act("response")
      yield* Fiber.join(waiting)
      exchange.act("end")
      expect(back.answer.messages()).toMatchObject([{ id: 1 }])
    })
  )

  it.scoped("closes every session, those being opened too, and says why", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      const { session } = yield* proxied.open()
      const { answer } = proxied.request(session, call(1))
      const stateless = proxied.stateless(modernCall(2))
      const { outcome } = yield* proxied.connect()
      yield* proxied.sessions.drain
      expect(answer.ending).toEqual(new ShuttingDown())
      expect(stateless.answer.ending).toEqual(new ShuttingDown())
      expect(yield* outcome).toEqual(Exit.fail(new ShuttingDown()))
      expect(proxied.isEmpty).toBe(true)
      expect(proxied.pool.open).toEqual([])
    })
  )

  it.scoped("opens no session any more", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied()
      yield* proxied.sessions.drain
      const { outcome } = yield* proxied.connect()
      expect(yield* outcome).toEqual(Exit.fail(new ShuttingDown()))
    })
  )

  it.scoped("is not held up by a session that takes the place of another meanwhile", () =>
    Effect.gen(function* () {
      const proxied = yield* makeProxied({ multiSession: false })
      proxied.pool.releaseTime = 2_000
      yield* proxied.open()
      const { outcome } = yield* proxied.connect()
      const drain = yield* Effect.fork(proxied.sessions.drain)
      yield* proxied.clock.advance("10 seconds")
      expect(Option.isSome(yield* Fiber.poll(drain))).toBe(true)
      expect(yield* outcome).toEqual(Exit.fail(new ShuttingDown()))
    })
  )
})
