import { describe, expect, it, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { officialClients } from "../fixtures/Clients.js"
import { openStream } from "../fixtures/events.js"
import { startEverything } from "../fixtures/Everything.js"
import { makeLegacyServer } from "../fixtures/LegacyServer.js"
import {
  type Call,
  initializeResult,
  makePlainServer,
  type PlainServer,
  type Script
} from "../fixtures/PlainServer.js"
import { type Proxy, startProxy } from "../fixtures/Proxy.js"
import { type Answer, del, get, type Headers, initialize, post, request } from "../fixtures/RawClient.js"
import { ERROR, expectError } from "../fixtures/RpcError.js"

// Upstreams that do not implement all of the protocol, or reject requests.

describe("an upstream without session ids", () => {
  it.scopedLive("works: each client gets a session of the proxy", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer({ sessions: false })
      const proxy = yield* startProxy(server)
      yield* Effect.scoped(
        Effect.gen(function* () {
          const ids = new Set<string | undefined>()
          for (const [, connect] of officialClients) {
            const client = yield* connect(proxy.url)
            ids.add(client.sessionId())
            expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
            expect(client.errors).toEqual([])
          }
          expect(ids.size).toBe(2)
          expect(ids).not.toContain(undefined)
          expect(yield* proxy.health).toMatchObject({ sessions: 2 })
          const gets = () => server.requests.filter(({ method }) => method === "GET")
          yield* server.until(() => gets().length === 2 && gets().every(({ status }) => status === 405))
        })
      )
      // The proxy answers DELETE itself, because the upstream has no session.
      expect(yield* proxy.health).toMatchObject({ sessions: 0 })
      expect(server.counts.delete).toBe(0)
      expect(server.requests.some(({ headers }) => headers["mcp-session-id"] !== undefined)).toBe(false)
    })
  )
})

describe("the official demo server", () => {
  it.scopedLive("works with both official clients and keeps no session", () =>
    Effect.gen(function* () {
      const server = yield* startEverything()
      const proxy = yield* startProxy(server)
      const opened = () =>
        server.stdout().flatMap((line) => /Session initialized with ID: (\S+)/.exec(line)?.[1] ?? [])
      for (const [, connect] of officialClients) {
        yield* Effect.scoped(
          Effect.gen(function* () {
            const client = yield* connect(proxy.url)
            const tools = yield* Effect.promise(async () => {
              const { tools } = await client.client.listTools()
              return tools.map(({ name }) => name)
            })
            expect(tools).toContain("echo")
            expect(yield* client.call("echo", { message: "hi" })).toBe("Echo: hi")
            const seen: Array<number> = []
            const onProgress = (p: { readonly progress: number }) => seen.push(p.progress)
            const args = { duration: 0.03, steps: 3 }
            yield* client.call("trigger-long-running-operation", args, { onProgress })
            expect(seen).toEqual([1, 2, 3])
          })
        )
      }
      expect(yield* proxy.health).toMatchObject({ sessions: 0 })
      yield* server.until(() => opened().length === 2)
      for (const id of opened()) {
        const gone = yield* post(server.url, request(1, "ping"), { "mcp-session-id": id })
        expect(gone).toMatchObject({ status: 400, text: expect.stringContaining("No valid session ID") })
      }
    })
  )
})

class Rig extends Context.Tag("test/Rig")<
  Rig,
  { readonly server: PlainServer; readonly proxy: Proxy; readonly session: Headers }
>() {}

/** The behaviour that the client selects in a header. */
const caseOf = ({ request }: Call) => request.headers["x-case"]

const unauthorized = `{"error": "invalid_token",\n"detail":"é"}`

const refuse = ({ answer }: Call) =>
  answer(
    401,
    {
      "content-type": "application/json; charset=utf-8",
      "www-authenticate": `Bearer resource_metadata="https://auth.example/.well-known/x", scope="a b"`,
      "mcp-session-id": "never-opened"
    },
    unauthorized
  )

const redirect = (call: Call, otherwise: (call: Call) => void) => {
  const [, status, location = "/moved?x=1"] = /^redirect (\d+) ?(\S+)?$/.exec(String(caseOf(call))) ?? []
  if (status === undefined || call.request.url === "/moved?x=1") otherwise(call)
  else call.answer(Number(status), { location }, "moved")
}

