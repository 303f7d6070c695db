import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { gunzipSync, gzipSync } from "node:zlib"
import { makeBlackholeServer, makeUnreadServer } from "./fixtures/BlackholeServer.js"
import { freePort } from "./fixtures/freePort.js"
import { type FrontOptions, startFront } from "./fixtures/Front.js"
import { type Call, initializeResult, makePlainServer } from "./fixtures/PlainServer.js"
import { connect, requestBytes } from "./fixtures/RawSocket.js"
import { ERROR, expectError, INVALID, NO_SESSION, NOT_JSON, type Told } from "./fixtures/RpcError.js"
import {
  type Body,
  del,
  get,
  type Headers,
  initialize,
  initialized,
  initializeRequest,
  messages,
  post,
  request,
  send,
  stream
} from "./fixtures/RawClient.js"

const decodeCancelled = Schema.decodeUnknownSync(
  Schema.parseJson(Schema.Struct({ params: Schema.Struct({ requestId: Schema.Unknown }) }))
)

const json = { "content-type": "application/json" }
const list = request(7, "tools/list")
const modern = { "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list" }

interface Refusal extends Told {
  readonly name: string
  readonly options?: FrontOptions
  readonly method?: string
  readonly path?: string
  readonly headers?: Headers
  readonly body?: Body
  /** Whether the request belongs to a session that is open. */
  readonly inSession?: boolean
  /** What the answer's head says besides. */
  readonly head?: Readonly<Record<string, string>>
}

const refusals: ReadonlyArray<Refusal> = [
  // The body.
  {
    name: "a body over --max-body",
    options: { maxBody: 1000 },
    body: "x".repeat(1001),
    status: 413,
    code: INVALID
  },
  {
    name: "a body over --max-body of which the length is not told",
    options: { maxBody: 1000 },
    headers: { "transfer-encoding": "chunked" },
    body: "x".repeat(1001),
    status: 413,
    code: INVALID
  },
  { name: "a body that is not JSON", body: "{", status: 400, code: NOT_JSON },
  { name: "an empty body", body: "", status: 400, code: NOT_JSON },
  {
    name: "a body that is not UTF-8",
    body: Buffer.from(`{"jsonrpc":"2.0","id":7,"method":"\xff"}`, "latin1"),
    status: 400,
    code: NOT_JSON
  },
  {
    name: "a body in UTF-16",
    body: Buffer.from(JSON.stringify(list), "utf16le"),
    status: 400,
    code: NOT_JSON
  },
  ...["{}", "[]", "[[]]", "null", "7", '"x"', "true"].map((body) => ({
    name: `${body} for a body`,
    body,
    status: 400,
    code: INVALID
  })),
  ...[
    { id: 7, method: "ping" },
    { jsonrpc: "1.0", id: 7, method: "ping" },
    { jsonrpc: "2.0", id: 7 },
    { jsonrpc: "2.0", id: {}, method: "ping" },
    { jsonrpc: "2.0", id: 7, method: 7 },
    { jsonrpc: "2.0", result: {} },
    [list, { jsonrpc: "2.0" }]
  ].map((body) => ({
    name: `what is not JSON-RPC: ${JSON.stringify(body)}`,
    body,
    status: 400,
    code: INVALID
  })),
  // The session.
  ...[7, 0, -1, 1.5, "7", "", "a-b"].map((id) => ({
    name: `a request before initialize, with the id ${JSON.stringify(id)}`,
    body: request(id, "tools/list"),
    status: 400,
    code: INVALID,
    id,
    message: /Mcp-Session-Id/
  })),
  { name: "a notification without a session", body: initialized, status: 400, code: INVALID },
  {
    name: "a response without a session",
    body: { jsonrpc: "2.0", id: 7, result: {} },
    status: 400,
    code: INVALID
  },
  { name: "a batch without a session", body: [initialized, list], status: 400, code: INVALID, id: 7 },
  { name: "GET without a session", method: "GET", status: 400, code: INVALID, message: /Mcp-Session-Id/ },
  {
    name: "DELETE without a session",
    method: "DELETE",
    status: 400,
    code: INVALID,
    message: /Mcp-Session-Id/
  },
  {
    name: "initialize in a batch",
    body: [initializeRequest({ id: "i" }), list],
    status: 400,
    code: INVALID,
    id: "i",
    message: /batch/
  },
  { name: "initialize in a batch of one", body: [initializeRequest()], status: 400, code: INVALID, id: 0 },
  ...["POST", "GET", "DELETE"].map((method) => ({
    name: `${method} with an unknown session id`,
    method,
    ...(method === "POST" ? { body: list, id: 7 } : {}),
    headers: { "mcp-session-id": "AAAAAAAAAAAAAAAAAAAAAA" },
    status: 404,
    code: NO_SESSION,
    message: /initialize/
  })),
  {
    name: "initialize with an unknown session id",
    body: initializeRequest({ id: "i" }),
    headers: { "mcp-session-id": "up-1" },
    status: 404,
    code: NO_SESSION,
    id: "i"
  },
  // The HTTP method and the path.
  ...["PUT", "PATCH", "TRACE", "SEARCH"].map((method) => ({
    name: `the method ${method}`,
    method,
    status: 405,
    code: INVALID,
    head: { allow: "GET, POST, DELETE" }
  })),
  ...["GET", "DELETE"].map((method) => ({
    name: `${method} of revision 2026-07-28`,
    method,
    inSession: true,
    headers: modern,
    status: 405,
    code: INVALID,
    head: { allow: "POST" }
  })),
  ...["GET", "DELETE"].flatMap((method) =>
    ["2025-01-01", "1", "latest"].map((revision) => ({
      name: `${method} of the revision ${revision}, which there is not`,
      method,
      inSession: true,
      headers: { "mcp-protocol-version": revision },
      status: 400,
      code: INVALID,
      message: /MCP-Protocol-Version/
    }))
  ),
  ...["/", "/mcp/", "/mcpx", "/MCP", "/mcp/sse", "//mcp", "/healthx"].map((path) => ({
    name: `the path ${path}`,
    path,
    status: 404,
    code: INVALID
  })),
  // What the body is, and what the answer may be.
  ...[
    "text/plain",
    "application/jsonp",
    "application/json-rpc",
    "multipart/form-data",
    "json",
    "",
    undefined
  ].map((type) => ({
    name: `a body of the type ${String(type)}`,
    headers: { "content-type": type },
    inSession: true,
    status: 415,
    code: INVALID
  })),
  ...["gzip", "deflate", "br", "gzip, identity"].map((coding) => ({
    name: `a body compressed with ${coding}`,
    headers: { "content-encoding": coding },
    inSession: true,
    status: 415,
    code: INVALID
  })),
  ...["POST", "GET"].flatMap((method) =>
    ["text/html", "image/*, text/html;q=0.9", "application/json;q=0, text/event-stream;q=0"].map(
      (accept) => ({
        name: `${method} that accepts ${accept} only`,
        method,
        headers: { accept },
        inSession: true,
        status: 406,
        code: INVALID
      })
    )
  ),
  // Who asks.
  ...[
    "evil.example",
    "evil.example:80",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "10.0.0.1",
    "[::2]:80",
    "allowed.example",
    "exact.example:81",
    "%"
  ].map((host) => ({
    name: `the host ${JSON.stringify(host)}`,
    options: { allowHosts: ["exact.example:80"] },
    headers: { host },
    inSession: true,
    status: 403,
    code: INVALID,
    message: /--allow-host/
  })),
  ...[
    "null",
    "http://evil.example",
    "https://localhost.evil.example",
    "https://app.example:8443",
    "http://app.example",
    "https://sub.app.example",
    "file://",
    "chrome-extension://localhost",
    "http://localhost, http://evil.example",
    ""
  ].map((origin) => ({
    name: `the origin ${JSON.stringify(origin)}`,
    options: { allowOrigins: ["https://app.example"] },
    headers: { origin },
    inSession: true,
    status: 403,
    code: INVALID,
    message: /--allow-origin/
  }))
]

