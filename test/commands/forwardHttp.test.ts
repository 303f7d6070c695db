import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { startCli } from "../fixtures/Cli.js"
import { firstLine, forward, nowhere } from "../fixtures/commandLine.js"
import { makePlainServer } from "../fixtures/PlainServer.js"
import { startProxy } from "../fixtures/Proxy.js"
import { del, initialize, post, request, stream } from "../fixtures/RawClient.js"

const list = request(7, "tools/list")
const modern = { "mcp-protocol-version": "2026-07-28" }

describe.concurrent("forward http", () => {
  it.scopedLive(
    "prints one line with its actual address and the upstream, without the parts that may be secret",
    () =>
      Effect.gen(function* () {
        const { port } = yield* makePlainServer()
        const url = `http://127.0.0.1:${port}/mcp?key=secret#secret`
        const proxy = yield* startProxy({ url })
        expect(firstLine(proxy)).toMatch(
          new RegExp(
            `listening on http://127\\.0\\.0\\.1:${proxy.port}/mcp .*upstream http://127\\.0\\.0\\.1:${port}/mcp$`
          )
        )
        expect(proxy.port).toBeGreaterThan(0)
        expect((yield* initialize(proxy.url)).answer.status).toBe(200)
      })
  )

  it.scopedLive("listens on an IPv6 address and prints it in brackets", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const cli = yield* startCli([...forward, "--url", server.url, "--port", "0", "--host", "::1"])
      expect(cli.url).toBe(`http://[::1]:${cli.port}/mcp`)
      expect((yield* initialize(cli.url)).answer.status).toBe(200)
    })
  )

  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    it.scopedLive(`exits 0 on ${signal} without sessions`, () =>
      Effect.gen(function* () {
        const cli = yield* startCli([...forward, ...nowhere])
        yield* cli.signal(signal)
        expect(yield* cli.exit).toEqual({ code: 0, signal: null })
        firstLine(cli)
      })
    )

    it.scopedLive(`exits 0 on ${signal} after it answered the pending calls and ended the sessions`, () =>
      Effect.gen(function* () {
        const server = yield* makePlainServer({
          GET: ({ response }) => {
            response.writeHead(200, { "content-type": "text/event-stream" })
            response.flushHeaders()
          }
        })
        const proxy = yield* startProxy(server, ["--multi-session", "--shutdown-timeout", "100ms"])
        const { session } = yield* initialize(proxy.url)
        const listening = yield* stream(proxy.url, { headers: session })
        const calls = yield* Effect.forEach([session, modern], (headers, id) =>
          Effect.fork(post(proxy.url, request(id, "hang"), headers))
        )
        yield* server.until(() => server.held.length === 2)
        yield* proxy.signal(signal)
        for (const [id, call] of calls.entries()) {
          const { status, text } = yield* Fiber.join(call)
          expect({ status, body: JSON.parse(text) }).toMatchObject({
            status: 503,
            body: { id, error: { code: -32000 } }
          })
        }
        expect(yield* listening.end).toBe("ended")
        expect(yield* proxy.exit).toEqual({ code: 0, signal: null })
        expect(server.requests.at(-1)).toMatchObject({
          method: "DELETE",
          headers: { "mcp-session-id": "up-1" }
        })
        expect(proxy.stdout()).toEqual([])
        yield* server.until(() => server.connections() === 0)
      })
    )
  }

  it.scopedLive("exits immediately on a second signal", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const proxy = yield* startProxy(server, ["--multi-session", "--shutdown-timeout", "1h"])
      const { session } = yield* initialize(proxy.url)
      const call = yield* Effect.fork(Effect.either(post(proxy.url, request(1, "hang"), session)))
      yield* server.until(() => server.held.length === 1)
      yield* proxy.signal("SIGTERM")
      yield* proxy.untilHealth(({ status }) => status === "draining")
      expect(proxy.exited()).toBeUndefined()
      yield* proxy.signal("SIGTERM")
      yield* proxy.exit
      yield* Fiber.join(call)
    })
  )

  it.scopedLive("exits 0 when its session ends, without --multi-session", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const proxy = yield* startProxy(server, [])
      expect(firstLine(proxy)).toContain("one session")
      const { session } = yield* initialize(proxy.url)
      yield* post(proxy.url, list, session)
      const refused = yield* initialize(proxy.url)
      expect(refused.answer).toMatchObject({ status: 503, text: expect.stringContaining("--multi-session") })
      expect((yield* del(proxy.url, session)).status).toBe(200)
      expect(yield* proxy.exit).toEqual({ code: 0, signal: null })
    })
  )
})
