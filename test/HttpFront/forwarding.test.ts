import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { gunzipSync, gzipSync } from "node:zlib"
import { startFront } from "../fixtures/Front.js"
import { initializeResult, makePlainServer } from "../fixtures/PlainServer.js"
import { connect, requestBytes } from "../fixtures/RawSocket.js"
import { ERROR, expectError } from "../fixtures/RpcError.js"
import { del, get, initialize, post, request, stream } from "../fixtures/RawClient.js"

const list = request(7, "tools/list")
const modern = { "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list" }

describe("forwards to the upstream", () => {
  it.scopedLive("every header except hop-by-hop ones, Host and Origin", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server)
      const { session, sessionId } = yield* initialize(front.url)
      const crossing = {
        accept: "application/json, text/event-stream;q=0.5",
        "accept-language": "de",
        authorization: "Bearer abc",
        "content-type": "application/json; charset=utf-8",
        cookie: "a=b; c=d",
        "last-event-id": "9",
        "mcp-method": "tools/list",
        "mcp-name": "=?base64?YQ==?=",
        "mcp-param-region": "eu",
        "mcp-protocol-version": "2025-11-25",
        traceparent: "00-1-2-03",
        "user-agent": "raw/1",
        "x-empty": "",
        "x-latin": "caf\u00e9",
        constructor: "c",
        "x-own": "one, two"
      }
      const answer = yield* post(front.url, list, {
        ...session,
        ...crossing,
        "accept-encoding": "gzip, deflate",
        connection: "close, X-Hop, x-hop-two",
        "keep-alive": "timeout=5",
        origin: "http://localhost:1",
        "proxy-authorization": "Basic abc",
        "proxy-connection": "keep-alive",
        te: "trailers",
        trailer: "x-trailer",
        "x-hop": "1",
        "x-hop-two": "2"
      })
      expect(answer.status).toBe(200)
      const received = yield* server.request(1)
      const { connection: _, "content-length": length, ...headers } = received.headers
      expect(headers).toEqual({
        ...crossing,
        "accept-encoding": "identity",
        host: `127.0.0.1:${server.port}`,
        "mcp-session-id": "up-1"
      })
      expect(length).toBe(String(JSON.stringify(list).length))
      expect(JSON.stringify(received.rawHeaders)).not.toContain(sessionId)
    })
  )

  it.scopedLive("the body byte for byte", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      const body = ` {"method":"tools/list",\t"jsonrpc":"2.0" , "id":1e0,"x":"\\u0041\u00e9\u4e16","n":12345678901234567890}\n`
      yield* post(front.url, body, { ...session, "transfer-encoding": "chunked" })
      yield* post(front.url, Buffer.from(body), session)
      for (const n of [1, 2]) {
        const received = yield* server.request(n)
        expect(received.body).toBe(body)
        expect(received.headers).not.toHaveProperty("transfer-encoding")
      }
    })
  )

  it.scopedLive("the headers of --header on every request, in place of the client's", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const added = { authorization: "Bearer configured", "x-added": "yes", "user-agent": "shadowcat" }
      const front = yield* startFront(server, { upstream: { headers: added } })
      const own = { authorization: "Bearer client", "x-added": "no", "X-Other": "kept" }
      const { session } = yield* initialize(front.url, { headers: own })
      yield* post(front.url, list, { ...session, ...own })
      yield* get(front.url, { ...session, ...own })
      yield* post(front.url, list, { ...modern, ...own })
      yield* del(front.url, session)
      yield* server.request(4)
      expect(server.requests).toHaveLength(5)
      for (const { headers } of server.requests) expect(headers).toMatchObject(added)
      expect(server.requests[1]?.headers["x-other"]).toBe("kept")
    })
  )

  it.scopedLive("to the path and query of --url, not the client's query", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront({ url: `http://127.0.0.1:${server.port}/a%20b?key=k&x=%2F` })
      const { session } = yield* initialize(`${front.url}?session=none`)
      yield* get(front.url, session)
      yield* del(front.url, session)
      yield* server.request(2)
      expect(server.requests.map(({ path }) => path)).toEqual(Array(3).fill("/a%20b?key=k&x=%2F"))
    })
  )

  it.scopedLive("the upstream's session id, a different one for each session", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server)
      const one = yield* initialize(front.url)
      const two = yield* initialize(front.url)
      expect(one.sessionId).toMatch(/^[\w-]{22}$/)
      expect(two.sessionId).toMatch(/^[\w-]{22}$/)
      expect(two.sessionId).not.toBe(one.sessionId)
      yield* post(front.url, list, two.session)
      yield* post(front.url, list, one.session)
      expect(server.requests.map(({ headers }) => headers["mcp-session-id"])).toEqual([
        undefined,
        undefined,
        "up-2",
        "up-1"
      ])
    })
  )

  it.scopedLive("no session id if the upstream issued none", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({ initialize: ({ result }) => result(initializeResult) })
      const front = yield* startFront(server)
      const { session, sessionId } = yield* initialize(front.url)
      expect(sessionId).toBeDefined()
      expect((yield* post(front.url, list, session)).headers["mcp-session-id"]).toBe(sessionId)
      expect((yield* del(front.url, session)).status).toBe(200)
      // The upstream has no session to end.
      expect(server.requests.map(({ method }) => method)).toEqual(["POST", "POST"])
      for (const { headers } of server.requests) expect(headers).not.toHaveProperty("mcp-session-id")
    })
  )

  it.scopedLive("no session id in modern requests and responses", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({
        "tools/list": ({ result }) => result({}, { "mcp-session-id": "minted" })
      })
      const front = yield* startFront(server)
      const answer = yield* post(front.url, list, { ...modern, "mcp-session-id": "stray" })
      expect(answer.status).toBe(200)
      expect(answer.headers).not.toHaveProperty("mcp-session-id")
      expect((yield* server.request(0)).headers).not.toHaveProperty("mcp-session-id")
    })
  )
})

