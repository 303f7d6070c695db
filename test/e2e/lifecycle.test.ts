import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { existsSync } from "node:fs"
import { officialClients } from "../fixtures/Clients.js"
import { eventOf, openStream } from "../fixtures/events.js"
import { makeLegacyServer } from "../fixtures/LegacyServer.js"
import { makePlainServer } from "../fixtures/PlainServer.js"
import { type Proxy, startProxy } from "../fixtures/Proxy.js"
import {
  type Answer,
  callTool,
  del,
  get,
  initialize,
  initialized,
  initializeRequest,
  messages,
  post,
  request,
  stream
} from "../fixtures/RawClient.js"
import { makeRawServer } from "../fixtures/RawServer.js"
import { ERROR, expectError } from "../fixtures/RpcError.js"

const modern = { "mcp-protocol-version": "2026-07-28" }

/** Waits for the exit of the proxy, and expects that its port is free. */
const expectGone = (proxy: Proxy) =>
  Effect.gen(function* () {
    yield* proxy.exit
    expect(existsSync(`/proc/${proxy.pid}`)).toBe(false)
    yield* Effect.scoped(makeRawServer(() => undefined, { port: proxy.port }))
  })

const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const before = performance.now()
    return Effect.map(effect, () => performance.now() - before)
  })

/** The error of a call that the shutdown ends or rejects. */
const shuttingDown = (id: string | number) => ({
  jsonrpc: "2.0",
  id,
  error: { code: -32000, message: expect.stringContaining("shutting down") }
})

const expectRejected = (answer: Answer, id: string | number) => {
  expect(answer.headers["retry-after"]).toMatch(/^\d+$/)
  expectError(answer, { status: 503, code: ERROR, id, message: /shutting down/ })
}

describe("single-session mode", () => {
  it.scopedLive("replaces a trial session with the session of the next client", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const proxy = yield* startProxy(server, [])
      const trial = yield* initialize(proxy.url)
      yield* post(proxy.url, initialized, trial.session)
      expect((yield* post(proxy.url, request(1, "ping"), trial.session)).status).toBe(200)
      const listening = yield* stream(proxy.url, { headers: trial.session })
      const [trialId] = server.sessions()

      const used = yield* initialize(proxy.url)
      expect(used.answer.status).toBe(200)
      expect(used.sessionId).not.toBe(trial.sessionId)
      expect(yield* listening.end).toBe("ended")
      expect((yield* post(proxy.url, request(2, "ping"), trial.session)).status).toBe(404)
      expect(server.sessions()).toHaveLength(1)
      expect(server.sessions()).not.toContain(trialId)
      expect(yield* proxy.health).toMatchObject({ status: "ok", sessions: 1 })
      expect((yield* post(proxy.url, request(3, "tools/list"), used.session)).status).toBe(200)
    })
  )

  it.scopedLive("keeps a session that is in use, and exits when it ends", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const proxy = yield* startProxy(server, [])
      const { session } = yield* initialize(proxy.url)
      yield* post(proxy.url, initialized, session)
      expect((yield* post(proxy.url, callTool(1, "echo", { text: "hi" }), session)).status).toBe(200)

      const second = yield* post(proxy.url, initializeRequest({ id: "second" }))
      expect(second).toMatchObject({
        status: 503,
        headers: { "retry-after": expect.stringMatching(/^\d+$/) }
      })
      expect(JSON.parse(second.text)).toMatchObject({
        id: "second",
        error: { code: -32000, message: expect.stringContaining("--multi-session") }
      })
      expect(server.counts.initialize).toBe(1)
      expect((yield* post(proxy.url, callTool(2, "echo", { text: "hi" }), session)).status).toBe(200)

      expect((yield* del(proxy.url, session)).status).toBe(200)
      expect(yield* proxy.exit).toEqual({ code: 0, signal: null })
      expect(server.sessions()).toEqual([])
      yield* expectGone(proxy)
    })
  )

  it.scopedLive("has one session in the proxy and in the upstream after many clients at once", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const proxy = yield* startProxy(server, [])
      const tries = yield* Effect.forEach(
        Array.from({ length: 20 }, (_, index) => index),
        () => initialize(proxy.url),
        { concurrency: "unbounded" }
      )
      for (const { answer } of tries) expect([200, 503]).toContain(answer.status)
      expect(yield* proxy.health).toMatchObject({ status: "ok", sessions: 1 })
      expect(server.sessions()).toHaveLength(1)
      const live = yield* Effect.filter(tries, ({ session }) =>
        Effect.map(post(proxy.url, request(1, "ping"), session), ({ status }) => status === 200)
      )
      expect(live).toHaveLength(1)
    })
  )
})

