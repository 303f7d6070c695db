import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { LimitReached, SessionNotFound, ShuttingDown, UpstreamError } from "../src/ProxyError.js"
import { settle } from "./fixtures/ManualClock.js"
import { makeScriptedProxy } from "./fixtures/ScriptedProxy.js"
import {
  call,
  cancellation,
  initialize,
  modernCall,
  notification,
  responseTo,
  revision
} from "./fixtures/requests.js"

describe("opening", () => {
  it.scoped("responses under an id of the proxy's own, and stores what a revival needs", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { response, exchange, lease, session } = yield* proxy.open("10.0.0.7")
      expect(response).toMatchObject({ status: 200, ending: "end", violations: [] })
      expect(response.headers["mcp-session-id"]).toBe(session.id)
      expect(session.id).toMatch(/^[A-Za-z0-9_-]{22}$/)
      expect(proxy.sessions.get(session.id)).toBe(session)
      expect(lease.revision).toBe(revision)
      expect(exchange.isAborted).toBe(false)
      expect(Option.getOrThrow(yield* proxy.records.get(session.id))).toMatchObject({
        id: session.id,
        upstream: proxy.pool.name,
        upstreamSessionId: "upstream-0",
        protocolVersion: revision,
        initialize: JSON.stringify(initialize().params),
        client: "10.0.0.7"
      })
    })
  )

  it.scoped("gives each session an id and a lease of its own", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const all = yield* Effect.forEach([1, 2, 3], () => proxy.open())
      expect(new Set(all.map(({ session }) => session.id)).size).toBe(3)
      expect(new Set(all.map(({ lease }) => lease)).size).toBe(3)
    })
  )

  it.scoped(
    "does not cancel `initialize` when its client goes, but ends the session once it is answered",
    () =>
      Effect.gen(function* () {
        const proxy = yield* makeScriptedProxy()
        const { exchange, disconnect } = yield* proxy.connect()
        yield* disconnect
        yield* settle
        expect(exchange.hasEnded).toBe(false)
        expect(proxy.sessions.size().sessions).toBe(1)
        exchange.perform("json")
        yield* settle
        expect(proxy.isEmpty).toBe(true)
        expect((yield* proxy.records.list).length).toBe(0)
      })
  )

  it.scoped.each(["json", "response"] as const)(
    "ends the session whose client goes in the moment of the response (%s)",
    (act) =>
      Effect.gen(function* () {
        const proxy = yield* makeScriptedProxy()
        const { exchange, disconnect } = yield* proxy.connect()
        exchange.perform(act)
        yield* disconnect
        yield* settle
        expect(proxy.isEmpty).toBe(true)
        expect(proxy.pool.openExchanges).toEqual([])
      })
  )

  it.scoped("fails when the upstream cannot be leased, and gives the place back", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      proxy.pool.leaseMode = "refused"
      const { outcome } = yield* proxy.connect()
      expect(yield* outcome).toEqual(
        Exit.fail(new UpstreamError({ reason: "Unreachable", upstream: proxy.pool.name }))
      )
      expect(proxy.isEmpty).toBe(true)
    })
  )

  it.scoped.each([
    ["fail", "Closed"],
    ["timeout", "ResponseTimeout"],
    ["not MCP", "NotMcp"],
    ["wrong response", "NotMcp"],
    ["accepted", "NotMcp"]
  ] as const)("fails when the upstream responses `initialize` with '%s'", ([act, reason]) =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { response, exchange, outcome } = yield* proxy.connect()
      exchange.perform(act)
      expect(yield* outcome).toMatchObject({ _tag: "Failure", cause: { error: { reason } } })
      expect(proxy.isEmpty).toBe(true)
      expect(proxy.pool.openExchanges).toEqual([])
      expect(response.hasEnded).toBe(false)
    })
  )

  it.scoped.each([
    ["not found", 404],
    ["server error", 500],
    ["error response", 200]
  ] as const)("passes on the upstream's own '%s', with no session id", ([act, status]) =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { response, exchange, outcome } = yield* proxy.connect()
      exchange.perform(act)
      expect(yield* outcome).toMatchObject({
        _tag: "Failure",
        cause: { error: { reason: "InitializeRefused" } }
      })
      expect(response).toMatchObject({ status, ending: "end", violations: [] })
      expect(response.headers["mcp-session-id"]).toBeUndefined()
      expect(proxy.isEmpty).toBe(true)
    })
  )

  it.scoped("does not wait for ever for an response that stops in the middle of its JSON", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { exchange, outcome } = yield* proxy.connect()
      exchange.perform("partial json")
      yield* proxy.clock.advance("5 minutes")
      expect(yield* outcome).toMatchObject({ _tag: "Failure", cause: { error: { status: 504 } } })
      expect(proxy.isEmpty).toBe(true)
      expect(exchange.isAborted).toBe(true)
    })
  )

  it.scoped.each(["open stream", "partial frame", "event"] as const)(
    "waits for an response on a stream that is silent after '%s' for as long as its client does",
    (act) =>
      Effect.gen(function* () {
        const proxy = yield* makeScriptedProxy()
        const { exchange, disconnect } = yield* proxy.connect()
        exchange.perform(act)
        yield* proxy.clock.advance("1 hour")
        expect(exchange.isAborted).toBe(false)
        yield* disconnect
        yield* proxy.clock.advance("1 minute")
        expect(exchange.isAborted).toBe(true)
        expect(proxy.isEmpty).toBe(true)
      })
  )

  it.scoped("tells the client of a failure between the first message of the response and the session", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { response, exchange, outcome } = yield* proxy.connect()
      exchange.perform("response")
      exchange.perform("fail")
      expect(yield* outcome).toMatchObject({ _tag: "Success" })
      expect(response.hasEnded).toBe(true)
      expect(response.countResponses(0)).toBe(1)
    })
  )

  it.scoped("passes a streamed response on as it comes", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { response, exchange, outcome } = yield* proxy.connect()
      exchange.perform("event")
      expect(yield* outcome).toBeUndefined()
      exchange.perform("response")
      expect(yield* outcome).toMatchObject({ _tag: "Success" })
      expect(response.messages.map(({ method }) => method)).toEqual(["notifications/message", undefined])
      exchange.perform("event")
      exchange.perform("end")
      expect(response.messages.length).toBe(3)
      expect(response).toMatchObject({ ending: "end", violations: [] })
    })
  )
})

