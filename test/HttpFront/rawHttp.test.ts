import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { startFront } from "../fixtures/Front.js"
import { initializeResult, makePlainServer } from "../fixtures/PlainServer.js"
import { connect, requestBytes } from "../fixtures/RawSocket.js"
import { expectError, INVALID } from "../fixtures/RpcError.js"
import {
  type Headers,
  initialize,
  initializeRequest,
  messages,
  post,
  request,
  send
} from "../fixtures/RawClient.js"

const list = request(7, "tools/list")
const modern = { "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list" }

describe("HTTP edge cases", () => {
  const good = requestBytes("POST", {}, initializeRequest())
  const odd: ReadonlyArray<{
    readonly name: string
    readonly bytes: string | Uint8Array
    /** The statuses of the responses before the connection is closed. */
    readonly statuses: ReadonlyArray<number>
  }> = [
    {
      name: "two Content-Length fields that differ",
      bytes: requestBytes("POST", { "Content-Length": "1", "content-length": "2" }, undefined),
      statuses: [400]
    },
    {
      name: "Content-Length and Transfer-Encoding together",
      bytes: requestBytes("POST", { "transfer-encoding": "chunked" }, "5\r\nhello\r\n0\r\n\r\n"),
      statuses: [400]
    },
    {
      name: "an unknown Transfer-Encoding",
      bytes: requestBytes("POST", { "transfer-encoding": "chunked, gzip" }),
      statuses: [400]
    },
    {
      name: "a Content-Length that is not a number",
      bytes: requestBytes("POST", { "content-length": "0x10" }),
      statuses: [400]
    },
    {
      name: "a negative Content-Length",
      bytes: requestBytes("POST", { "content-length": "-1" }),
      statuses: [400]
    },
    {
      name: "a Content-Length of twenty digits",
      bytes: requestBytes("POST", { "content-length": "9".repeat(20) }),
      statuses: [400]
    },
    {
      name: "a chunk size that is not a number",
      bytes: `${requestBytes("POST", { "transfer-encoding": "chunked" })}zz\r\n`,
      statuses: [400]
    },
    {
      name: "a flood of header fields",
      bytes: requestBytes(
        "POST",
        Object.fromEntries(Array.from({ length: 3000 }, (_, n) => [`x-${n}`, "y"]))
      ),
      statuses: [431]
    },
    {
      name: "a header field of a mebibyte",
      bytes: requestBytes("POST", { "x-a": "y".repeat(2 ** 20) }),
      statuses: [431]
    },
    {
      name: "a very long URL",
      bytes: requestBytes("POST", {}, "{}", `/${"a".repeat(2 ** 20)}`),
      statuses: [431]
    },
    { name: "no Host", bytes: requestBytes("GET", { host: undefined }), statuses: [400] },
    { name: "an empty Host", bytes: requestBytes("GET", { host: "", connection: "close" }), statuses: [403] },
    { name: "HTTP/1.0 without Host", bytes: "GET /health HTTP/1.0\r\n\r\n", statuses: [403] },
    {
      name: "garbage",
      bytes: Buffer.from(Array.from({ length: 5000 }, (_, n) => (n * 7919) % 256)),
      statuses: [400]
    },
    { name: "NUL bytes", bytes: Buffer.alloc(5000), statuses: [400] },
    { name: "a NUL byte in the URL", bytes: requestBytes("GET", {}, undefined, "/mcp\0"), statuses: [400] },
    { name: "a NUL byte in a header field", bytes: requestBytes("GET", { "x-a": "a\0b" }), statuses: [400] },
    { name: "a space in a header name", bytes: requestBytes("GET", { "x a": "1" }), statuses: [400] },
    { name: "bare line feeds", bytes: "GET /mcp HTTP/1.1\nHost: 127.0.0.1\n\n", statuses: [400] },
    { name: "the preface of HTTP/2", bytes: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", statuses: [400] },
    { name: "a TLS hello", bytes: Buffer.from("160301020001000001fc0303", "hex"), statuses: [400] },
    { name: "CONNECT", bytes: "CONNECT a:1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", statuses: [] },
    { name: "garbage behind a good request", bytes: `${good}\0garbage\r\n\r\n`, statuses: [400] },
    {
      name: "an unknown expectation",
      bytes: requestBytes("POST", { expect: "tea", connection: "close" }, list),
      statuses: [417]
    },
    {
      name: "OPTIONS *",
      bytes: requestBytes("OPTIONS", { connection: "close" }, undefined, "*"),
      statuses: [404]
    },
    {
      name: "an upgrade, which is ignored",
      bytes: requestBytes(
        "POST",
        { connection: "upgrade, close", upgrade: "websocket" },
        initializeRequest()
      ),
      statuses: [200]
    },
    {
      name: "a header named __proto__",
      bytes: requestBytes("POST", { connection: "close", ["__proto__"]: "x" }, initializeRequest()),
      statuses: [200]
    },
    {
      name: "a query",
      bytes: requestBytes("POST", { connection: "close" }, initializeRequest(), "/mcp?a=/b#c"),
      statuses: [200]
    },
    {
      name: "an absolute target",
      bytes: requestBytes("POST", { connection: "close" }, initializeRequest(), "http://127.0.0.1:1/mcp?a"),
      statuses: [200]
    },
    {
      name: "extensions of chunks, and trailers",
      bytes: `${requestBytes("POST", { "transfer-encoding": "chunked", connection: "close" })}2;a=b\r\n{}\r\n0\r\nx-a: 1\r\n\r\n`,
      statuses: [400]
    },
    {
      name: "an empty request line before a request",
      bytes: `\r\n\r\n${requestBytes("POST", { connection: "close" }, initializeRequest())}`,
      statuses: [200]
    }
  ]

  for (const { bytes, name, statuses } of odd) {
    it.scopedLive(`does not affect other requests: ${name}`, () =>
      Effect.gen(function* () {
        const server = yield* makePlainServer()
        const front = yield* startFront(server)
        const { session } = yield* initialize(front.url)
        const socket = yield* connect(front.port)
        yield* socket.write(bytes)
        yield* socket.closed()
        expect(socket.answers().map(({ status }) => status)).toEqual(statuses)
        expect((yield* post(front.url, list, session)).status).toBe(200)
        expect(yield* front.health).toMatchObject({ bufferedBytes: 0, connections: 1 })
      })
    )
  }

  it.scopedLive("HEAD gets a 405 or the head of the health check, without a body", () =>
    Effect.gen(function* () {
      const front = yield* startFront(yield* makePlainServer())
      for (const [target, status] of [
        ["/mcp", 405],
        ["/health", 200]
      ] as const) {
        const socket = yield* connect(front.port)
        yield* socket.write(requestBytes("HEAD", { connection: "close" }, undefined, target))
        expect(yield* socket.closed()).toBe("closed")
        expect(socket.text()).toMatch(new RegExp(`^HTTP/1.1 ${status} [^{]*\\r\\n\\r\\n$`))
      }
    })
  )

  it.scopedLive("a connection stays usable after a rejected request", () =>
    Effect.gen(function* () {
      const front = yield* startFront(yield* makePlainServer())
      const { session } = yield* initialize(front.url)
      const rejected = [
        [415, requestBytes("POST", { "content-type": "text/plain" }, list)],
        [406, requestBytes("POST", { accept: "text/html" }, list)],
        [403, requestBytes("POST", { origin: "null" }, list)],
        [404, requestBytes("POST", session, list, "/other")],
        [405, requestBytes("PUT", session, list)],
        [400, requestBytes("POST", session, "{")],
        [404, requestBytes("DELETE", { "mcp-session-id": "x" }, list)],
        [204, requestBytes("OPTIONS", session, list)]
      ] as const
      const socket = yield* connect(front.port)
      for (const [n, [status, bytes]] of rejected.entries()) {
        yield* socket.write(bytes)
        expect((yield* socket.answer(2 * n)).status).toBe(status)
        yield* socket.write(requestBytes("POST", session, list))
        expect((yield* socket.answer(2 * n + 1)).status).toBe(200)
      }
    })
  )

  it.scopedLive("pipelined requests are answered in order", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      const socket = yield* connect(front.port)
      const last = requestBytes("POST", { ...session, connection: "close" }, request(4, "tools/list"))
      yield* socket.write(
        [
          requestBytes("POST", session, request(1, "hang")),
          requestBytes("POST", session, request(2, "tools/list")),
          requestBytes("POST", session, "{"),
          last
        ].join("")
      )
      yield* server.until(() => server.count("tools/list") === 2)
      expect(socket.text()).toBe("")
      server.held[0]?.result()
      yield* socket.closed()
      expect(socket.answers().map(({ status, text }) => [status, messages({ headers: {}, text })])).toEqual([
        [200, [{ jsonrpc: "2.0", id: 1, result: {} }]],
        [200, [{ jsonrpc: "2.0", id: 2, result: {} }]],
        [400, [expect.objectContaining({ id: null })]],
        [200, [{ jsonrpc: "2.0", id: 4, result: {} }]]
      ])
    })
  )

  it.scopedLive("many pipelined requests do not make Node emit a warning", () =>
    Effect.gen(function* () {
      const warnings: Array<Error> = []
      const warn = (warning: Error) => void warnings.push(warning)
      yield* Effect.acquireRelease(
        Effect.sync(() => process.on("warning", warn)),
        () => Effect.sync(() => process.off("warning", warn))
      )
      const server = yield* makePlainServer({
        initialize: ({ result }) => result({ ...initializeResult, instructions: "x".repeat(3 * 2 ** 20) })
      })
      const front = yield* startFront(server)
      const { answer, session } = yield* initialize(front.url)
      expect(answer.text.length).toBeGreaterThan(3 * 2 ** 20)
      const socket = yield* connect(front.port)
      const calls = Array.from({ length: 30 }, (_, id) => requestBytes("POST", session, request(id, "hang")))
      yield* socket.write(calls.join(""))
      yield* server.until(() => server.held.length === calls.length)
      for (const { result } of server.held) result()
      yield* socket.answer(calls.length - 1)
      expect(warnings.map(String)).toEqual([])
    })
  )

  it.scopedLive("pipelined requests release everything when their connection is lost", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, {
        sessions: { maxExchanges: 4 },
        front: { shutdownTimeout: "20 seconds" }
      })
      const { session } = yield* initialize(front.url)
      const socket = yield* connect(front.port)
      for (const headers of [session, modern]) {
        yield* socket.write(requestBytes("POST", headers, request(1, "hang")))
        yield* socket.write(requestBytes("POST", headers, request(2, "hang")))
      }
      yield* server.until(() => server.held.length === 4)
      expect((yield* front.health).bufferedBytes).toBeGreaterThan(0)
      yield* socket.destroy
      yield* front.untilHealth((health) => health.connections === 1 && health.stateless === 0)
      // The proxy reads the session's calls to their end before it releases their places.
      for (const { result } of server.held) result()
      yield* front.untilHealth((health) => health.bufferedBytes === 0)
      const calls = [3, 4, 5, 6].map((id) => post(front.url, request(id, "hang"), session))
      const all = yield* Effect.fork(Effect.all(calls, { concurrency: "unbounded" }))
      yield* server.until(() => server.held.length === 8)
      for (const { result } of server.held.slice(4)) result()
      expect((yield* Fiber.join(all)).map(({ status }) => status)).toEqual([200, 200, 200, 200])
    })
  )

  it.scopedLive("Expect: 100-continue gets 100 and then the response", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server)
      const socket = yield* connect(front.port)
      const body = JSON.stringify(initializeRequest())
      const head = { expect: "100-continue", "content-length": String(body.length), connection: "close" }
      yield* socket.write(requestBytes("POST", head))
      expect((yield* socket.answer(0)).status).toBe(100)
      expect(server.requests).toHaveLength(0)
      yield* socket.write(body)
      expect((yield* socket.answer(1)).status).toBe(200)
      expect((yield* server.request(0)).headers).not.toHaveProperty("expect")
    })
  )

  it.scopedLive("a half-closed connection counts as a disconnect", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server)
      const socket = yield* connect(front.port)
      yield* socket.write(requestBytes("POST", modern, request(1, "hang")))
      yield* server.until(() => server.held.length === 1)
      yield* socket.end
      yield* server.closed(0)
      yield* socket.closed()
      expect(yield* front.health).toMatchObject({ stateless: 0, bufferedBytes: 0, connections: 1 })
    })
  )

  it.scopedLive("a key named __proto__ is forwarded and has no effect", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      const body =
        `{"jsonrpc":"2.0","id":7,"method":"tools/list","__proto__":{"polluted":1},` +
        `"params":{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}}`
      expect((yield* post(front.url, body, session)).status).toBe(200)
      expect((yield* server.request(1)).body).toBe(body)
      expect(Object.keys(Object.prototype)).toEqual([])
      expect({}).not.toHaveProperty("polluted")
      // An inherited member does not make a message either.
      const inherited = `{"__proto__":{"jsonrpc":"2.0","id":7,"method":"tools/list"}}`
      expectError(yield* post(front.url, inherited, session), { status: 400, code: INVALID })
    })
  )

  const endless = (headers: Headers): string => requestBytes("POST", headers, undefined)

  for (const [name, headers, piece] of [
    ["a Content-Length", { "content-length": String(16 * 2 ** 20) }, "x".repeat(2 ** 20)],
    ["chunks", { "transfer-encoding": "chunked" }, `100000\r\n${"x".repeat(2 ** 20)}\r\n`]
  ] as const) {
    it.scopedLive(`a client that keeps sending with ${name} can read the 413`, () =>
      Effect.gen(function* () {
        const server = yield* makePlainServer()
        const front = yield* startFront(server, { front: { maxBody: 2 ** 20 } })
        const socket = yield* connect(front.port)
        yield* socket.write(endless(headers))
        for (let n = 0; n < 8; n++) yield* socket.write(piece)
        expectError(yield* socket.answer(0), { status: 413, code: INVALID, message: /--max-body/ })
        expect(socket.isClosed()).toBe(false)
        for (let n = 8; n < 16; n++) yield* socket.write(piece)
        if ("transfer-encoding" in headers) yield* socket.write("0\r\n\r\n")
        // The proxy read everything and kept nothing.
        expect(yield* socket.closed()).toBe("closed")
        expect(socket.answers()).toHaveLength(1)
        expect(server.requests).toHaveLength(0)
        expect(yield* front.health).toMatchObject({ bufferedBytes: 0 })
      })
    )
  }

  it.scopedLive("a client that sends a large body can read every error response", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server)
      const body = "x".repeat(3 * 2 ** 20)
      for (const [status, headers] of [
        [415, { "content-type": "text/plain" }],
        [406, { accept: "text/html" }],
        [403, { origin: "null" }],
        [400, {}]
      ] as const) {
        expect((yield* post(front.url, body, headers)).status).toBe(status)
      }
      // Node's client sets the length by itself for PUT only.
      const headers = { "content-length": String(body.length) }
      for (const [status, method] of [
        [405, "PUT"],
        [400, "DELETE"],
        [400, "GET"],
        [204, "OPTIONS"]
      ] as const) {
        expect({ method, status: (yield* send(front.url, { method, body, headers })).status }).toEqual({
          method,
          status
        })
      }
    })
  )
})
