import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { startFront } from "../fixtures/Front.js"
import { makePlainServer } from "../fixtures/PlainServer.js"
import { expectError, INVALID } from "../fixtures/RpcError.js"
import {
  del,
  get,
  type Headers,
  initialize,
  initialized,
  post,
  request,
  send
} from "../fixtures/RawClient.js"

const list = request(7, "tools/list")

describe("CORS", () => {
  const origin = "https://app.example"
  const options = { front: { allowOrigins: [origin] } }
  const names = (value: string | ReadonlyArray<string> | undefined) =>
    String(value)
      .toLowerCase()
      .split(",")
      .map((name) => name.trim())

  it.scopedLive("answers a preflight with 204 and the methods and headers that MCP needs", () =>
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

  it.scopedLive("rejects the preflight of an origin that is not allowed", () =>
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

  it.scopedLive("lets an allowed origin read every response, its session id and its challenge", () =>
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

  it.scopedLive("adds Origin to the upstream's Vary", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({ "tools/list": ({ result }) => result({}, { vary: "Accept" }) })
      const front = yield* startFront(server, options)
      const { session } = yield* initialize(front.url)
      const { headers } = yield* post(front.url, list, { ...session, origin })
      expect(names(headers["vary"])).toEqual(expect.arrayContaining(["accept", "origin"]))
    })
  )
})