describe("an idle session", () => {
  const timeouts = ["--session-timeout", "1s", "--cleanup-interval", "250ms"]

  it.scopedLive("is ended in the proxy and in the upstream, with the credentials of its client", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const proxy = yield* startProxy(server, ["--multi-session", ...timeouts])
      const { session } = yield* initialize(proxy.url, {
        protocolVersion: "2025-06-18",
        headers: { authorization: "Bearer first" }
      })
      const [upstreamId] = server.sessions()
      yield* post(proxy.url, initialized, { ...session, authorization: "Bearer latest" })
      yield* post(proxy.url, request(1, "ping"), session)
      yield* server.until(() => server.counts.delete === 1)
      expect(server.requests.at(-1)).toMatchObject({
        method: "DELETE",
        body: "",
        headers: {
          "mcp-session-id": upstreamId,
          "mcp-protocol-version": "2025-06-18",
          authorization: "Bearer latest"
        }
      })
      yield* proxy.untilHealth(({ sessions }) => sessions === 0)
      expect(server.sessions()).toEqual([])
      expect((yield* post(proxy.url, request(2, "ping"), session)).status).toBe(404)
      expect((yield* get(proxy.url, session)).status).toBe(404)
    })
  )

  it.scopedLive("has no open stream and no call in flight", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const proxy = yield* startProxy(server, ["--multi-session", ...timeouts])
      const listening = yield* initialize(proxy.url)
      const standalone = yield* stream(proxy.url, { headers: listening.session })
      const calling = yield* initialize(proxy.url)
      const call = yield* Effect.fork(post(proxy.url, callTool(1, "wait", { until: "go" }), calling.session))
      yield* server.until(() => server.pending().length === 1)
      // Later sessions that time out show that more than the timeout has passed for the earlier ones.
      for (let round = 1; round <= 2; round++) {
        yield* initialize(proxy.url)
        yield* server.until(() => server.counts.delete === round)
      }
      expect(server.sessions()).toHaveLength(2)
      expect((yield* post(proxy.url, request(2, "ping"), listening.session)).status).toBe(200)
      yield* server.release("go")
      expect(messages(yield* Fiber.join(call))).toMatchObject([{ id: 1, result: {} }])
      yield* server.until(() => server.sessions().length === 1)
      expect(yield* proxy.health).toMatchObject({ sessions: 1 })
      expect((yield* post(proxy.url, request(3, "ping"), calling.session)).status).toBe(404)
      yield* standalone.drop
      yield* server.until(() => server.sessions().length === 0)
    })
  )

  it.scopedLive("ends the process in single-session mode", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const proxy = yield* startProxy(server, timeouts)
      const { session } = yield* initialize(proxy.url)
      yield* post(proxy.url, request(1, "tools/list"), session)
      expect(yield* proxy.exit).toEqual({ code: 0, signal: null })
      expect(server.sessions()).toEqual([])
    })
  )
})