const script: Script = {
  initialize: (call) => {
    const { answer, id, result } = call
    switch (caseOf(call)) {
      case "401":
        return refuse(call)
      case "error":
        return answer(
          200,
          { "content-type": "application/json", "mcp-session-id": "never-opened" },
          JSON.stringify({ jsonrpc: "2.0", id, error: { code: -32602, message: "Unsupported" } })
        )
      case "html":
        return answer(200, { "content-type": "text/html" }, "<p>Welcome")
      case "cut":
        openStream(call.response)
        call.response.write(": working on it\n\n", () => call.response.destroy())
        return undefined
      default:
        return redirect(call, () => result(initializeResult, { "mcp-session-id": "up" }))
    }
  },
  "test/redirect": (call) => redirect(call, () => call.result({ path: call.request.url })),
  GET: (call) =>
    redirect(call, () => {
      openStream(call.response)
      call.response.end(": moved\n\n")
    }),
  DELETE: (call) => redirect(call, () => call.answer(405, { allow: "POST" })),
  "test/401": refuse,
  "test/500": ({ answer }) => answer(500, { "content-type": "text/plain", "x-own": "yes" }, "out of order")
}

const statusAndText = (answer: Answer) => ({ status: answer.status, text: answer.text })

layer(
  Layer.scoped(
    Rig,
    Effect.gen(function* () {
      const server = yield* makePlainServer(script)
      // Without events to keep, the proxy does not reopen a standalone stream that has ended.
      const proxy = yield* startProxy(server, ["--multi-session", "--max-events", "0"])
      const { session } = yield* initialize(proxy.url)
      return { server, proxy, session }
    })
  ),
  { excludeTestServices: true }
)("an upstream", (it) => {
  it.scoped("has its 401 and 500 responses passed to the client unchanged", () =>
    Effect.gen(function* () {
      const { proxy, session } = yield* Rig
      const opening = yield* initialize(proxy.url, { headers: { "x-case": "401" } })
      const calling = yield* post(proxy.url, request(1, "test/401"), session)
      for (const answer of [opening.answer, calling]) {
        expect(statusAndText(answer)).toEqual({ status: 401, text: unauthorized })
        expect(answer.headers).toMatchObject({
          "content-type": "application/json; charset=utf-8",
          "www-authenticate": `Bearer resource_metadata="https://auth.example/.well-known/x", scope="a b"`
        })
      }
      expect(opening.sessionId).toBeUndefined()
      expect(yield* proxy.health).toMatchObject({ sessions: 1 })
      const failing = yield* post(proxy.url, request(1, "test/500"), session)
      expect(statusAndText(failing)).toEqual({ status: 500, text: "out of order" })
      expect(failing.headers).toMatchObject({ "content-type": "text/plain", "x-own": "yes" })
      expect((yield* post(proxy.url, request(2, "ping"), session)).status).toBe(200)
    })
  )

  it.scoped("opens no session if it does not answer `initialize` with a result", () =>
    Effect.gen(function* () {
      const { proxy } = yield* Rig
      const refused = yield* initialize(proxy.url, { headers: { "x-case": "error" } })
      expect(refused.message).toMatchObject({ id: 0, error: { code: -32602, message: "Unsupported" } })
      const page = yield* initialize(proxy.url, { id: "i", headers: { "x-case": "html" } })
      expectError(page.answer, { status: 502, code: ERROR, id: "i", message: /--url|URL/ })
      const cut = yield* initialize(proxy.url, { headers: { "x-case": "cut" } })
      expectError(cut.answer, { status: 502, code: ERROR, id: 0, message: /closed the connection/ })
      for (const { sessionId } of [refused, page, cut]) expect(sessionId).toBeUndefined()
      expect(yield* proxy.health).toMatchObject({ sessions: 1 })
    })
  )

  it.scoped("can redirect requests and their bodies within its origin", () =>
    Effect.gen(function* () {
      const { proxy, server, session } = yield* Rig
      for (const location of ["307", "308", `307 ${new URL("/moved?x=1", server.url).href}`]) {
        yield* server.clearRequests
        const headers = { ...session, "x-case": `redirect ${location}` }
        const body = `{"id":1, "jsonrpc":"2.0","method":"test/redirect"}`
        const moved = yield* post(proxy.url, body, headers)
        expect(statusAndText(moved)).toEqual({
          status: 200,
          text: `{"jsonrpc":"2.0","id":1,"result":{"path":"/moved?x=1"}}`
        })
        expect(moved.headers["location"]).toBeUndefined()
        const sent = { method: "POST", body, headers: { "mcp-session-id": "up" } }
        expect(server.requests).toMatchObject([
          { ...sent, path: "/mcp", status: Number(location.slice(0, 3)) },
          { ...sent, path: "/moved?x=1", status: 200 }
        ])
        const listening = yield* get(proxy.url, headers)
        expect(statusAndText(listening)).toEqual({ status: 200, text: ": moved\n\n" })
        const opened = yield* initialize(proxy.url, { headers: { "x-case": `redirect ${location}` } })
        expect(opened.answer.status).toBe(200)
        // DELETE is redirected too. The client does not get the upstream's response to it.
        expect((yield* del(proxy.url, opened.session)).status).toBe(200)
      }
      expect(yield* proxy.health).toMatchObject({ sessions: 1 })
    })
  )

  it.scoped("cannot redirect to another origin or change the method", () =>
    Effect.gen(function* () {
      const { proxy, server, session } = yield* Rig
      const otherOrigin = yield* makePlainServer()
      for (const to of [
        "301",
        "302",
        "303",
        `307 ${new URL("/moved?x=1", otherOrigin.url).href}`,
        "307 //127.0.0.2/mcp",
        "308 /mcp",
        "307 http://"
      ]) {
        const headers = { "x-case": `redirect ${to}` }
        const moved = yield* post(proxy.url, request("r", "test/redirect"), { ...session, ...headers })
        expectError(moved, { status: 502, code: ERROR, id: "r", message: /redirects to another address/ })
        const opening = yield* initialize(proxy.url, { headers })
        expectError(opening.answer, {
          status: 502,
          code: ERROR,
          id: 0,
          message: /redirects to another address/
        })
        expect((yield* get(proxy.url, { ...session, ...headers })).status).toBe(502)
      }
      expect(otherOrigin.requests).toEqual([])
      expect(server.requests.some(({ body }) => body.includes("notifications/cancelled"))).toBe(false)
      expect(yield* proxy.health).toMatchObject({ sessions: 1 })
    })
  )
})