describe("what the proxy refuses, with a JSON-RPC error that carries the request's id", () => {
  for (const refusal of refusals) {
    it.scopedLive(`${refusal.status} for ${refusal.name}`, () =>
      Effect.gen(function* () {
        const server = yield* makePlainServer()
        const front = yield* startFront(server, refusal.options)
        const opened = refusal.inSession === true ? yield* initialize(front.url) : undefined
        const seen = server.requests.length
        const method = refusal.method ?? "POST"
        const answer = yield* send(new URL(front.url).origin + (refusal.path ?? "/mcp"), {
          method,
          headers: { ...opened?.session, ...refusal.headers },
          body: method === "POST" ? (refusal.body ?? list) : undefined
        })
        expectError(answer, refusal)
        expect(answer.headers).toMatchObject(refusal.head ?? {})
        expect(answer.headers).not.toHaveProperty("mcp-session-id")
        expect(answer.headers).not.toHaveProperty("access-control-allow-origin")
        // The upstream hears nothing of what is refused, and nobody else is disturbed.
        expect(server.requests).toHaveLength(seen)
        expect((yield* initialize(front.url)).answer.status).toBe(200)
      })
    )
  }
})

describe("what the proxy takes", () => {
  const taken: ReadonlyArray<{
    readonly name: string
    readonly options?: FrontOptions
    readonly headers: Headers
  }> = [
    ...[
      "application/json",
      "application/json; charset=utf-8",
      "Application/JSON;charset=UTF-8",
      "application/json ; a=b"
    ].map((type) => ({ name: `a body of the type ${type}`, headers: { "content-type": type } })),
    ...["identity", undefined].map((coding) => ({
      name: `the content coding ${String(coding)}`,
      headers: { "content-encoding": coding }
    })),
    ...[
      "*/*",
      "application/json",
      "text/event-stream",
      "application/*",
      "text/*;q=0.1",
      "text/html, application/json;q=0.5",
      undefined
    ].map((accept) => ({ name: `the Accept ${String(accept)}`, headers: { accept } })),
    ...["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:1"].map((host) => ({
      name: `the host ${host}`,
      headers: { host }
    })),
    ...["any.example", "any.example:1", "exact.example:81", "ANY.example"].map((host) => ({
      name: `the host ${host}, where --allow-host allows it`,
      options: { allowHosts: ["any.example", "exact.example:81"] },
      headers: { host }
    })),
    {
      name: "any host, where --allow-host allows all",
      options: { allowHosts: ["*"] },
      headers: { host: "a.b" }
    },
    ...["http://localhost:3000", "https://127.0.0.1", "http://[::1]:80", undefined].map((origin) => ({
      name: `the origin ${String(origin)}`,
      headers: { origin }
    })),
    ...["https://app.example", "https://APP.example"].map((origin) => ({
      name: `the origin ${origin}, where --allow-origin allows it`,
      options: { allowOrigins: ["https://app.example"] },
      headers: { origin }
    })),
    {
      name: "any origin, where --allow-origin allows all",
      options: { allowOrigins: ["*"] },
      headers: { origin: "https://a.b" }
    }
  ]

  for (const { headers, name, options } of taken) {
    it.scopedLive(name, () =>
      Effect.gen(function* () {
        const server = yield* makePlainServer()
        const front = yield* startFront(server, options)
        const { answer, session } = yield* initialize(front.url, { headers })
        expect(answer.status).toBe(200)
        expect(messages(yield* post(front.url, list, { ...session, ...headers }))).toEqual([
          { jsonrpc: "2.0", id: 7, result: {} }
        ])
      })
    )
  }

  it.scopedLive("a body of exactly --max-body bytes", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { maxBody: 1000 })
      const { session } = yield* initialize(front.url)
      const body = (length: number) => {
        const shortest = JSON.stringify(request(7, "x", { pad: "" }))
        return JSON.stringify(request(7, "x", { pad: "y".repeat(length - shortest.length) }))
      }
      for (const headers of [session, { ...session, "transfer-encoding": "chunked" }]) {
        expect((yield* post(front.url, body(1000), headers)).status).toBe(200)
        expect((yield* post(front.url, body(1001), headers)).status).toBe(413)
      }
    })
  )

  it.scopedLive("another path, with --path, and then that one only", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { path: "/deep/er" })
      expect(new URL(front.url).pathname).toBe("/deep/er")
      expect((yield* initialize(front.url)).answer.status).toBe(200)
      expect((yield* initialize(new URL("/mcp", front.url).href)).answer.status).toBe(404)
    })
  )
})

