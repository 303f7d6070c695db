import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { startFront } from "../fixtures/Front.js"
import { makePlainServer } from "../fixtures/PlainServer.js"
import { ERROR, expectError } from "../fixtures/RpcError.js"
import {
  get,
  initialize,
  initialized,
  initializeRequest,
  messages,
  post,
  request,
  stream
} from "../fixtures/RawClient.js"

const modern = { "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list" }

describe("/health", () => {
  it.scopedLive("returns the status, the version, the uptime, the active counts and all limits", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const sessions = { maxSessions: 11, maxPerClient: 12, maxExchanges: 13, maxStateless: 14 }
      const connections = { maxConnections: 15, maxBody: 1600, maxBuffered: 17_000 }
      const front = yield* startFront(server, { front: connections, sessions })
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
        limits: { ...sessions, ...connections }
      })
    })
  )

  it.scopedLive(
    "returns 503 while the proxy drains, which rejects new requests and completes those in flight",
    () =>
      Effect.gen(function* () {
        const server = yield* makePlainServer({
          GET: ({ response }) => {
            response.writeHead(200, { "content-type": "text/event-stream" })
            response.flushHeaders()
          }
        })
        const scope = yield* Scope.make()
        const front = yield* startFront(server, { front: { shutdownTimeout: "20 seconds" } }).pipe(
          Scope.extend(scope)
        )
        const { session } = yield* initialize(front.url)
        const listening = yield* stream(front.url, { headers: session })
        const call = yield* Effect.fork(post(front.url, request(1, "hang"), session))
        yield* server.until(() => server.held.length === 1)
        const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
        yield* front.untilHealth(({ status }) => status === "draining")
        expect((yield* get(new URL("/health", front.url).href)).status).toBe(503)

        const problem = { status: 503, code: ERROR, message: /shutting down/ }
        const rejected = [
          yield* post(front.url, initializeRequest({ id: "i" })),
          yield* post(front.url, request("i", "tools/list"), session),
          yield* post(front.url, request("i", "tools/list"), modern)
        ]
        for (const answer of rejected) {
          expectError(answer, { ...problem, id: "i" })
          expect(Number(answer.headers["retry-after"])).toBeGreaterThan(0)
        }
        expectError(yield* get(front.url, session), problem)
        expect((yield* post(front.url, initialized, session)).status).toBe(202)

        server.held[0]?.result({ late: true })
        expect(messages(yield* Fiber.join(call))).toEqual([{ jsonrpc: "2.0", id: 1, result: { late: true } }])
        // The shutdown waits for the call, not for the stream.
        expect(yield* listening.end).toBe("ended")
        yield* Fiber.join(closing)
        expect(server.requests.filter(({ method }) => method === "DELETE")).toHaveLength(1)
        expect((yield* Effect.flip(front.health)).message).toContain("ECONNREFUSED")
      })
  )
})
