import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { startFront } from "../fixtures/Front.js"
import { makePlainServer } from "../fixtures/PlainServer.js"
import { expectError, NO_SESSION } from "../fixtures/RpcError.js"
import { del, get, initialize, post, request } from "../fixtures/RawClient.js"

const json = { "content-type": "application/json" }
const list = request(7, "tools/list")

describe("a session", () => {
  it.scopedLive("ends on DELETE with 200, then its id gets 404, and the upstream session ends too", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({ DELETE: ({ answer }) => answer(405) })
      const front = yield* startFront(server)
      const { session } = yield* initialize(front.url, { headers: { authorization: "Bearer one" } })
      yield* post(front.url, list, { ...session, authorization: "Bearer two" })
      expect(yield* del(front.url, session)).toMatchObject({ status: 200, text: "" })
      const { headers, method } = yield* server.request(2)
      // The proxy sends the negotiated revision and the client's latest credentials.
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

  it.scopedLive("ends when the upstream answers 404 for it, and no failover is configured", () =>
    Effect.gen(function* () {
      const gone = JSON.stringify({ jsonrpc: "2.0", id: 7, error: { code: -32001, message: "upstream's" } })
      const server = yield* makePlainServer({ "tools/list": ({ answer }) => answer(404, json, gone) })
      const front = yield* startFront(server, { sessions: { recover: false } })
      const { session } = yield* initialize(front.url)
      expect(yield* post(front.url, list, session)).toMatchObject({ status: 404, text: gone })
      yield* front.untilHealth(({ sessions }) => sessions === 0)
      const again = yield* post(front.url, list, session)
      expectError(again, { status: 404, code: NO_SESSION, id: 7 })
      // The upstream has no session to end.
      expect(server.requests.map(({ method }) => method)).toEqual(["POST", "POST"])
    })
  )
})