describe("a request of 2026-07-28", () => {
  const later = { "mcp-protocol-version": "2099-01-01" }
  const meta = { _meta: { "io.modelcontextprotocol/protocolVersion": "2026-07-28" } }
  const relayed: ReadonlyArray<readonly [name: string, headers: Headers, body: Body]> = [
    ["that its header names", modern, list],
    ["that its _meta names", {}, request("7", "tools/list", meta)],
    ["of a revision to come", later, list],
    ["of a revision that is none", { "mcp-protocol-version": "one" }, list],
    ["with a session id that is not known", { ...modern, "mcp-session-id": "stray" }, list],
    ["that is an initialize", modern, initializeRequest()],
    ["that is a notification", modern, initialized],
    ["that is a batch", modern, [list, list]],
    ["that is no JSON-RPC", modern, "{}"],
    ["that is no JSON", modern, "{"],
    ["without a body", modern, ""]
  ]
  for (const [name, headers, body] of relayed) {
    it.scopedLive(`is relayed and not judged: one ${name}`, () =>
      Effect.gen(function* () {
        const server = yield* makePlainServer({
          initialize: ({ answer }) => answer(400, json, "upstream's"),
          "": ({ answer }) => answer(400, json, "upstream's")
        })
        const front = yield* startFront(server)
        const answer = yield* post(front.url, body, headers)
        expect(answer.headers).not.toHaveProperty("mcp-session-id")
        const received = yield* server.request(0)
        expect(received.body).toBe(typeof body === "string" ? body : JSON.stringify(body))
        expect(received.headers["mcp-protocol-version"]).toBe(headers["mcp-protocol-version"])
        expect(received.headers).not.toHaveProperty("mcp-session-id")
        expect(answer.status).toBe(received.status)
        expect(yield* front.health).toMatchObject({ sessions: 0, stateless: 0 })
      })
    )
  }

  it.scopedLive("does not come from a session whose client names the revision that was negotiated", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({
        initialize: ({ result }) =>
          result({ ...initializeResult, protocolVersion: "2025-99-99" }, { "mcp-session-id": "up" })
      })
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      for (const version of ["2025-99-99", undefined]) {
        yield* post(front.url, list, { ...session, "mcp-protocol-version": version })
      }
      for (const n of [1, 2]) expect((yield* server.request(n)).headers["mcp-session-id"]).toBe("up")
    })
  )
})

describe("the end of a session", () => {
  it.scopedLive("is DELETE: 200, then 404 for its id, and the upstream's session is ended", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({ DELETE: ({ answer }) => answer(405) })
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url, { headers: { authorization: "Bearer one" } })
      yield* post(front.url, list, { ...session, authorization: "Bearer two" })
      expect(yield* del(front.url, session)).toMatchObject({ status: 200, text: "" })
      const { headers, method } = yield* server.request(2)
      // It speaks for the client: with the negotiated revision and the latest credentials.
      expect({ method, ...headers }).toMatchObject({
        method: "DELETE",
        "mcp-session-id": "up-1",
        "mcp-protocol-version": "2025-11-25",
        authorization: "Bearer two"
      })
      expectError(yield* post(front.url, list, session), { status: 404, code: NO_SESSION, id: 7 })
      expectError(yield* get(front.url, session), { status: 404, code: NO_SESSION })
      expectError(yield* del(front.url, session), { status: 404, code: NO_SESSION })
      expect(server.requests).toHaveLength(3)
      expect(yield* front.health).toMatchObject({ sessions: 0 })
    })
  )

  it.scopedLive(
    "comes when the upstream no longer knows it: its 404 passes, and then the proxy says so, unless it is recovered",
    () =>
      Effect.gen(function* () {
        const gone = JSON.stringify({ jsonrpc: "2.0", id: 7, error: { code: -32001, message: "upstream's" } })
        const server = yield* makePlainServer({ "tools/list": ({ answer }) => answer(404, json, gone) })
        const front = yield* startFront(server, { recover: false })
        const { session } = yield* initialize(front.url)
        expect(yield* post(front.url, list, session)).toMatchObject({ status: 404, text: gone })
        yield* front.untilHealth(({ sessions }) => sessions === 0)
        const again = yield* post(front.url, list, session)
        expectError(again, { status: 404, code: NO_SESSION, id: 7 })
        // There is nothing to end any more.
        expect(server.requests.map(({ method }) => method)).toEqual(["POST", "POST"])
      })
  )
})