describe("forwards to the client", () => {
  const crossing = {
    "cache-control": "no-store",
    "content-type": "application/json; charset=utf-8",
    etag: `"e"`,
    "mcp-protocol-version": "2025-11-25",
    "set-cookie": ["a=b", "c=d; Path=/"],
    server: "plain",
    "www-authenticate": "Bearer",
    constructor: "c",
    "x-own": "one, two"
  }
  const held = {
    connection: "close, X-Hop",
    "keep-alive": "timeout=9",
    "proxy-authenticate": "Basic",
    trailer: "x-trailer",
    upgrade: "h2c",
    "x-hop": "1",
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "x-own",
    "access-control-max-age": "5",
    "mcp-session-id": "up-other"
  }

  it.scopedLive("every header except hop-by-hop ones, CORS and the upstream's session id", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({
        "tools/list": ({ answer }) => answer(200, { ...crossing, ...held }, "{}")
      })
      const front = yield* startFront(server)
      const { session, sessionId } = yield* initialize(front.url)
      const { headers, text } = yield* post(front.url, list, session)
      const {
        connection,
        date: _,
        "content-length": _length,
        "transfer-encoding": _coding,
        ...rest
      } = headers
      expect(rest).toEqual({ ...crossing, "mcp-session-id": sessionId })
      expect(connection).toBe("close")
      expect(text).toBe("{}")
    })
  )

  it.scopedLive("the body byte for byte, of every type", () =>
    Effect.gen(function* () {
      const bytes = Buffer.from([0, 255, 13, 10, 128, ...Buffer.from(`{"a" : 1}\n\n`)])
      const server = yield* makePlainServer({
        "tools/list": ({ answer, params }) => answer(200, { "content-type": String(params["type"]) }, bytes)
      })
      // With --max-events 0 the proxy does not change the events of a stream.
      for (const [type, options] of [
        ["application/json", {}],
        ["application/octet-stream", {}],
        ["text/event-stream", { events: { maxEvents: 0 } }]
      ] as const) {
        const front = yield* startFront(server, options)
        const { session } = yield* initialize(front.url)
        const answer = yield* post(front.url, request(7, "tools/list", { type }), session)
        // An error follows the incomplete event, because the request has no response.
        expect(Buffer.from(answer.text.slice(0, bytes.toString().length))).toEqual(
          Buffer.from(bytes.toString())
        )
      }
    })
  )

  it.scopedLive("one response, without informational ones", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({
        "tools/list": ({ response, result }) => {
          // Not 100 Continue: undici treats an unrequested one as an error.
          response.writeProcessing()
          response.writeEarlyHints({ link: "</a>; rel=preload" })
          result()
        }
      })
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      const socket = yield* connect(front.port)
      yield* socket.write(requestBytes("POST", { ...session, connection: "close" }, list))
      yield* socket.closed()
      expect(socket.answers()).toMatchObject([{ status: 200 }])
      expect(socket.text()).not.toContain("preload")
    })
  )

  it.scopedLive("a body that the upstream compressed although identity was requested", () =>
    Effect.gen(function* () {
      const text = JSON.stringify({ jsonrpc: "2.0", id: 7, result: {} })
      const server = yield* makePlainServer({
        "tools/list": ({ answer, params }) =>
          answer(
            200,
            { "content-type": String(params["type"]), "content-encoding": "gzip" },
            gzipSync(params["type"] === "application/json" ? text : `data: ${text}\n\n`)
          )
      })
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      for (const type of ["application/json", "text/event-stream"]) {
        const socket = yield* connect(front.port)
        const body = request(7, "tools/list", { type })
        yield* socket.write(requestBytes("POST", { ...session, connection: "close" }, body))
        const answer = yield* socket.answer(0)
        expect(answer.headers["content-encoding"]).toBe("gzip")
        expect(gunzipSync(Buffer.from(answer.text, "latin1")).toString()).toContain(text)
      }
    })
  )

  it.scopedLive("streams with headers that forbid caching, changing and buffering", () =>
    Effect.gen(function* () {
      const event = (id: unknown, result: object) =>
        `event: message\ndata: ${JSON.stringify({ jsonrpc: "2.0", id, result })}\n\n`
      const type = {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "public, max-age=9"
      }
      const server = yield* makePlainServer({
        initialize: ({ answer, id }) =>
          answer(200, { ...type, "mcp-session-id": "up" }, event(id, initializeResult)),
        "tools/list": ({ answer, id }) => answer(200, { ...type, "x-accel-buffering": "yes" }, event(id, {})),
        GET: ({ response }) => {
          response.writeHead(200, type)
          response.flushHeaders()
        },
        ping: ({ result }) => result()
      })
      const front = yield* startFront(server)
      const opened = yield* initialize(front.url)
      expect(opened.message).toMatchObject({ result: initializeResult })
      const streams = [
        opened.answer,
        yield* post(front.url, list, opened.session),
        yield* stream(front.url, { headers: opened.session }),
        yield* post(front.url, list, modern)
      ]
      for (const { headers, text } of streams) {
        expect(headers).toMatchObject({
          "content-type": "text/event-stream; charset=utf-8",
          "cache-control": "no-cache, no-transform",
          "x-accel-buffering": "no"
        })
        // A stream that ends at once has the length of what the proxy sends.
        expect([undefined, String(text.length)]).toContain(headers["content-length"])
      }
      const { headers } = yield* post(front.url, request(8, "ping"), opened.session)
      expect(headers).not.toHaveProperty("x-accel-buffering")
      expect(headers).not.toHaveProperty("cache-control")
    })
  )

  it.scopedLive("the head of a stream before any event", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({
        GET: ({ response }) => {
          response.writeHead(200, { "content-type": "text/event-stream" })
          response.flushHeaders()
        }
      })
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      const listening = yield* stream(front.url, { headers: session })
      expect(listening).toMatchObject({ status: 200, events: [] })
    })
  )

  it.scopedLive("no header that would corrupt the response", () =>
    Effect.gen(function* () {
      const fields = [
        "x-name: \u4e16\u754c",
        "__proto__: x",
        "constructor: x",
        "x: caf\u00e9",
        "x;y: 1",
        ": 1"
      ]
      const server = yield* makePlainServer({
        odd: ({ params, request }) => {
          const lines = `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2`
          request.socket.write(`${lines}\r\n${fields[Number(params["n"])]}\r\n\r\n{}`)
        }
      })
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      for (const n of fields.keys()) {
        const answer = yield* post(front.url, request(n, "odd", { n }), session)
        if (answer.status === 200) expect(answer.text).toBe("{}")
        else expectError(answer, { status: 502, code: ERROR, id: n })
      }
      expect((yield* post(front.url, list, session)).status).toBe(200)
    })
  )
})