describe("bounds", () => {
  it.scoped("refuses sessions past --max-sessions, and takes them again when one has ended", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({ maxSessions: 2 })
      const { session } = yield* proxy.open()
      yield* proxy.open()
      const { outcome } = yield* proxy.connect()
      expect(yield* outcome).toEqual(Exit.fail(new LimitReached({ limit: "max-sessions", bound: 2 })))
      expect(proxy.pool.leases.length).toBe(2)
      yield* proxy.sessions.close(session.id, "deleted")
      yield* proxy.open()
      expect(proxy.sessions.size().sessions).toBe(2)
    })
  )

  it.scoped("counts sessions that are still being opened", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({ maxSessions: 1 })
      yield* proxy.connect()
      const { outcome } = yield* proxy.connect()
      expect(yield* outcome).toEqual(Exit.fail(new LimitReached({ limit: "max-sessions", bound: 1 })))
    })
  )

  it.scoped("holds the bound of one client without shutting out the others", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({ maxPerClient: 1 })
      yield* proxy.open("a")
      const { outcome } = yield* proxy.connect("a")
      expect(yield* outcome).toEqual(Exit.fail(new LimitReached({ limit: "max-per-client", bound: 1 })))
      yield* proxy.open("b")
    })
  )

  it.scoped("refuses requests past --max-exchanges, but lets the client's responses through", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({ maxExchanges: 2 })
      const { session } = yield* proxy.open()
      const first = proxy.request(session, call(1))
      proxy.request(session, call(2))
      const third = proxy.request(session, call(3))
      expect(third.response.ending).toEqual(new LimitReached({ limit: "max-exchanges", bound: 2 }))
      const fromClient = proxy.request(session, responseTo(0))
      expect(fromClient.response.hasEnded).toBe(false)
      fromClient.exchange.perform("accepted")
      first.exchange.perform("json")
      expect(proxy.request(session, call(4)).response.hasEnded).toBe(false)
    })
  )

  it.scoped("bounds the requests without a session", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({ maxStateless: 2, maxExchanges: 1 })
      const first = proxy.stateless(modernCall(1))
      proxy.stateless(modernCall(2))
      const { response } = proxy.stateless(modernCall(3))
      expect(response).toMatchObject({ ending: { limit: "max-stateless", status: 503 }, isSettled: true })
      first.disconnect()
      expect(first.exchange.isAborted).toBe(true)
      expect(proxy.stateless(modernCall(4)).response.hasEnded).toBe(false)
    })
  )
})