describe("browser clients", () => {
  const origin = "https://app.example"
  const options = { allowOrigins: [origin] }
  const names = (value: string | ReadonlyArray<string> | undefined) =>
    String(value)
      .toLowerCase()
      .split(",")
      .map((name) => name.trim())

  it.scopedLive("get 204 for a preflight, with what they need to go on", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, options)
      const wanted = "content-type, mcp-session-id, mcp-protocol-version, authorization, last-event-id, x-own"
      for (const method of ["POST", "GET", "DELETE"]) {
        const { headers, status, text } = yield* send(front.url, {
          method: "OPTIONS",
          headers: {
            origin,
            "access-control-request-method": method,
            "access-control-request-headers": wanted
          }
        })
        expect({ status, text }).toEqual({ status: 204, text: "" })
        expect(headers["access-control-allow-origin"]).toBe(origin)
        expect(names(headers["access-control-allow-methods"])).toContain(method.toLowerCase())
        expect(names(headers["access-control-allow-headers"])).toEqual(expect.arrayContaining(names(wanted)))
        expect(names(headers["vary"])).toContain("origin")
      }
      expect(server.requests).toHaveLength(0)
    })
  )

  it.scopedLive("get no preflight for an origin that is not allowed", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, options)
      for (const origin of ["https://evil.example", "null"]) {
        const answer = yield* send(front.url, {
          method: "OPTIONS",
          headers: { origin, "access-control-request-method": "POST" }
        })
        expectError(answer, { status: 403, code: INVALID })
        expect(Object.keys(answer.headers).filter((name) => name.startsWith("access-control-"))).toEqual([])
      }
    })
  )

  it.scopedLive("may read every answer and its session id and challenge, and no one else may", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({
        refuse: ({ answer }) => answer(401, { "www-authenticate": "Bearer", vary: "Accept" }),
        grant: ({ result }) =>
          result({}, { "access-control-allow-origin": "*", "access-control-allow-credentials": "true" }),
        sse: ({ answer }) => answer(200, { "content-type": "text/event-stream" }, "data: {}\n\n")
      })
      const front = yield* startFront(server, options)
      const ask = (headers: Headers) =>
        Effect.gen(function* () {
          const opened = yield* initialize(front.url, { headers })
          const inSession = { ...opened.session, ...headers }
          return [
            opened.answer,
            yield* post(front.url, request(1, "refuse"), inSession),
            yield* post(front.url, request(2, "grant"), inSession),
            yield* post(front.url, request(3, "sse"), inSession),
            yield* post(front.url, initialized, inSession),
            yield* post(front.url, "{", inSession),
            yield* get(new URL("/health", front.url).href, headers),
            yield* del(front.url, inSession)
          ]
        })
      for (const { headers } of yield* ask({ origin })) {
        expect(headers["access-control-allow-origin"]).toBe(origin)
        expect(names(headers["access-control-expose-headers"])).toEqual(
          expect.arrayContaining(["mcp-session-id", "www-authenticate"])
        )
        expect(names(headers["vary"])).toContain("origin")
        expect(headers).not.toHaveProperty("access-control-allow-credentials")
      }
      for (const { headers } of yield* ask({})) {
        expect(Object.keys(headers).filter((name) => name.startsWith("access-control-"))).toEqual([])
      }
    })
  )

  it.scopedLive("leave the upstream's own Vary as it is, and add to it", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({ "tools/list": ({ result }) => result({}, { vary: "Accept" }) })
      const front = yield* startFront(server, options)
      const { session } = yield* initialize(front.url)
      const { headers } = yield* post(front.url, list, { ...session, origin })
      expect(names(headers["vary"])).toEqual(expect.arrayContaining(["accept", "origin"]))
    })
  )
})

