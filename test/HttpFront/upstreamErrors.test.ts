import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import { makeBlackholeServer, makeUnreadServer } from "../fixtures/BlackholeServer.js"
import { freePort } from "../fixtures/freePort.js"
import { startFront } from "../fixtures/Front.js"
import { type Call, initializeResult, makePlainServer } from "../fixtures/PlainServer.js"
import { ERROR, expectError } from "../fixtures/RpcError.js"
import {
  del,
  get,
  initialize,
  initialized,
  initializeRequest,
  messages,
  post,
  request
} from "../fixtures/RawClient.js"

const json = { "content-type": "application/json" }
const decodeCancelled = Schema.decodeUnknownSync(
  Schema.parseJson(Schema.Struct({ params: Schema.Struct({ requestId: Schema.Unknown }) }))
)
const list = request(7, "tools/list")
const modern = { "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list" }

describe("an upstream that fails", () => {
  it.scopedLive("gets 502 if nothing listens on its port, for every kind of request", () =>
    Effect.gen(function* () {
      const url = `http://127.0.0.1:${yield* freePort}/mcp`
      const front = yield* startFront({ url })
      const problem = { status: 502, code: ERROR, message: /cannot be reached.*ECONNREFUSED/ }
      expectError(yield* post(front.url, initializeRequest({ id: "i" })), { ...problem, id: "i" })
      expectError(yield* post(front.url, list, modern), { ...problem, id: 7 })
      expect(yield* front.health).toMatchObject({ sessions: 0, stateless: 0, bufferedBytes: 0 })
    })
  )

  it.scopedLive("gets 502 if its name is unknown or it does not use TLS on an https URL", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      for (const url of ["http://no-such-host.invalid/mcp", `https://127.0.0.1:${server.port}/mcp`]) {
        const front = yield* startFront({ url })
        const answer = yield* post(front.url, initializeRequest({ id: "i" }))
        expectError(answer, { status: 502, code: ERROR, id: "i", message: /cannot be reached/ })
      }
    })
  )

  it.scopedLive("gets 502 within a session, which stays open", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { sessions: { recover: false } })
      const { session } = yield* initialize(front.url)
      yield* server.kill
      const problem = { status: 502, code: ERROR, message: /cannot be reached/ }
      expectError(yield* post(front.url, list, session), { ...problem, id: 7 })
      expectError(yield* post(front.url, initialized, session), problem)
      expectError(yield* get(front.url, session), problem)
      expect(yield* front.health).toMatchObject({ sessions: 1 })
      expect(yield* del(front.url, session)).toMatchObject({ status: 200 })
    })
  )

  it.scopedLive("gets 502 if it closes the connection without a response", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({ "tools/list": ({ request }) => request.socket.destroy() })
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url)
      const problem = { status: 502, code: ERROR, message: /closed the connection/ }
      expectError(yield* post(front.url, list, session), { ...problem, id: 7 })
      expectError(yield* post(front.url, list, modern), { ...problem, id: 7 })
    })
  )

  it.scopedLive("gets 502 if it closes the connection between the head and the body", () =>
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

  it.scopedLive("has its truncated response truncated for the client too", () =>
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

  it.scopedLive("gets 502 if its response to initialize is not MCP", () =>
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
    it.scopedLive(`has its own ${status} passed through unchanged`, () =>
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

  it.scopedLive("may reject initialize with a JSON-RPC error, which passes through without a session", () =>
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

  it.scopedLive("may redirect within its origin, and the method and body are kept", () =>
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
    it.scopedLive(`gets 502 for a redirect that cannot be followed: ${status} to ${location}`, () =>
      Effect.gen(function* () {
        const server = yield* makePlainServer({
          "tools/list": ({ answer }) => answer(status, { location })
        })
        const front = yield* startFront(server)
        const { session } = yield* initialize(front.url)
        const answer = yield* post(front.url, list, session)
        expectError(answer, { status: 502, code: ERROR, id: 7, message: /redirects/ })
        expect(answer.headers).not.toHaveProperty("location")
        // A loop ends after a few hops, and the proxy does not follow the others at all.
        if (location === "/mcp") expect(server.requests.length).toBeLessThan(10)
        else expect(server.requests).toHaveLength(2)
      })
    )
  }
})

describe.concurrent("an upstream that is slow", () => {
  it.scopedLive("gets 504 if it does not accept the connection within --connect-timeout", () =>
    Effect.gen(function* () {
      const front = yield* startFront(yield* makeBlackholeServer, {
        upstream: { connectTimeout: "1 seconds" }
      })
      const answer = yield* post(front.url, initializeRequest({ id: "i" }))
      expectError(answer, { status: 504, code: ERROR, id: "i", message: /--connect-timeout/ })
      expect(yield* front.health).toMatchObject({ sessions: 0, bufferedBytes: 0 })
    })
  )

  it.scopedLive("gets 504 and a cancellation if it does not respond within --request-timeout", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { upstream: { requestTimeout: "1 seconds" } })
      const { session } = yield* initialize(front.url)
      const problem = { status: 504, code: ERROR, message: /--request-timeout/ }
      const [number, text] = yield* Effect.all(
        [post(front.url, request(7, "hang"), session), post(front.url, request("7", "hang"), session)],
        { concurrency: "unbounded" }
      )
      expectError(number, { ...problem, id: 7 })
      expectError(text, { ...problem, id: "7" })
      yield* server.until(() => server.count("notifications/cancelled") === 2)
      const cancelled = server.requests.filter(({ body }) => body.includes("cancelled"))
      const ids = cancelled.map(({ body }) => decodeCancelled(body).params.requestId)
      expect(new Set(ids)).toEqual(new Set([7, "7"]))
      for (const { headers } of cancelled) expect(headers["mcp-session-id"]).toBe("up-1")
      expect((yield* post(front.url, list, session)).status).toBe(200)
    })
  )

  it.scopedLive("gets 504 if it does not read the request within --request-timeout", () =>
    Effect.gen(function* () {
      const { port } = yield* makeUnreadServer
      const front = yield* startFront(
        { url: `http://127.0.0.1:${port}/mcp` },
        { upstream: { requestTimeout: "1 seconds" }, front: { maxBody: 32 * 2 ** 20 } }
      )
      const body = request("i", "m", { pad: "x".repeat(24 * 2 ** 20) })
      const answer = yield* post(front.url, body, modern)
      expectError(answer, { status: 504, code: ERROR, id: "i", message: /--request-timeout/ })
      yield* front.untilHealth(({ bufferedBytes }) => bufferedBytes === 0)
    })
  )

  it.scopedLive("gets 504 for initialize, which is never cancelled", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({ initialize: () => undefined })
      const front = yield* startFront(server, { upstream: { requestTimeout: "1 seconds" } })
      const answer = yield* post(front.url, initializeRequest({ id: "i" }))
      expectError(answer, { status: 504, code: ERROR, id: "i", message: /--request-timeout/ })
      yield* front.untilHealth(({ sessions }) => sessions === 0)
      expect(server.requests).toHaveLength(1)
    })
  )

  it.scopedLive("has no time limit with --request-timeout 0", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { upstream: { requestTimeout: 0 } })
      const { session } = yield* initialize(front.url)
      const call = yield* Effect.fork(post(front.url, request(7, "hang"), session))
      yield* server.until(() => server.held.length === 1)
      // The time of the shortest limit: undici's timer ticks once a second.
      const other = yield* startFront(server, { upstream: { requestTimeout: 1 } })
      expect((yield* post(other.url, request(8, "hang"), modern)).status).toBe(504)
      expect(call.unsafePoll()).toBe(null)
      server.held[0]?.result({ late: true })
      expect((yield* Fiber.join(call)).status).toBe(200)
    })
  )
})