describe("one session at a time", () => {
  const single = { multiSession: false }

  it.scoped("replaces a session that has only been tried out", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy(single)
      const { lease, session } = yield* proxy.open()
      proxy.request(session, notification("notifications/initialized")).exchange.perform("accepted")
      proxy.request(session, call(1, "ping")).exchange.perform("json")
      const stream = proxy.request(session)
      yield* proxy.open()
      expect(proxy.sessions.get(session.id)).toBeUndefined()
      expect(lease.releases).toBe(1)
      expect(stream.exchange.isAborted).toBe(true)
      const over = yield* Effect.fork(proxy.sessions.over)
      yield* settle
      expect(yield* Fiber.poll(over)).toEqual(Option.none())
    })
  )

  it.scoped("does not replace a session in use, and names the option for more", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy(single)
      const { session } = yield* proxy.open()
      proxy.request(session, call(1)).exchange.perform("json")
      const { outcome } = yield* proxy.connect()
      expect(yield* outcome).toMatchObject({ cause: { error: { limit: "multi-session", status: 503 } } })
      expect(proxy.sessions.get(session.id)).toBe(session)
    })
  )

  it.scoped("is over when the session ends", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy(single)
      const { session } = yield* proxy.open()
      yield* proxy.sessions.close(session.id, "deleted")
      expect(yield* proxy.sessions.over).toBe("deleted")
    })
  )

  it.scoped("is not over when no session could be opened", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy(single)
      const { exchange } = yield* proxy.connect()
      exchange.perform("server error")
      const over = yield* Effect.fork(proxy.sessions.over)
      yield* settle
      expect(yield* Fiber.poll(over)).toEqual(Option.none())
      yield* proxy.open()
    })
  )
})