describe("an upstream that fails", () => {
  it.scopedLive("is 502 when nothing listens there, for every kind of request", () =>
    Effect.gen(function* () {
      const url = `http://127.0.0.1:${yield* freePort}/mcp`
      const front = yield* startFront({ url })
      const told = { status: 502, code: ERROR, message: /cannot be reached.*ECONNREFUSED/ }
      expectError(yield* post(front.url, initializeRequest({ id: "i" })), { ...told, id: "i" })
      expectError(yield* post(front.url, list, modern), { ...told, id: 7 })
      expect(yield* front.health).toMatchObject({ sessions: 0, stateless: 0, bufferedBytes: 0 })
    })
  )

  it.scopedLive("is 502 when its name is unknown, or when it does not speak TLS where it should", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      for (const url of ["http://no-such-host.invalid/mcp", `https://127.0.0.1:${server.port}/mcp`]) {
        const front = yield* startFront({ url })
        const answer = yield* post(front.url, initializeRequest({ id: "i" }))
        expectError(answer, { status: 502, code: ERROR, id: "i", message: /cannot be reached/ })
      }
    })
  )

  it.scopedLive("is 502 within a session too, which outlives it", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { recover: false })
      const { session } = yield* initialize(front.url)
      yield* server.kill
      const told = { status: 502, code: ERROR, message: /cannot be reached/ }
      expectError(yield* post(front.url, list, session), { ...told, id: 7 })
      expectError(yield* post(front.url, initialized, session), told)
      expectError(yield* get(front.url, session), told)
      expect(yield* front.health).toMatchObject({ sessions: 1 })
      expect(yield* del(front.url, session)).toMatchObject({ status: 200 })
    })
  )

  it.scopedLive("is 502 when it hangs up instead of answering", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({ "tools/list": ({ request }) => request.socket.destroy() })
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      const told = { status: 502, code: ERROR, message: /closed the connection/ }
      expectError(yield* post(front.url, list, session), { ...told, id: 7 })
      expectError(yield* post(front.url, list, modern), { ...told, id: 7 })
    })
  )

  it.scopedLive("is 502 when it hangs up behind the head of its answer, before any of the body", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({
        "tools/list": ({ request, response }) => {
          response.writeHead(200, { ...json, "content-length": "99" })
          response.flushHeaders()
          setImmediate(() => request.socket.destroy())
        }
      })
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      const answer = yield* post(front.url, list, session)
      expectError(answer, { status: 502, code: ERROR, id: 7, message: /closed the connection/ })
    })
  )

  it.scopedLive(
    "breaks an answer off, and then it is broken off for the client too, not made to look whole",
    () =>
      Effect.gen(function* () {
        const half = (headers: Readonly<Record<string, string>>) => (call: Call) => {
          call.response.writeHead(200, { ...json, ...headers })
          call.response.write(`{"jsonrpc":"2.0",`, () => call.request.socket.destroy())
        }
        const server = yield* makePlainServer({
          chunked: half({}),
          counted: half({ "content-length": "99" })
        })
        const front = yield* startFront(server)
        const { session } = yield* initialize(front.url)
        for (const headers of [session, modern]) {
          for (const method of ["chunked", "counted"]) {
            const error = yield* Effect.flip(post(front.url, request(7, method), headers))
            expect(error.message).toMatch(/aborted|hang up|ECONNRESET/)
          }
        }
        expect((yield* post(front.url, list, session)).status).toBe(200)
      })
  )

  it.scopedLive("is 502 when its answer to initialize is no MCP", () =>
    Effect.gen(function* () {
      const answers: ReadonlyArray<readonly [type: string, body: string]> = [
        ["text/html", "<p>It works!</p>"],
        ["application/json", "{}"],
        ["application/json", `{"jsonrpc":"2.0","id":0,"result":{}}`],
        ["text/event-stream", ": nothing\n\n"],
        ["text/event-stream", `data: {"jsonrpc":"2.0","id":0,"result":{"protocolVersion":1}}\n\n`]
      ]
      const server = yield* makePlainServer({
        initialize: ({ answer, id }) => {
          const [type, body] = answers[Number(id)] ?? ["", ""]
          answer(200, { "content-type": type, "mcp-session-id": "up" }, body)
        }
      })
      const front = yield* startFront(server)
      for (const id of answers.keys()) {
        const answer = yield* post(front.url, initializeRequest({ id }))
        expectError(answer, { status: 502, code: ERROR, id, message: /MCP endpoint/ })
        expect(answer.headers).not.toHaveProperty("mcp-session-id")
      }
      expect(yield* front.health).toMatchObject({ sessions: 0 })
    })
  )

  for (const status of [400, 401, 403, 404, 405, 406, 409, 413, 429, 500, 503]) {
    it.scopedLive(`speaks for itself: its ${status} passes through whole`, () =>
      Effect.gen(function* () {
        const says = {
          "content-type": "text/plain",
          "www-authenticate": `Bearer scope="a"`,
          "retry-after": "9"
        }
        const server = yield* makePlainServer({
          initialize: ({ answer, id, result }) =>
            id === "refused"
              ? answer(status, { ...says, "mcp-session-id": "none" }, "its own words")
              : result(initializeResult, { "mcp-session-id": "up" }),
          "tools/list": ({ answer }) => answer(status, says, "its own words"),
          GET: ({ answer }) => answer(status, says, "its own words")
        })
        const front = yield* startFront(server)
        const refused = yield* post(front.url, initializeRequest({ id: "refused" }))
        expect(refused.headers).not.toHaveProperty("mcp-session-id")
        expect(yield* front.health).toMatchObject({ sessions: 0 })
        const one = yield* initialize(front.url)
        const two = yield* initialize(front.url)
        const answers = [
          refused,
          yield* post(front.url, list, one.session),
          yield* get(front.url, two.session),
          yield* post(front.url, list, modern)
        ]
        for (const answer of answers) {
          expect(answer).toMatchObject({ status, headers: says, text: "its own words" })
        }
      })
    )
  }

  it.scopedLive("may refuse initialize with a JSON-RPC error: it passes, and there is no session", () =>
    Effect.gen(function* () {
      const error = JSON.stringify({ jsonrpc: "2.0", id: 0, error: { code: -32602, message: "no" } })
      const server = yield* makePlainServer({
        initialize: ({ answer }) => answer(200, { ...json, "mcp-session-id": "up" }, error)
      })
      const front = yield* startFront(server)
      const { answer } = yield* initialize(front.url)
      expect(answer).toMatchObject({ status: 200, text: error })
      expect(answer.headers).not.toHaveProperty("mcp-session-id")
      yield* front.untilHealth(({ sessions }) => sessions === 0)
    })
  )

  it.scopedLive("is followed where it redirects within its origin, with method and body", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({
        "tools/list": ({ answer, request, result }) => {
          if (request.url === "/elsewhere?a=b") return result({ there: true })
          if (request.url === "/next") return answer(308, { location: "elsewhere?a=b" })
          answer(307, { location: "/next", "content-type": "text/plain" }, "moved")
        }
      })
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      expect(messages(yield* post(front.url, list, session))).toEqual([
        { jsonrpc: "2.0", id: 7, result: { there: true } }
      ])
      const last = yield* server.request(3)
      expect(last).toMatchObject({ method: "POST", body: JSON.stringify(list) })
      expect(last.headers["mcp-session-id"]).toBe("up-1")
    })
  )

  const redirects: ReadonlyArray<readonly [status: number, location: string]> = [
    [307, "http://127.0.0.1:1/mcp"],
    [308, "https://127.0.0.1/mcp"],
    [307, "//evil.example/mcp"],
    [301, "/next"],
    [302, "/next"],
    [303, "/next"],
    [307, "/mcp"],
    [307, "http://["]
  ]
  for (const [status, location] of redirects) {
    it.scopedLive(`is 502 where it redirects past the proxy or for ever: ${status} to ${location}`, () =>
      Effect.gen(function* () {
        const server = yield* makePlainServer({
          "tools/list": ({ answer }) => answer(status, { location })
        })
        const front = yield* startFront(server)
        const { session } = yield* initialize(front.url)
        const answer = yield* post(front.url, list, session)
        expectError(answer, { status: 502, code: ERROR, id: 7, message: /redirects/ })
        expect(answer.headers).not.toHaveProperty("location")
        // A loop has an end, and of the others the first step is not taken.
        if (location === "/mcp") expect(server.requests.length).toBeLessThan(10)
        else expect(server.requests).toHaveLength(2)
      })
    )
  }
})

