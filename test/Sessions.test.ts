import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { LimitReached, SessionNotFound } from "../src/ProxyError.js"
import { settle } from "./fixtures/ManualClock.js"
import { call, modernCall, notification, responseTo } from "./fixtures/requests.js"
import { makeScriptedProxy } from "./fixtures/ScriptedProxy.js"

describe("limits", () => {
  it.scoped("reject a session over --max-sessions until another one has closed", () =>
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

  it.scoped("count sessions that are not open yet", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({ maxSessions: 1 })
      yield* proxy.connect()
      const { outcome } = yield* proxy.connect()
      expect(yield* outcome).toEqual(Exit.fail(new LimitReached({ limit: "max-sessions", bound: 1 })))
    })
  )

  it.scoped("restrict one client to --max-per-client without an effect on other clients", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy({ maxPerClient: 1 })
      yield* proxy.open("a")
      const { outcome } = yield* proxy.connect("a")
      expect(yield* outcome).toEqual(Exit.fail(new LimitReached({ limit: "max-per-client", bound: 1 })))
      yield* proxy.open("b")
    })
  )

  it.scoped("reject a request over --max-exchanges, but not a response of the client", () =>
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

  it.scoped("reject a request without a session over --max-stateless", () =>
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

describe("without --multi-session", () => {
  const single = { multiSession: false }

  it.scoped("replaces a session that has only sent pings and read its stream", () =>
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

  it.scoped(
    "does not replace a session that has sent a request, and names --multi-session in the error",
    () =>
      Effect.gen(function* () {
        const proxy = yield* makeScriptedProxy(single)
        const { session } = yield* proxy.open()
        proxy.request(session, call(1)).exchange.perform("json")
        const { outcome } = yield* proxy.connect()
        expect(yield* outcome).toMatchObject({ cause: { error: { limit: "multi-session", status: 503 } } })
        expect(proxy.sessions.get(session.id)).toBe(session)
      })
  )

  it.scoped("ends the proxy when its session ends", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy(single)
      const { session } = yield* proxy.open()
      yield* proxy.sessions.close(session.id, "deleted")
      expect(yield* proxy.sessions.over).toBe("deleted")
    })
  )

  it.scoped("does not end the proxy if its session did not open", () =>
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

describe("closing a session", () => {
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

  it.scoped("returns false if there is no such session", () =>
    Effect.gen(function* () {
      const proxy = yield* makeScriptedProxy()
      expect(yield* proxy.sessions.close("unknown", "deleted")).toBe(false)
    })
  )

  it.scoped("fails pending requests with SessionNotFound and ends standalone streams", () =>
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

  it.scoped("happens if the upstream returns 404 for the session, which is not ended there", () =>
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

  it.scoped("does not happen after a 404 to GET, because the server may not support standalone streams", () =>
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

  it.scoped("keeps the first reason", () =>
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

  it.scoped("does not happen after a 404 of an upstream without session ids", () =>
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