describe("an initialize whose client has gone", () => {
  it.scoped("makes room for another at once where there is one session at a time", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({ multiSession: false })
      const { exchange, disconnect } = yield* proxy.connect()
      yield* disconnect
      yield* settle
      expect(proxy.sessions.size().sessions).toBe(1)
      const { session } = yield* proxy.open()
      expect(exchange.isAborted).toBe(true)
      expect(proxy.sessions.get(session.id)).toBe(session)
    })
  )

  it.scoped("does not end a proxy of one session when it is answered after all", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({ multiSession: false })
      const { exchange, disconnect } = yield* proxy.connect()
      yield* disconnect
      yield* settle
      exchange.perform("json")
      yield* settle
      expect(proxy.isEmpty).toBe(true)
      const over = yield* Effect.fork(proxy.sessions.over)
      yield* settle
      expect(yield* Fiber.poll(over)).toEqual(Option.none())
      yield* proxy.open()
    })
  )

  it.scoped("keeps its place for a minute and no longer", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { exchange, disconnect } = yield* proxy.connect()
      yield* disconnect
      yield* proxy.clock.advance("59 seconds")
      expect(exchange.isAborted).toBe(false)
      yield* proxy.clock.advance("1 second")
      expect(exchange.isAborted).toBe(true)
      expect(proxy.isEmpty).toBe(true)
    })
  )

  it.scoped("is not waited for by a shutdown", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { disconnect } = yield* proxy.connect()
      const quiet = yield* Effect.fork(proxy.sessions.idle)
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
      const proxy = yield* makeScriptedProxy()
      proxy.pool.releaseTime = 2_000
      const { lease, session } = yield* proxy.open()
      const closing = yield* Effect.fork(proxy.sessions.close(session.id, "deleted"))
      yield* proxy.clock.advance("1 second")
      expect(proxy.sessions.get(session.id)).toBeUndefined()
      expect((yield* proxy.records.list).length).toBe(0)
      expect(proxy.sessions.size().sessions).toBe(1)
      yield* proxy.clock.advance("1 second")
      expect(yield* Fiber.join(closing)).toBe(true)
      expect(lease.releases).toBe(1)
      expect(proxy.sessions.size().sessions).toBe(0)
    })
  )

  it.scoped("says when there is no such session", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      expect(yield* proxy.sessions.close("unknown", "deleted")).toBe(false)
    })
  )

  it.scoped("tells those who wait that the session has ended", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { session } = yield* proxy.open()
      const silent = proxy.request(session, call(1))
      const streamed = proxy.request(session, call(2))
      streamed.exchange.perform("event")
      const stream = proxy.request(session)
      stream.exchange.perform("open stream")
      yield* proxy.sessions.close(session.id, "deleted")
      expect(silent.response.ending).toEqual(new SessionNotFound())
      expect(streamed.response.ending).toBe("end")
      expect(streamed.response.messages.at(-1)).toMatchObject({ id: 2, error: { code: -32001 } })
      expect(stream.response.ending).toBe("end")
      expect(stream.response.messages).toEqual([])
      expect(proxy.pool.openExchanges).toEqual([])
    })
  )

  it.scoped("ends a session that its upstream no longer knows, and has nothing to end there", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { lease, session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session, call(1))
      exchange.perform("not found")
      expect(response.status).toBe(404)
      yield* settle
      expect(proxy.sessions.get(session.id)).toBeUndefined()
      expect(lease.endsUpstreamSession).toBe(false)
      expect(proxy.isEmpty).toBe(true)
    })
  )

  it.scoped("a 404 to the GET of a stream ends nothing, for it may come from a server that has none", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session)
      exchange.perform("not found")
      yield* settle
      expect(response).toMatchObject({ status: 404, ending: "end" })
      expect(proxy.sessions.get(session.id)).toBe(session)
    })
  )

  it.scoped("has one reason, the first", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({ multiSession: false })
      const { session } = yield* proxy.open()
      const { response } = proxy.request(session, call(1))
      session.end("deleted")
      session.end("drained")
      expect(yield* proxy.sessions.over).toBe("deleted")
      expect(response.ending).toEqual(new SessionNotFound())
    })
  )

  it.scoped("a 404 from an upstream without session ids ends nothing", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      proxy.pool.issuesSessionIds = false
      const { session } = yield* proxy.open()
      proxy.request(session, call(1)).exchange.perform("not found")
      yield* settle
      expect(proxy.sessions.get(session.id)).toBe(session)
    })
  )
})

describe("idle sessions", () => {
  const short = { sessionTimeout: "10 minutes", cleanupInterval: "1 minute" } as const

  it.scoped("end after the timeout, and not before", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy(short)
      const { session } = yield* proxy.open()
      yield* proxy.clock.advance("9 minutes")
      expect(proxy.sessions.get(session.id)).toBe(session)
      yield* proxy.clock.advance("2 minutes")
      expect(proxy.sessions.get(session.id)).toBeUndefined()
      expect(proxy.isEmpty).toBe(true)
      expect((yield* proxy.records.list).length).toBe(0)
    })
  )

  it.scoped("are put off by every exchange", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy(short)
      const { session } = yield* proxy.open()
      for (let round = 0; round < 3; round++) {
        yield* proxy.clock.advance("9 minutes")
        proxy.request(session, call(round)).exchange.perform("json")
      }
      yield* proxy.clock.advance("9 minutes")
      expect(proxy.sessions.get(session.id)).toBe(session)
    })
  )

  it.scoped.each([
    ["a stream is open", undefined],
    ["a call is in flight", call(1)]
  ] as const)("do not end while %s, and their record does not expire", ([, json]) =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy(short)
      const { session } = yield* proxy.open()
      const { disconnect } = proxy.request(session, json)
      yield* proxy.clock.advance("1 hour")
      expect(proxy.sessions.get(session.id)).toBe(session)
      expect((yield* proxy.records.list).length).toBe(1)
      disconnect()
      // For as long again as a session may be idle, the response may still come.
      yield* proxy.clock.advance("21 minutes")
      expect(proxy.isEmpty).toBe(true)
    })
  )

  it.scoped("have a record for as long as they are live", () =>
    Effect.gen(function* () {
      // The sweep comes seldom: what happens between the expiry and the sweep revives a session that is live.
      const proxy = yield* makeScriptedProxy({ sessionTimeout: "1 minute", cleanupInterval: "10 minutes" })
      const { session } = yield* proxy.open()
      yield* proxy.clock.advance("5 minutes")
      const live = proxy.sessions.get(session.id)
      if (live !== undefined) proxy.request(live, call(1)).exchange.perform("json")
      yield* settle
      const isLive = proxy.sessions.get(session.id) !== undefined
      expect((yield* proxy.records.list).length).toBe(isLive ? 1 : 0)
    })
  )
})