describe("a shutdown", () => {
  const unlimitedDrain = ["--multi-session", "--shutdown-timeout", "1h"]

  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    it.scopedLive(
      `by ${signal} rejects new requests, completes those in flight, and leaves nothing behind`,
      () =>
        Effect.gen(function* () {
          const server = yield* makeLegacyServer()
          // With an unlimited drain, the exit shows that the proxy does not wait for standalone streams.
          const proxy = yield* startProxy(server, unlimitedDrain)
          // Both calls sample their client, which answers only after the signal.
          const asked = yield* Deferred.make<void>()
          const allowed = yield* Deferred.make<void>()
          let questions = 0
          const sample = (prompt: string) => {
            if (++questions === 2) Deferred.unsafeDone(asked, Effect.void)
            return Effect.runPromise(Effect.as(Deferred.await(allowed), `sampled ${prompt}`))
          }
          const sampling = yield* Effect.forEach(officialClients, ([line, connect]) =>
            Effect.flatMap(connect(proxy.url, { sample }), (client) =>
              Effect.fork(client.call("sample", { prompt: line }))
            )
          )
          const { session } = yield* initialize(proxy.url)
          yield* post(proxy.url, initialized, session)
          const standalone = yield* stream(proxy.url, { headers: session })
          const call = yield* Effect.fork(post(proxy.url, callTool("c", "wait", { until: "go" }), session))
          yield* server.until(() => server.pending().length === 1 && server.counts.getStreams === 3)
          yield* Deferred.await(asked)

          yield* proxy.signal(signal)
          yield* proxy.untilHealth(({ status }) => status === "draining")
          expect((yield* get(new URL("/health", proxy.url).href)).status).toBe(503)
          expectRejected(yield* post(proxy.url, initializeRequest({ id: "new" })), "new")
          expectRejected(yield* post(proxy.url, request("modern", "server/discover"), modern), "modern")
          expect(proxy.exited()).toBeUndefined()
          expect(server.counts.initialize).toBe(3)

          const finishing = Effect.gen(function* () {
            yield* server.release("go")
            expect(messages(yield* Fiber.join(call))).toMatchObject([
              { id: "c", result: { content: [{ text: "released go" }] } }
            ])
            yield* Deferred.succeed(allowed, undefined)
            expect(yield* Effect.forEach(sampling, Fiber.join)).toEqual(["sampled 1.x", "sampled 2.x"])
            expect(yield* proxy.exit).toEqual({ code: 0, signal: null })
          })
          yield* finishing
          expect(yield* standalone.end).toBe("ended")
          expect(server.sessions()).toEqual([])
          expect(server.counts.delete).toBe(3)
          yield* server.until(() => server.connections() === 0)
          yield* expectGone(proxy)
        })
    )
  }

  it.scopedLive("ends pending requests at its deadline with an error, not with a reset", () =>
    Effect.gen(function* () {
      const streaming = yield* makeLegacyServer()
      const json = yield* makeLegacyServer({ json: true })
      const plain = yield* makePlainServer({
        initialize: () => undefined,
        "test/stream": ({ response }) => {
          openStream(response)
          response.write(eventOf({ jsonrpc: "2.0", method: "notifications/x" }))
        }
      })
      const upstreams = [streaming, json, plain]
      const [one, two, three] = yield* Effect.all([
        startProxy(streaming, ["--multi-session", "--shutdown-timeout", "1s"]),
        startProxy(json, ["--multi-session", "--shutdown-timeout", "1s"]),
        startProxy(plain, ["--multi-session", "--shutdown-timeout", "1s"])
      ])
      const { session } = yield* initialize(one.url)
      const hang = { method: "POST", headers: session, body: callTool("h", "hang") }
      const call = yield* stream(one.url, hang)
      const standalone = yield* stream(one.url, { headers: session })
      const other = yield* initialize(two.url)
      const unanswered = yield* Effect.fork(post(two.url, callTool(7, "hang"), other.session))
      const opening = yield* Effect.fork(post(three.url, initializeRequest({ id: "i" })))
      const waiting = yield* Effect.fork(post(three.url, request("w", "hang"), modern))
      const listen = { method: "POST", headers: modern, body: request("s", "test/stream") }
      const listening = yield* stream(three.url, listen)
      yield* listening.event(0)
      yield* streaming.until(() => streaming.pending().length === 1 && streaming.counts.getStreams === 1)
      yield* json.until(() => json.pending().length === 1)
      yield* plain.until(() => plain.requests.length === 3)

      const proxies = [one, two, three]
      const took = yield* timed(
        Effect.gen(function* () {
          for (const proxy of proxies) yield* proxy.signal("SIGTERM")
          for (const proxy of proxies) expect(yield* proxy.exit).toEqual({ code: 0, signal: null })
        })
      )
      expect(took).toBeGreaterThan(950)
      // The default of --shutdown-timeout.
      expect(took).toBeLessThan(10_000)

      expect(yield* call.end).toBe("ended")
      expect(call.messages()).toEqual([shuttingDown("h")])
      expect(yield* standalone.end).toBe("ended")
      expect(standalone.messages()).toEqual([])
      expectRejected(yield* Fiber.join(unanswered), 7)
      expectRejected(yield* Fiber.join(opening), "i")
      expectRejected(yield* Fiber.join(waiting), "w")
      expect(yield* listening.end).toBe("ended")
      expect(listening.messages()).toMatchObject([{ method: "notifications/x" }, shuttingDown("s")])
      expect([...streaming.sessions(), ...json.sessions()]).toEqual([])
      for (const upstream of upstreams) yield* upstream.until(() => upstream.connections() === 0)
    })
  )

  it.scopedLive("does not wait for a server that does not confirm the end of its session", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({ DELETE: () => undefined })
      const proxy = yield* startProxy(server)
      yield* initialize(proxy.url)
      yield* proxy.signal("SIGTERM")
      yield* server.until(() => server.count("DELETE") === 1)
      expect(yield* proxy.exit).toEqual({ code: 0, signal: null })
    })
  )

  it.scopedLive("ends immediately at a second signal", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      for (const [first, second] of [
        ["SIGTERM", "SIGTERM"],
        ["SIGINT", "SIGINT"],
        ["SIGTERM", "SIGINT"]
      ] as const) {
        // With an unlimited drain, only the second signal can end the proxy while a call hangs.
        const proxy = yield* startProxy(server, unlimitedDrain)
        const { session } = yield* initialize(proxy.url)
        const body = callTool(1, "hang")
        const call = yield* stream(proxy.url, { method: "POST", headers: session, body })
        yield* proxy.signal(first)
        yield* proxy.untilHealth(({ status }) => status === "draining")
        yield* proxy.signal(second)
        yield* proxy.exit
        yield* call.end
        yield* expectGone(proxy)
      }
    })
  )
})
