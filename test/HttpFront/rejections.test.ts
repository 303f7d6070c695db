import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { type FrontOptions, startFront } from "../fixtures/Front.js"
import { makePlainServer } from "../fixtures/PlainServer.js"
import { expectError, INVALID, NO_SESSION, NOT_JSON, type ExpectedError } from "../fixtures/RpcError.js"
import {
  type Body,
  type Headers,
  initialize,
  initialized,
  initializeRequest,
  request,
  send
} from "../fixtures/RawClient.js"

const list = request(7, "tools/list")
const modern = { "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list" }

interface Rejection extends ExpectedError {
  readonly name: string
  readonly options?: FrontOptions
  readonly method?: string
  readonly path?: string
  readonly headers?: Headers
  readonly body?: Body
  /** True if the request belongs to an open session. */
  readonly inSession?: boolean
  /** Other headers of the response. */
  readonly head?: Readonly<Record<string, string>>
}

const rejections: ReadonlyArray<Rejection> = [
  // The body.
  {
    name: "a body over --max-body",
    options: { front: { maxBody: 1000 } },
    body: "x".repeat(1001),
    status: 413,
    code: INVALID
  },
  {
    name: "a chunked body over --max-body",
    options: { front: { maxBody: 1000 } },
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
    name: `the body ${body}`,
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
    name: `invalid JSON-RPC: ${JSON.stringify(body)}`,
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
  // The version header.
  ...["", "latest", "2025-01-01", "2025-06-18, 2025-11-25", "2025-11-25, 2026-07-28"].flatMap((version) => [
    {
      name: `a request in a session with the revision ${JSON.stringify(version)}`,
      inSession: true,
      headers: { "mcp-protocol-version": version },
      status: 400,
      code: INVALID,
      id: 7,
      message: /MCP-Protocol-Version/
    },
    {
      name: `initialize with the revision ${JSON.stringify(version)}`,
      body: initializeRequest({ id: "i" }),
      headers: { "mcp-protocol-version": version },
      status: 400,
      code: INVALID,
      id: "i",
      message: /MCP-Protocol-Version/
    }
  ]),
  ...["", "2025-06-18, 2025-11-25"].map((version) => ({
    name: `a request without a session with the revision ${JSON.stringify(version)}`,
    headers: { "mcp-protocol-version": version },
    status: 400,
    code: INVALID,
    id: 7,
    message: /MCP-Protocol-Version/
  })),
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
      name: `${method} of the unknown revision ${revision}`,
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
  // Content types.
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
  // Host and Origin.
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
    options: { front: { allowHosts: ["exact.example:80"] } },
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
    options: { front: { allowOrigins: ["https://app.example"] } },
    headers: { origin },
    inSession: true,
    status: 403,
    code: INVALID,
    message: /--allow-origin/
  }))
]

describe("answers with a JSON-RPC error that has the request's id", () => {
  for (const rejection of rejections) {
    it.scopedLive(`${rejection.status} for ${rejection.name}`, () =>
      Effect.gen(function* () {
        const server = yield* makePlainServer()
        const front = yield* startFront(server, rejection.options)
        const opened = rejection.inSession === true ? yield* initialize(front.url) : undefined
        const seen = server.requests.length
        const method = rejection.method ?? "POST"
        const answer = yield* send(new URL(front.url).origin + (rejection.path ?? "/mcp"), {
          method,
          headers: { ...opened?.session, ...rejection.headers },
          body: method === "POST" ? (rejection.body ?? list) : undefined
        })
        expectError(answer, rejection)
        expect(answer.headers).toMatchObject(rejection.head ?? {})
        expect(answer.headers).not.toHaveProperty("mcp-session-id")
        expect(answer.headers).not.toHaveProperty("access-control-allow-origin")
        // The upstream gets nothing, and other clients are not affected.
        expect(server.requests).toHaveLength(seen)
        expect((yield* initialize(front.url)).answer.status).toBe(200)
      })
    )
  }
})