describe("sessions that are swept late", () => {
  it.scoped("are ended at the upstream once each, though their records have expired as well", () =>
    Effect.gen(function* () {
      const count = 500
      const proxy = yield* makeScriptedProxy({ maxSessions: count, maxPerClient: count })
      yield* Effect.forEach(Array.from({ length: count }), () => proxy.open())
      yield* proxy.clock.oversleep("1 hour")
      yield* proxy.clock.advance("1 hour")
      expect(proxy.isEmpty).toBe(true)
      expect((yield* proxy.records.list).length).toBe(0)
      expect(proxy.pool.leases.filter(({ releases }) => releases === 1)).toHaveLength(count)
      expect(proxy.pool.leases).toHaveLength(count)
    })
  )
})

describe("calls that get no response", () => {
  it.scoped("a cancelled call ends after five seconds without a response and frees its place", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({ maxExchanges: 1 })
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session, call("x"))
      proxy.request(session, cancellation("x")).exchange.perform("accepted")
      yield* proxy.clock.advance("4 seconds")
      expect(response.hasEnded).toBe(false)
      yield* proxy.clock.advance("2 seconds")
      expect(response).toMatchObject({ status: 200, ending: "end", text: "", violations: [] })
      expect(response.isEventStream).toBe(true)
      expect(exchange.isAborted).toBe(true)
      expect(proxy.request(session, call("x")).response.hasEnded).toBe(false)
    })
  )

  it.scoped("a cancel names its request by value and type", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { session } = yield* proxy.open()
      const { response } = proxy.request(session, call(7))
      proxy.request(session, cancellation("7")).exchange.perform("accepted")
      yield* proxy.clock.advance("10 seconds")
      expect(response.hasEnded).toBe(false)
    })
  )

  it.scoped("a cancelled call may still be answered in time", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session, call(1))
      proxy.request(session, cancellation(1)).exchange.perform("accepted")
      yield* proxy.clock.advance("1 second")
      exchange.perform("json")
      yield* proxy.clock.advance("10 seconds")
      expect(response).toMatchObject({ status: 200, ending: "end", violations: [] })
      expect(response.countResponses(1)).toBe(1)
    })
  )

  it.scoped("the upstream is told that a call has timed out, within the session's scope", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session, call("slow"))
      exchange.perform("timeout")
      expect(response.ending).toMatchObject({ status: 504 })
      expect(proxy.pool.openExchanges.map(({ request }) => request.body?.messages[0])).toMatchObject([
        { method: "notifications/cancelled", params: { requestId: "slow" } }
      ])
      // Nobody waits for the response to that.
      yield* proxy.sessions.idle
      yield* proxy.sessions.close(session.id, "deleted")
      expect(proxy.pool.openExchanges).toEqual([])
    })
  )
})

/** A session whose client has left a standalone stream, which nothing feeds any more. */
const unfed = Effect.gen(function* () {
  const proxy = yield* makeScriptedProxy({}, {})
  const { session } = yield* proxy.open()
  const { response, exchange, disconnect } = proxy.request(session)
  exchange.perform("event with id")
  response.disconnect()
  disconnect()
  proxy.pool.onExchange = (resumed) => resumed.perform("not found")
  exchange.perform("end")
  yield* proxy.clock.advance("1 second")
  return { response, proxy, session }
})