describe("an upstream that has ended a session", () => {
  it.scopedLive("has its 404 passed to the client, and later requests get a 404 of the proxy", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const proxy = yield* startProxy(server, ["--multi-session", "--recover", "false"])
      const other = yield* initialize(proxy.url)
      const { session } = yield* initialize(proxy.url)
      yield* server.expire(server.sessions()[1] ?? "")
      const before = server.requests.length
      const ping = post(proxy.url, request(1, "ping"), session)
      expect(yield* ping).toMatchObject({
        status: 404,
        text: expect.stringContaining(`"message":"Session not found"`)
      })
      expect(yield* proxy.untilHealth(({ sessions }) => sessions === 1)).toMatchObject({ status: "ok" })
      expect(yield* ping).toMatchObject({ status: 404, text: expect.stringContaining("initialize") })
      // The upstream gets neither the second request nor a DELETE.
      expect(server.requests.slice(before)).toHaveLength(1)
      expect((yield* post(proxy.url, request(1, "ping"), other.session)).status).toBe(200)
    })
  )
})

describe("an upstream without GET", () => {
  it.scopedLive("can respond with 404, as many frameworks do, and keeps its session", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({ GET: ({ answer }) => answer(404, {}, "Cannot GET /mcp") })
      const proxy = yield* startProxy(server)
      const { session } = yield* initialize(proxy.url)
      expect(statusAndText(yield* get(proxy.url, session))).toEqual({ status: 404, text: "Cannot GET /mcp" })
      expect((yield* post(proxy.url, request(1, "ping"), session)).status).toBe(200)
      expect(yield* proxy.health).toMatchObject({ sessions: 1 })
    })
  )
})