describe.concurrent("an upstream that is slow", () => {
  it.scopedLive("is 504 when it does not accept the connection within --connect-timeout", () =>
    Effect.gen(function* () {
      const front = yield* startFront(yield* makeBlackholeServer, { connectTimeout: "1 seconds" })
      const answer = yield* post(front.url, initializeRequest({ id: "i" }))
      expectError(answer, { status: 504, code: ERROR, id: "i", message: /--connect-timeout/ })
      expect(yield* front.health).toMatchObject({ sessions: 0, bufferedBytes: 0 })
    })
  )

  it.scopedLive("is 504 when it does not begin to answer within --request-timeout, and is told so", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { requestTimeout: "1 seconds" })
      const { session } = yield* initialize(front.url)
      const told = { status: 504, code: ERROR, message: /--request-timeout/ }
      const [number, text] = yield* Effect.all(
        [post(front.url, request(7, "hang"), session), post(front.url, request("7", "hang"), session)],
        { concurrency: "unbounded" }
      )
      expectError(number, { ...told, id: 7 })
      expectError(text, { ...told, id: "7" })
      yield* server.until(() => server.count("notifications/cancelled") === 2)
      const cancelled = server.requests.filter(({ body }) => body.includes("cancelled"))
      const ids = cancelled.map(({ body }) => decodeCancelled(body).params.requestId)
      expect(new Set(ids)).toEqual(new Set([7, "7"]))
      for (const { headers } of cancelled) expect(headers["mcp-session-id"]).toBe("up-1")
      expect((yield* post(front.url, list, session)).status).toBe(200)
    })
  )

  it.scopedLive("is 504 when it does not even read the request within --request-timeout", () =>
    Effect.gen(function* () {
      const { port } = yield* makeUnreadServer
      const front = yield* startFront(
        { url: `http://127.0.0.1:${port}/mcp` },
        { requestTimeout: "1 seconds", maxBody: 32 * 2 ** 20 }
      )
      const body = request("i", "m", { pad: "x".repeat(24 * 2 ** 20) })
      const answer = yield* post(front.url, body, modern)
      expectError(answer, { status: 504, code: ERROR, id: "i", message: /--request-timeout/ })
      yield* front.untilHealth(({ bufferedBytes }) => bufferedBytes === 0)
    })
  )

  it.scopedLive("is 504 for initialize too, which is never cancelled", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({ initialize: () => undefined })
      const front = yield* startFront(server, { requestTimeout: "1 seconds" })
      const answer = yield* post(front.url, initializeRequest({ id: "i" }))
      expectError(answer, { status: 504, code: ERROR, id: "i", message: /--request-timeout/ })
      yield* front.untilHealth(({ sessions }) => sessions === 0)
      expect(server.requests).toHaveLength(1)
    })
  )

  it.scopedLive("is waited for without end when --request-timeout is 0", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { requestTimeout: 0 })
      const { session } = yield* initialize(front.url)
      const call = yield* Effect.fork(post(front.url, request(7, "hang"), session))
      yield* server.until(() => server.held.length === 1)
      // As long as the shortest limit takes that undici's clock, which ticks once a second, can tell.
      const other = yield* startFront(server, { requestTimeout: 1 })
      expect((yield* post(other.url, request(8, "hang"), modern)).status).toBe(504)
      expect(call.unsafePoll()).toBe(null)
      server.held[0]?.result({ late: true })
      expect((yield* Fiber.join(call)).status).toBe(200)
    })
  )
})

