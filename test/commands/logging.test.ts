import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { Cli } from "../fixtures/Cli.js"
import { makePlainServer, type PlainServer } from "../fixtures/PlainServer.js"
import { startProxy } from "../fixtures/Proxy.js"
import { del, get, initialize, initialized, post, request } from "../fixtures/RawClient.js"
import { connect, requestBytes } from "../fixtures/RawSocket.js"

const list = request(7, "tools/list")
const modern = { "mcp-protocol-version": "2026-07-28" }

describe.concurrent("the log", () => {
  const marks = [
    "option-header",
    "url-query",
    "authorization",
    "cookie",
    "payload",
    "result",
    "upstream-id",
    "upstream-error",
    "html",
    "not-json",
    "unknown-id",
    "path",
    "query",
    "origin",
    "garbage"
  ]
  const mark = (name: string) => `${name}-mark-4f1d`

  /** Sends requests that the proxy relays, rejects or fails at. Each contains a mark that the log must not contain. */
  const traffic = (proxy: Cli, server: PlainServer) =>
    Effect.gen(function* () {
      const secret = { authorization: `Bearer ${mark("authorization")}`, cookie: mark("cookie") }
      const marked = (id: number, method: string) => request(id, method, { text: mark("payload") })
      const { session, sessionId } = yield* initialize(proxy.url, { headers: secret })
      const inSession = { ...session, ...secret }
      yield* post(proxy.url, initialized, inSession)
      yield* post(proxy.url, marked(1, "tools/list"), inSession)
      yield* post(proxy.url, marked(2, "fail"), inSession)
      yield* post(proxy.url, marked(3, "crash"), inSession)
      yield* post(proxy.url, marked(4, "tools/list"), { ...modern, ...secret })
      yield* get(proxy.url, inSession)
      yield* initialize(proxy.url, { id: "html", headers: secret, clientInfo: { name: mark("payload") } })
      yield* initialize(proxy.url, { id: "refuse", headers: secret })
      yield* initialize(proxy.url, { id: "crash", headers: secret })
      yield* initialize(proxy.url, { id: "redirect", headers: secret })
      yield* post(proxy.url, mark("not-json"), inSession)
      yield* post(proxy.url, `{"jsonrpc":"${mark("payload")}"}`, inSession)
      yield* post(proxy.url, list, { "mcp-session-id": mark("unknown-id") })
      yield* post(`${proxy.url}/${mark("path")}?${mark("query")}`, list, secret)
      yield* post(proxy.url, list, { origin: `http://${mark("origin")}` })
      const socket = yield* connect(proxy.port)
      yield* socket.write(`${mark("garbage")}\0\r\n\r\n`)
      yield* socket.closed()
      const large = yield* connect(proxy.port)
      yield* large.write(
        requestBytes("POST", { ...inSession, "content-length": "999999999" }) + mark("payload")
      )
      yield* large.answer(0)
      yield* large.destroy
      const disconnecting = yield* connect(proxy.port)
      yield* disconnecting.write(requestBytes("POST", inSession, marked(5, "hang")))
      yield* server.until(() => server.held.length === 1)
      yield* disconnecting.destroy
      const other = yield* initialize(proxy.url, { headers: secret })
      yield* del(proxy.url, { ...other.session, ...secret })
      return [sessionId ?? "none", other.sessionId ?? "none"]
    })

  for (const format of ["pretty", "json"]) {
    it.scopedLive(`contains no payload, token or session id in the format ${format} at the level trace`, () =>
      Effect.gen(function* () {
        let sessions = 0
        const server = yield* makePlainServer({
          initialize: ({ answer, id, request, result }) => {
            if (id === "html") return answer(200, { "content-type": "text/html" }, mark("html"))
            if (id === "refuse")
              return answer(401, { "www-authenticate": mark("upstream-error") }, mark("upstream-error"))
            if (id === "redirect")
              return answer(307, { location: `http://127.0.0.1:1/mcp?${mark("upstream-error")}` })
            if (id === "crash") return request.socket.destroy()
            const upstreamId = `${mark("upstream-id")}-${++sessions}`
            result(
              { protocolVersion: "2025-11-25", instructions: mark("result") },
              { "mcp-session-id": upstreamId }
            )
          },
          "tools/list": ({ result }) => result({ text: mark("result") }),
          fail: ({ answer }) => answer(500, {}, mark("upstream-error")),
          crash: ({ request }) => request.socket.destroy()
        })
        const proxy = yield* startProxy({ url: `${server.url}?key=${mark("url-query")}` }, [
          "--multi-session",
          "--header",
          `X-Secret: ${mark("option-header")}`,
          "--log-level",
          "trace",
          "--log-format",
          format,
          "--shutdown-timeout",
          "0"
        ])
        const ids = yield* traffic(proxy, server)
        yield* proxy.signal("SIGTERM")
        expect(yield* proxy.exit).toEqual({ code: 0, signal: null })
        const output = [...proxy.stdout(), ...proxy.stderr()].join("\n")
        expect([...marks.map(mark), ...ids].filter((secret) => output.includes(secret))).toEqual([])
        // The marks were sent: the upstream received them.
        const sent = JSON.stringify(server.requests.map(({ body, headers, path }) => [path, headers, body]))
        for (const name of [
          "option-header",
          "url-query",
          "authorization",
          "cookie",
          "payload",
          "upstream-id"
        ]) {
          expect(sent).toContain(mark(name))
        }
        // The proxy did log.
        expect(output).toContain("session: closed")
        expect(output).toContain("session: could not be opened")
      })
    )
  }

  it.scopedLive("consists of one JSON object per line on stderr with --log-format json", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const proxy = yield* startProxy(server, [
        "--multi-session",
        "--log-format",
        "json",
        "--log-level",
        "trace"
      ])
      yield* Effect.ignore(traffic(proxy, server))
      // Many requests on one connection must not make Node print a warning of its own.
      const socket = yield* connect(proxy.port)
      yield* socket.write(requestBytes("GET", {}, undefined, "/health").repeat(50))
      yield* socket.answer(49)
      yield* proxy.signal("SIGTERM")
      expect(yield* proxy.exit).toEqual({ code: 0, signal: null })
      expect(proxy.stdout()).toEqual([])
      expect(proxy.stderr().length).toBeGreaterThan(1)
      for (const line of proxy.stderr()) {
        const entry: unknown = JSON.parse(line)
        expect(entry).toMatchObject({ logLevel: expect.any(String), message: expect.anything() })
      }
    })
  )
})
