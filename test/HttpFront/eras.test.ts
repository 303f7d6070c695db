import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { startFront } from "../fixtures/Front.js"
import { hybridInitialize, meta, script } from "../fixtures/hybrid.js"
import { initializeResult, makePlainServer } from "../fixtures/PlainServer.js"
import { expectError, NO_SESSION } from "../fixtures/RpcError.js"
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
  request
} from "../fixtures/RawClient.js"

const json = { "content-type": "application/json" }
const list = request(7, "tools/list")
const modern = { "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list" }

describe("a modern request", () => {
  const later = { "mcp-protocol-version": "2099-01-01" }
  const meta = { _meta: { "io.modelcontextprotocol/protocolVersion": "2026-07-28" } }
  const relayed: ReadonlyArray<readonly [name: string, headers: Headers, body: Body]> = [
    ["a revision in the header", modern, list],
    ["a revision in _meta", {}, request("7", "tools/list", meta)],
    ["a future revision", later, list],
    ["an unknown revision", { "mcp-protocol-version": "one" }, list],
    ["an unknown session id", { ...modern, "mcp-session-id": "stray" }, list],
    ["the method initialize", modern, initializeRequest()],
    ["a notification", modern, initialized],
    ["a batch", modern, [list, list]],
    ["a body that is not JSON-RPC", modern, "{}"],
    ["a body that is not JSON", modern, "{"],
    ["an empty body", modern, ""]
  ]
  for (const [name, headers, body] of relayed) {
    it.scopedLive(`is relayed without validation: ${name}`, () =>
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
})

const result = [{ jsonrpc: "2.0", id: 7, result: {} }]

describe("a legacy request", () => {
  it.scopedLive("with modern keys in _meta stays in its session at a URL", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server)
      const opened = yield* post(front.url, hybridInitialize)
      expect(opened.status).toBe(200)
      const session = { "mcp-session-id": String(opened.headers["mcp-session-id"]) }
      const call = request(7, "tools/list", meta)
      for (const version of ["2025-11-25", undefined]) {
        const headers = { ...session, "mcp-protocol-version": version }
        expect((yield* post(front.url, { ...initialized, params: meta }, headers)).status).toBe(202)
        expect(messages(yield* post(front.url, call, headers))).toEqual(result)
      }
      expect(yield* front.health).toMatchObject({ sessions: 1, stateless: 0 })
      expect(server.requests.map(({ headers }) => headers["mcp-session-id"])).toEqual([
        undefined,
        ...Array(4).fill("up-1")
      ])
      expect(server.requests.at(-1)?.body).toBe(JSON.stringify(call))
    })
  )

  it.scopedLive("with modern keys in _meta stays in its session before a command", () =>
    Effect.gen(function* () {
      const front = yield* startFront({ command: "sh" }, { upstream: { args: ["-c", script] } })
      const opened = yield* post(front.url, hybridInitialize)
      expect(opened.status).toBe(200)
      const session = { "mcp-session-id": String(opened.headers["mcp-session-id"]) }
      for (const version of ["2025-11-25", undefined]) {
        const headers = { ...session, "mcp-protocol-version": version }
        expect(messages(yield* post(front.url, request(7, "tools/list", meta), headers))).toEqual(result)
      }
      expect(yield* front.health).toMatchObject({ sessions: 1, stateless: 0 })
    })
  )

  for (const [name, twice] of [
    ["as a list", (value: string) => `${value}, ${value}`],
    ["without spaces", (value: string) => `${value},${value}`]
  ] as const) {
    it.scopedLive(`may have its headers doubled ${name}, and the upstream gets one`, () =>
      Effect.gen(function* () {
        const server = yield* makePlainServer()
        const front = yield* startFront(server)
        const { sessionId = "" } = yield* initialize(front.url, {
          headers: { "mcp-protocol-version": twice("2025-11-25") }
        })
        const session = {
          "mcp-session-id": twice(sessionId),
          "mcp-protocol-version": twice("2025-06-18")
        }
        expect(messages(yield* post(front.url, list, session))).toEqual(result)
        yield* get(front.url, session)
        expect((yield* del(front.url, session)).status).toBe(200)
        const [first, ...others] = server.requests
        expect(first?.headers["mcp-protocol-version"]).toBe("2025-11-25")
        expect(others.map(({ headers, method }) => [method, headers["mcp-session-id"]])).toEqual([
          ["POST", "up-1"],
          ["GET", "up-1"],
          ["DELETE", "up-1"]
        ])
        for (const { headers } of others) {
          expect(headers["mcp-protocol-version"]).toMatch(/^2025-..-..$/)
        }
      })
    )
  }

  it.scopedLive("initialize ignores a session id, known or unknown, and opens a session", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server)
      const one = yield* initialize(front.url)
      for (const id of [one.sessionId, "up-1", "AAAAAAAAAAAAAAAAAAAAAA", ""]) {
        const { answer, sessionId } = yield* initialize(front.url, { headers: { "mcp-session-id": id } })
        expect(answer.status).toBe(200)
        expect(sessionId).not.toBe(id)
      }
      expect(yield* front.health).toMatchObject({ sessions: 5 })
      expect(server.requests.every(({ headers }) => !("mcp-session-id" in headers))).toBe(true)
      expect((yield* post(front.url, list, one.session)).status).toBe(200)
    })
  )

  it.scopedLive("with modern keys and an unknown session id gets 404", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server)
      const answer = yield* post(front.url, request(7, "tools/list", meta), { "mcp-session-id": "stray" })
      expectError(answer, { status: 404, code: NO_SESSION, id: 7 })
      expect(server.requests).toEqual([])
    })
  )

  it.scopedLive("may name an unpublished revision that its session negotiated", () =>
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