describe("streams that are kept", () => {
  it.scoped(
    "go on at the upstream, and their exchange there ends with the response, however soon it comes",
    () =>
      Effect.gen(function* () {
        const proxy = yield* makeScriptedProxy({}, {})
        const { session } = yield* proxy.open()
        const { response, exchange } = proxy.request(session, call(1))
        exchange.perform("event with id, then failure")
        proxy.pool.onExchange = (resumed) => resumed.perform("response with id")
        yield* proxy.clock.advance("1 second")
        expect(response.countResponses(1)).toBe(1)
        expect(response).toMatchObject({ ending: "end", violations: [] })
        expect(proxy.pool.exchanges.length).toBe(3)
        expect(proxy.pool.openExchanges).toEqual([])
        expect(session.load.exchanges).toBe(0)
      })
  )

  it.scoped("are asked for again where another of the kind is in the way, or the upstream is not well", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({}, {})
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session, call(1))
      exchange.perform("event with id, then failure")
      const asked: Array<unknown> = []
      const acts = ["conflict", "server error", "event with id, then failure", "response with id"] as const
      proxy.pool.onExchange = (resumed) => {
        resumed.perform(acts[asked.length] ?? "fail")
        asked.push(resumed.request.headers["last-event-id"])
      }
      yield* proxy.clock.advance("5 seconds")
      expect(asked).toEqual(["1.1", "1.1", "1.1", "1.2"])
      expect(response.messages.map(({ id }) => id)).toEqual([undefined, undefined, 1])
      expect(response).toMatchObject({ ending: "end", violations: [] })
    })
  )

  it.scoped("that the upstream will not go on with end with an error", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({}, {})
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session, call(1))
      exchange.perform("event with id, then failure")
      proxy.pool.onExchange = (resumed) => resumed.perform("not found")
      yield* proxy.clock.advance("1 second")
      expect(response.messages.at(-1)).toMatchObject({ id: 1, error: { code: -32000 } })
      expect(response).toMatchObject({ ending: "end", violations: [] })
      expect(proxy.pool.exchanges.length).toBe(3)
    })
  )

  it.scoped("and stand alone end with what feeds them: who comes back is not left in silence", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({}, {})
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session)
      exchange.perform("open stream")
      const second = proxy.request(session)
      exchange.perform("event")
      exchange.perform("end")
      proxy.pool.onExchange = (resumed) => resumed.perform("not found")
      yield* proxy.clock.advance("1 second")
      for (const { ending, violations } of [response, second.response])
        expect({ ending, violations }).toEqual({ ending: "end", violations: [] })
      expect(second.response.messages.length).toBe(1)
      const back = proxy.resume(session, second.response.eventIds.at(-1))
      expect(back.response.failure).toMatchObject({ status: 405, reason: "StreamEnded" })
      const { exchange: anew } = proxy.request(session)
      expect(anew.request.method).toBe("GET")
    })
  )

  it.scoped("can be come back to whatever else is in flight", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({ maxExchanges: 1 }, {})
      const { session } = yield* proxy.open()
      const { response, exchange, disconnect } = proxy.request(session, call(1))
      exchange.perform("event")
      response.disconnect()
      disconnect()
      exchange.perform("response")
      const back = proxy.resume(session, response.eventIds.at(-1))
      expect(back.response).toMatchObject({ status: 200 })
      expect(back.response.messages).toMatchObject([{ id: 1 }])
    })
  )

  it.scoped.each(["conflict", "server error"] as const)(
    "and stand alone are given back though the upstream has none at the moment (%s), and go on with it",
    (act) =>
      Effect.gen(function* () {
        const { response, proxy, session } = yield* unfed
        const acts = [act, act, "event with id"] as const
        let asked = 0
        proxy.pool.onExchange = (resumed) => resumed.perform(acts[asked++] ?? "open stream")
        const back = proxy.resume(session, response.eventIds.at(-1))
        expect(back.response).toMatchObject({ status: 200, ending: undefined })
        yield* proxy.clock.advance("5 seconds")
        expect(asked).toBe(3)
        expect(back.response.messages).toMatchObject([{ method: "notifications/message" }])
        expect(back.response).toMatchObject({ ending: undefined, violations: [] })
      })
  )

  it.scoped("and stand alone go on where they stood, though what goes on with them breaks at once", () =>
    Effect.gen(function* () {
      const { response, proxy, session } = yield* unfed
      const asked: Array<unknown> = []
      proxy.pool.onExchange = (resumed) => {
        asked.push(resumed.request.headers["last-event-id"])
        resumed.perform("open stream")
        if (asked.length === 1) resumed.perform("end")
      }
      proxy.resume(session, response.eventIds.at(-1))
      yield* proxy.clock.advance("1 second")
      expect(asked).toEqual(["1.1", "1.1"])
    })
  )

  it.scoped("that response no request are passed on as they are", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({}, {})
      const { session } = yield* proxy.open()
      const { response, exchange } = proxy.request(session, notification("notifications/roots/list_changed"))
      exchange.perform("event with id")
      exchange.perform("end")
      expect(response.eventIds).toEqual(["1.1"])
      expect(response).toMatchObject({ ending: "end", violations: [] })
    })
  )

  it.scoped("and stand alone keep what they have when what feeds them is over", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({}, {})
      const { session } = yield* proxy.open()
      const { response, exchange, disconnect } = proxy.request(session)
      exchange.perform("event")
      response.disconnect()
      disconnect()
      exchange.perform("event")
      exchange.perform("end")
      proxy.pool.onExchange = (resumed) => resumed.perform("not found")
      yield* proxy.clock.advance("1 second")
      const back = proxy.resume(session, response.eventIds.at(-1))
      expect(back.response.messages.length).toBe(1)
      expect(back.response).toMatchObject({ status: 200, ending: "end", violations: [] })
    })
  )
})