describe("what reaches the upstream", () => {
  it.scopedLive("is every header of the client but those of one connection, Host and Origin", () =>
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

  it.scopedLive("is the body byte for byte, however it was sent", () =>
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

  it.scopedLive("is what --header adds, which wins over the client's, on every request", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const added = { authorization: "Bearer configured", "x-added": "yes", "user-agent": "shadowcat" }
      const front = yield* startFront(server, { headers: added })
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

  it.scopedLive("goes to the path and query of --url, whatever the client's query is", () =>
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

  it.scopedLive("is the upstream's own session id, of each session its own", () =>
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

  it.scopedLive("is no session id where the upstream gives none, though the client has one", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({ initialize: ({ result }) => result(initializeResult) })
      const front = yield* startFront(server)
      const { session, sessionId } = yield* initialize(front.url)
      expect(sessionId).toBeDefined()
      expect((yield* post(front.url, list, session)).headers["mcp-session-id"]).toBe(sessionId)
      expect((yield* del(front.url, session)).status).toBe(200)
      // There is no session to end there.
      expect(server.requests.map(({ method }) => method)).toEqual(["POST", "POST"])
      for (const { headers } of server.requests) expect(headers).not.toHaveProperty("mcp-session-id")
    })
  )

  it.scopedLive("is no session id in 2026-07-28, and none comes back", () =>
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

describe("what comes back to the client", () => {
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

  it.scopedLive("is every header of the upstream but those of one connection, CORS and its session id", () =>
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

  it.scopedLive("is the body byte for byte, in JSON and in other types", () =>
    Effect.gen(function* () {
      const bytes = Buffer.from([0, 255, 13, 10, 128, ...Buffer.from(`{"a" : 1}\n\n`)])
      const server = yield* makePlainServer({
        "tools/list": ({ answer, params }) => answer(200, { "content-type": String(params["type"]) }, bytes)
      })
      // The events of a stream that is kept get other ids, and are told apart for that.
      for (const [type, options] of [
        ["application/json", {}],
        ["application/octet-stream", {}],
        ["text/event-stream", { maxEvents: 0 }]
      ] as const) {
        const front = yield* startFront(server, options)
        const { session } = yield* initialize(front.url)
        const answer = yield* post(front.url, request(7, "tools/list", { type }), session)
        // What is no whole event gets an error behind it, for the request was not answered.
        expect(Buffer.from(answer.text.slice(0, bytes.toString().length))).toEqual(
          Buffer.from(bytes.toString())
        )
      }
    })
  )

  it.scopedLive("is one answer, without what an upstream says before it", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({
        "tools/list": ({ response, result }) => {
          // Not 100 Continue: undici takes it for a fault where nobody has asked for it.
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

  it.scopedLive("is compressed where the upstream has compressed it all the same", () =>
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

  it.scopedLive("is, on streams, told to all in between not to be cached, changed or held back", () =>
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
        // Of a stream that is over at once, the length is that of what the proxy has made of it.
        expect([undefined, String(text.length)]).toContain(headers["content-length"])
      }
      const { headers } = yield* post(front.url, request(8, "ping"), opened.session)
      expect(headers).not.toHaveProperty("x-accel-buffering")
      expect(headers).not.toHaveProperty("cache-control")
    })
  )

  it.scopedLive("is the head of a stream as soon as the upstream has sent it, before any event", () =>
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

  it.scopedLive("is no header that would break the answer, whatever bytes the upstream sends in it", () =>
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

describe("/health", () => {
  it.scopedLive("tells the status, the version, the uptime, what is active and all limits", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const limits = {
        maxSessions: 11,
        maxPerClient: 12,
        maxExchanges: 13,
        maxStateless: 14,
        maxConnections: 15,
        maxBody: 1600,
        maxBuffered: 17_000
      }
      const front = yield* startFront(server, limits)
      const { session } = yield* initialize(front.url)
      yield* Effect.fork(post(front.url, request(1, "hang"), session))
      yield* Effect.fork(post(front.url, request(2, "hang"), modern))
      yield* server.until(() => server.held.length === 2)
      const { headers, status, text } = yield* get(new URL("/health?verbose", front.url).href)
      expect({ status, type: headers["content-type"] }).toEqual({ status: 200, type: "application/json" })
      const document: unknown = JSON.parse(text)
      expect(document).toMatchObject({
        status: "ok",
        version: expect.stringMatching(/^\d+\.\d+\.\d+/),
        uptimeSeconds: expect.any(Number),
        sessions: 1,
        stateless: 1,
        connections: 3,
        bufferedBytes: expect.any(Number),
        limits
      })
    })
  )

  it.scopedLive("is 503 while draining: nothing new begins, what is under way goes on", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({
        GET: ({ response }) => {
          response.writeHead(200, { "content-type": "text/event-stream" })
          response.flushHeaders()
        }
      })
      const scope = yield* Scope.make()
      const front = yield* startFront(server, { shutdownTimeout: "20 seconds" }).pipe(Scope.extend(scope))
      const { session } = yield* initialize(front.url)
      const listening = yield* stream(front.url, { headers: session })
      const call = yield* Effect.fork(post(front.url, request(1, "hang"), session))
      yield* server.until(() => server.held.length === 1)
      const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
      yield* front.untilHealth(({ status }) => status === "draining")
      expect((yield* get(new URL("/health", front.url).href)).status).toBe(503)

      const told = { status: 503, code: ERROR, message: /shutting down/ }
      const refused = [
        yield* post(front.url, initializeRequest({ id: "i" })),
        yield* post(front.url, request("i", "tools/list"), session),
        yield* post(front.url, request("i", "tools/list"), modern)
      ]
      for (const answer of refused) {
        expectError(answer, { ...told, id: "i" })
        expect(Number(answer.headers["retry-after"])).toBeGreaterThan(0)
      }
      expectError(yield* get(front.url, session), told)
      expect((yield* post(front.url, initialized, session)).status).toBe(202)

      server.held[0]?.result({ late: true })
      expect(messages(yield* Fiber.join(call))).toEqual([{ jsonrpc: "2.0", id: 1, result: { late: true } }])
      // The stream is not waited for: with the last call everything ends.
      expect(yield* listening.end).toBe("ended")
      yield* Fiber.join(closing)
      expect(server.requests.filter(({ method }) => method === "DELETE")).toHaveLength(1)
      expect((yield* Effect.flip(front.health)).message).toContain("ECONNREFUSED")
    })
  )
})

describe("odd HTTP", () => {
  const good = requestBytes("POST", {}, initializeRequest())
  const odd: ReadonlyArray<{
    readonly name: string
    readonly bytes: string | Uint8Array
    /** The statuses of the answers, in order, before the connection is closed. */
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
      name: "a Transfer-Encoding that is not known",
      bytes: requestBytes("POST", { "transfer-encoding": "chunked, gzip" }),
      statuses: [400]
    },
    {
      name: "a Content-Length that is no number",
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
      name: "a chunk whose size is no number",
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
      name: "an expectation that is not known",
      bytes: requestBytes("POST", { expect: "tea", connection: "close" }, list),
      statuses: [417]
    },
    {
      name: "OPTIONS *",
      bytes: requestBytes("OPTIONS", { connection: "close" }, undefined, "*"),
      statuses: [404]
    },
    {
      name: "an upgrade, which is passed over",
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
    it.scopedLive(`is answered or hung up on, and the proxy goes on: ${name}`, () =>
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

  it.scopedLive("HEAD gets the head of a 405, and that of the health check, without a body", () =>
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

  it.scopedLive("a connection goes on after what was refused on it, whatever came with that", () =>
    Effect.gen(function* () {
      const front = yield* startFront(yield* makePlainServer())
      const { session } = yield* initialize(front.url)
      const refused = [
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
      for (const [n, [status, bytes]] of refused.entries()) {
        yield* socket.write(bytes)
        expect((yield* socket.answer(2 * n)).status).toBe(status)
        yield* socket.write(requestBytes("POST", session, list))
        expect((yield* socket.answer(2 * n + 1)).status).toBe(200)
      }
    })
  )

  it.scopedLive("pipelined requests are all answered, in their order", () =>
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

  it.scopedLive("many things at once on one connection are no cause for a warning of Node's", () =>
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

  it.scopedLive("pipelined requests whose connection is lost give back all that they hold", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { maxExchanges: 4, shutdownTimeout: "20 seconds" })
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
      // The calls of the session are read to their end, and then their places are free.
      for (const { result } of server.held) result()
      yield* front.untilHealth((health) => health.bufferedBytes === 0)
      const calls = [3, 4, 5, 6].map((id) => post(front.url, request(id, "hang"), session))
      const all = yield* Effect.fork(Effect.all(calls, { concurrency: "unbounded" }))
      yield* server.until(() => server.held.length === 8)
      for (const { result } of server.held.slice(4)) result()
      expect((yield* Fiber.join(all)).map(({ status }) => status)).toEqual([200, 200, 200, 200])
      // The scope closes at once, for nobody waits for anything.
    })
  )

  it.scopedLive("Expect: 100-continue is told to go on, and then answered", () =>
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

  it.scopedLive("a client that closes its half of the connection is one that has gone", () =>
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

  it.scopedLive("a key named __proto__ crosses as it is, and harms nothing", () =>
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
      // Nor does one in the place of what makes a message.
      const inherited = `{"__proto__":{"jsonrpc":"2.0","id":7,"method":"tools/list"}}`
      expectError(yield* post(front.url, inherited, session), { status: 400, code: INVALID })
    })
  )

  const endless = (headers: Headers): string => requestBytes("POST", headers, undefined)

  for (const [name, headers, piece] of [
    ["a Content-Length", { "content-length": String(16 * 2 ** 20) }, "x".repeat(2 ** 20)],
    ["chunks", { "transfer-encoding": "chunked" }, `100000\r\n${"x".repeat(2 ** 20)}\r\n`]
  ] as const) {
    it.scopedLive(`413 can be read by a client that goes on sending with ${name}: it is no reset`, () =>
      Effect.gen(function* () {
        const server = yield* makePlainServer()
        const front = yield* startFront(server, { maxBody: 2 ** 20 })
        const socket = yield* connect(front.port)
        yield* socket.write(endless(headers))
        for (let n = 0; n < 8; n++) yield* socket.write(piece)
        expectError(yield* socket.answer(0), { status: 413, code: INVALID, message: /--max-body/ })
        expect(socket.isClosed()).toBe(false)
        for (let n = 8; n < 16; n++) yield* socket.write(piece)
        if ("transfer-encoding" in headers) yield* socket.write("0\r\n\r\n")
        // All that it sent was taken, and nothing of it was kept.
        expect(yield* socket.closed()).toBe("closed")
        expect(socket.answers()).toHaveLength(1)
        expect(server.requests).toHaveLength(0)
        expect(yield* front.health).toMatchObject({ bufferedBytes: 0 })
      })
    )
  }

  it.scopedLive("every refusal can be read by a client that sends a large body with it", () =>
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
      // Node's client tells the length of these by itself for PUT only.
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
