import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { UpstreamError } from "../../src/ProxyError.js"
import { settle } from "../fixtures/ManualClock.js"
import { initialize, revision } from "../fixtures/requests.js"
import { makeScriptedProxy } from "../fixtures/ScriptedProxy.js"

describe("open", () => {
  it.scoped("responds with a session id of the proxy, and stores a record to restore the session", () =>
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

  it.scoped("gives each session its own id and lease", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const all = yield* Effect.forEach([1, 2, 3], () => proxy.open())
      expect(new Set(all.map(({ session }) => session.id)).size).toBe(3)
      expect(new Set(all.map(({ lease }) => lease)).size).toBe(3)
    })
  )

  it.scoped(
    "does not cancel `initialize` when its client disconnects, but closes the session after the response",
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
    "closes the session if its client disconnects together with the response (%s)",
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

  it.scoped("fails and releases its admission if the upstream refuses the lease", () =>
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
  ] as const)("fails if the upstream responds to `initialize` with '%s'", ([act, reason]) =>
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
  ] as const)("passes on the upstream's '%s' without a session id", ([act, status]) =>
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

  it.scoped("fails with 504 if the response stalls in the middle of its JSON", () =>
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
    "waits for a response stream that is silent after '%s' until its client disconnects",
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

  it.scoped("ends the response if the upstream fails after the result", () =>
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

  it.scoped("passes on a response stream event by event", () =>
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

describe("an initialize whose client has disconnected", () => {
  it.scoped("is replaced immediately by the next one without --multi-session", () =>
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

  it.scoped("does not end a proxy without --multi-session when it gets its response", () =>
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

  it.scoped("is aborted after a minute", () =>
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

  it.scoped("does not delay a shutdown", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      const { disconnect } = yield* proxy.connect()
      const idle = yield* Effect.fork(proxy.sessions.idle)
      yield* settle
      expect(Option.isNone(yield* Fiber.poll(idle))).toBe(true)
      yield* disconnect
      yield* settle
      expect(Option.isSome(yield* Fiber.poll(idle))).toBe(true)
    })
  )
})