describe("shutting down", () => {
  it.scoped("waits for calls, but not for streams nor for clients that have gone", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { session } = yield* proxy.open()
      proxy.request(session)
      proxy.stateless(modernCall(9, "subscriptions/listen"))
      const left = proxy.request(session, call(1))
      const waiting = proxy.request(session, call(2))
      const quiet = yield* Effect.fork(proxy.sessions.idle)
      left.disconnect()
      yield* settle
      expect(yield* Fiber.poll(quiet)).toEqual(Option.none())
      waiting.exchange.perform("json")
      yield* Fiber.join(quiet)
    })
  )

  it.scoped("waits for a call whose client has come back, as long as it stays", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({}, {})
      const { session } = yield* proxy.open()
      const { response, exchange, disconnect } = proxy.request(session, call(1))
      exchange.perform("event")
      response.disconnect()
      disconnect()
      yield* proxy.sessions.idle
      const back = proxy.resume(session, response.eventIds.at(-1))
      const waiting = yield* Effect.fork(proxy.sessions.idle)
      yield* settle
      expect(yield* Fiber.poll(waiting)).toEqual(Option.none())
      exchange.perform("response")
      yield* Fiber.join(waiting)
      exchange.perform("end")
      expect(back.response.messages).toMatchObject([{ id: 1 }])
    })
  )

  it.scoped("closes every session, those being opened too, and says why", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { session } = yield* proxy.open()
      const { response } = proxy.request(session, call(1))
      const stateless = proxy.stateless(modernCall(2))
      const { outcome } = yield* proxy.connect()
      yield* proxy.sessions.drain
      expect(response.ending).toEqual(new ShuttingDown())
      expect(stateless.response.ending).toEqual(new ShuttingDown())
      expect(yield* outcome).toEqual(Exit.fail(new ShuttingDown()))
      expect(proxy.isEmpty).toBe(true)
      expect(proxy.pool.openExchanges).toEqual([])
    })
  )

  it.scoped("opens no session any more", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      yield* proxy.sessions.drain
      const { outcome } = yield* proxy.connect()
      expect(yield* outcome).toEqual(Exit.fail(new ShuttingDown()))
    })
  )

  it.scoped("is not held up by a session that takes the place of another meanwhile", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({ multiSession: false })
      proxy.pool.releaseTime = 2_000
      yield* proxy.open()
      const { outcome } = yield* proxy.connect()
      const drain = yield* Effect.fork(proxy.sessions.drain)
      yield* proxy.clock.advance("10 seconds")
      expect(Option.isSome(yield* Fiber.poll(drain))).toBe(true)
      expect(yield* outcome).toEqual(Exit.fail(new ShuttingDown()))
    })
  )
})
