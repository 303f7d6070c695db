import { describe, expect, it, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { connect1, connect2 } from "../fixtures/Clients.js"
import { eventOf, openStream } from "../fixtures/events.js"
import { makeLegacyServer } from "../fixtures/LegacyServer.js"
import { makeModernServer, type ModernServer } from "../fixtures/ModernServer.js"
import { makePlainServer, type PlainServer, type Script } from "../fixtures/PlainServer.js"
import { type Proxy, startProxy } from "../fixtures/Proxy.js"
import { callTool, del, get, initialize, post, request, stream } from "../fixtures/RawClient.js"

const version = { "mcp-protocol-version": "2026-07-28" }

const envelope = {
  "io.modelcontextprotocol/protocolVersion": "2026-07-28",
  "io.modelcontextprotocol/clientInfo": { name: "raw-client", version: "1.0.0" },
  "io.modelcontextprotocol/clientCapabilities": {}
}

class Modern extends Context.Tag("test/Modern")<
  Modern,
  { readonly server: ModernServer; readonly proxy: Proxy }
>() {}

layer(
  Layer.scoped(
    Modern,
    Effect.gen(function* () {
      const server = yield* makeModernServer()
      return { server, proxy: yield* startProxy(server) }
    })
  ),
  { excludeTestServices: true }
)("between a client and a server of 2026-07-28", (it) => {
  for (const era of ["auto", "modern"] as const) {
    const asked = era === "auto" ? "that finds out the revision by itself" : "that insists on the revision"

    it.scoped(`a client ${asked} calls tools without a session`, () =>
      Effect.gen(function* () {
        const { proxy, server } = yield* Modern
        yield* server.forget
        const client = yield* connect2(proxy.url, { era })
        expect(client.protocolVersion()).toBe("2026-07-28")
        const { tools } = yield* Effect.promise(() => client.client.listTools())
        expect(tools.map(({ name }) => name)).toEqual(["echo", "progress", "hang"])
        expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
        const seen: Array<number> = []
        yield* client.call("progress", { steps: 10 }, { onProgress: (p) => seen.push(p.progress) })
        expect(seen).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
        expect(client.sessionId()).toBeUndefined()
        expect(server.requests.map(({ headers, method }) => [method, headers["mcp-method"]])).toEqual([
          ["POST", "server/discover"],
          ["POST", "tools/list"],
          ["POST", "tools/call"],
          ["POST", "tools/call"]
        ])
        expect(server.requests.some(({ headers }) => "mcp-session-id" in headers)).toBe(false)
        expect(yield* proxy.health).toMatchObject({ sessions: 0, stateless: 0 })
      })
    )

    it.scoped(`a client ${asked} cancels a call at the server`, () =>
      Effect.gen(function* () {
        const { proxy, server } = yield* Modern
        const before = server.cancellations.length
        const client = yield* connect2(proxy.url, { era })
        const call = yield* Effect.fork(client.call("hang"))
        yield* server.until(() => server.pending().length === 1)
        yield* Fiber.interrupt(call)
        yield* server.until(() => server.cancellations.length === before + 1)
        expect(server.pending()).toEqual([])
        yield* proxy.untilHealth(({ stateless }) => stateless === 0)
      })
    )

    it.scoped(`a client ${asked} is told of changes for as long as it listens`, () =>
      Effect.gen(function* () {
        const { proxy, server } = yield* Modern
        const client = yield* connect2(proxy.url, { era })
        const subscription = yield* Effect.promise(() => client.client.listen({ toolsListChanged: true }))
        const listening = server.requests.findLast(({ body }) => body.includes("subscriptions/listen"))
        yield* server.bump
        yield* client.until(() => client.notifications.length === 1)
        yield* server.bump
        yield* client.until(() => client.notifications.length === 2)
        expect(client.notifications).toMatchObject([
          { method: "notifications/tools/list_changed" },
          { method: "notifications/tools/list_changed" }
        ])
        expect(listening?.end).toBeUndefined()
        yield* Effect.promise(() => subscription.close())
        yield* server.until(() => listening?.end === "dropped")
        yield* proxy.untilHealth(({ stateless }) => stateless === 0)
        expect(client.errors).toEqual([])
      })
    )
  }

  it.scoped("a subscription keeps its id and the type of the id", () =>
    Effect.gen(function* () {
      const { proxy, server } = yield* Modern
      for (const id of [5, "5"]) {
        const listen = { _meta: envelope, notifications: { toolsListChanged: true } }
        const subscription = yield* stream(proxy.url, {
          method: "POST",
          headers: { ...version, "mcp-method": "subscriptions/listen" },
          body: request(id, "subscriptions/listen", listen)
        })
        yield* subscription.event(0)
        yield* server.bump
        yield* subscription.event(1)
        const told = { params: { _meta: { "io.modelcontextprotocol/subscriptionId": id } } }
        expect(subscription.messages()).toMatchObject([told, told])
        yield* subscription.drop
      }
    })
  )

  it.scoped("the server alone judges a request", () =>
    Effect.gen(function* () {
      const { proxy, server } = yield* Modern
      const ask = (url: string) =>
        Effect.forEach(
          [
            post(url, request(1, "tools/list", { _meta: envelope }), {
              ...version,
              "mcp-method": "tools/call"
            }),
            post(url, request("2", "tools/list"), { ...version, "mcp-method": "tools/list" }),
            post(url, request(3, "tools/list"), { "mcp-protocol-version": "2099-01-01" }),
            post(url, request(4, "tools/list", { _meta: envelope })),
            post(url, request(5, "initialize", { _meta: envelope }), version),
            post(url, request(6, "no/such", { _meta: envelope }), { ...version, "mcp-method": "no/such" })
          ],
          (asking) =>
            Effect.map(asking, ({ headers, status, text }) => ({
              status,
              text,
              type: headers["content-type"]
            }))
        )
      const answers = yield* ask(proxy.url)
      expect(answers).toEqual(yield* ask(server.url))
      expect(answers.map(({ status }) => status)).not.toContain(200)
      expect(yield* proxy.health).toMatchObject({ sessions: 0 })
    })
  )

  it.scoped("a client of an older revision hears the server's own refusal", () =>
    Effect.gen(function* () {
      const { proxy } = yield* Modern
      expect((yield* Effect.flip(connect1(proxy.url))).message).toContain("-32022")
      expect(yield* proxy.health).toMatchObject({ sessions: 0 })
    })
  )
})

class Plain extends Context.Tag("test/Plain")<
  Plain,
  { readonly server: PlainServer; readonly proxy: Proxy }
>() {}

const script: Script = {
  "test/session": ({ result }) => result({}, { "mcp-session-id": "minted", "x-own": "yes" }),
  "test/stream": ({ id, response }) => {
    openStream(response)
    response.write(eventOf({ jsonrpc: "2.0", method: "notifications/x", params: { id } }))
  },
  "test/broken": ({ response }) => {
    openStream(response)
    response.write(": working on it\n\n", () => response.destroy())
  }
}

layer(
  Layer.scoped(
    Plain,
    Effect.gen(function* () {
      const server = yield* makePlainServer(script)
      return { server, proxy: yield* startProxy(server, ["--multi-session", "--max-stateless", "2"]) }
    })
  ),
  { excludeTestServices: true }
)("a request of 2026-07-28", (it) => {
  it.scoped("is cancelled upstream when its client goes, before and after the head of the answer", () =>
    Effect.gen(function* () {
      const { proxy, server } = yield* Plain
      yield* server.forget
      const waiting = yield* Effect.fork(post(proxy.url, request(1, "hang"), version))
      yield* server.request(0)
      yield* Fiber.interrupt(waiting)
      expect(yield* server.closed(0)).toMatchObject({ end: "dropped", status: undefined })

      const reading = yield* stream(proxy.url, {
        method: "POST",
        headers: version,
        body: request(2, "test/stream")
      })
      yield* reading.event(0)
      yield* reading.drop
      expect(yield* server.closed(1)).toMatchObject({ end: "dropped", status: 200 })
      // In this revision the closed connection is the cancel, and no message says it again.
      expect(server.requests).toHaveLength(2)
      yield* proxy.untilHealth(({ stateless }) => stateless === 0)
    })
  )

  it.scoped("neither gets a session id nor sends one on", () =>
    Effect.gen(function* () {
      const { proxy, server } = yield* Plain
      yield* server.forget
      const { session } = yield* initialize(proxy.url)
      for (const stray of [undefined, "stray", session["mcp-session-id"]]) {
        const headers = { ...version, "mcp-session-id": stray }
        const answer = yield* post(proxy.url, request(1, "test/session"), headers)
        expect(answer).toMatchObject({ status: 200, headers: { "x-own": "yes" } })
        expect(answer.headers).not.toHaveProperty("mcp-session-id")
      }
      // The claim in the body is enough where there is no session id.
      const claiming = yield* post(proxy.url, request(2, "test/session", { _meta: envelope }))
      expect(claiming.status).toBe(200)
      expect(claiming.headers).not.toHaveProperty("mcp-session-id")
      expect(server.requests).toHaveLength(5)
      expect(server.requests.some(({ headers }) => "mcp-session-id" in headers)).toBe(false)
      expect((yield* del(proxy.url, session)).status).toBe(200)
    })
  )

  it.scoped("may be a POST only, and does not touch the session that it names", () =>
    Effect.gen(function* () {
      const { proxy, server } = yield* Plain
      const { session } = yield* initialize(proxy.url)
      yield* server.forget
      for (const headers of [version, { ...session, ...version }]) {
        for (const ask of [get, del]) {
          const refused = yield* ask(proxy.url, headers)
          expect(refused).toMatchObject({ status: 405, headers: { allow: expect.stringContaining("POST") } })
        }
      }
      expect(server.requests).toEqual([])
      expect((yield* post(proxy.url, request(1, "ping"), session)).status).toBe(200)
      expect((yield* del(proxy.url, session)).status).toBe(200)
    })
  )

  it.scoped("crosses with its own headers and its bytes as they are", () =>
    Effect.gen(function* () {
      const { proxy, server } = yield* Plain
      yield* server.forget
      const own = {
        ...version,
        "mcp-method": "tools/call",
        "mcp-name": "=?base64?5pel5pys?=",
        "mcp-param-region": "eu-west",
        "mcp-param-text": "=?base64?IA==?=",
        authorization: "Bearer token"
      }
      const body = `{ "id":1.0,"method":"tools/call", "jsonrpc":"2.0","params":{"a":"\\u00e9","a":1e2}}\n`
      expect((yield* post(proxy.url, body, own)).status).toBe(200)
      expect(server.requests).toMatchObject([{ method: "POST", body, headers: own }])
    })
  )

  it.scoped("is answered with an error when the upstream breaks off", () =>
    Effect.gen(function* () {
      const { proxy } = yield* Plain
      const body = request("b", "test/broken")
      const broken = yield* stream(proxy.url, { method: "POST", headers: version, body })
      expect(yield* broken.end).toBe("ended")
      expect(broken.messages()).toMatchObject([{ id: "b", error: { code: -32000 } }])
    })
  )

  it.scoped("finds a bound on how many run at once, and its place free again after one has gone", () =>
    Effect.gen(function* () {
      const { proxy, server } = yield* Plain
      const open = (id: number) =>
        stream(proxy.url, { method: "POST", headers: version, body: request(id, "test/stream") })
      const first = yield* open(1)
      const second = yield* open(2)
      yield* second.event(0)
      const refused = yield* post(proxy.url, request(3, "ping"), version)
      expect(refused).toMatchObject({
        status: 503,
        headers: { "retry-after": expect.stringMatching(/^\d+$/) },
        text: expect.stringContaining("--max-stateless 2")
      })
      // Sessions are bounded on their own.
      const { session } = yield* initialize(proxy.url)
      expect((yield* post(proxy.url, request(1, "ping"), session)).status).toBe(200)
      yield* first.drop
      yield* proxy.untilHealth(({ stateless }) => stateless === 1)
      expect((yield* post(proxy.url, request(3, "ping"), version)).status).toBe(200)
      yield* del(proxy.url, session)
      yield* second.drop
      yield* server.until(() => server.requests.every(({ end }) => end !== undefined))
    })
  )
})

describe("one endpoint", () => {
  it.scopedLive("serves both eras at once", () =>
    Effect.gen(function* () {
      const server = yield* makeModernServer({ legacy: true })
      const proxy = yield* startProxy(server)
      const old1 = yield* connect1(proxy.url)
      const old2 = yield* connect2(proxy.url)
      const new2 = yield* connect2(proxy.url, { era: "auto" })
      expect([old1, old2, new2].map((client) => client.protocolVersion())).toEqual([
        "2025-11-25",
        "2025-11-25",
        "2026-07-28"
      ])
      const hanging = yield* Effect.fork(new2.call("hang"))
      yield* server.until(() => server.pending().length === 1)
      for (const client of [old1, old2, new2]) {
        expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
      }
      expect(old1.sessionId()).not.toBe(old2.sessionId())
      expect(new2.sessionId()).toBeUndefined()
      expect(yield* proxy.health).toMatchObject({ sessions: 2, stateless: 1 })
      yield* Fiber.interrupt(hanging)
    })
  )

  it.scopedLive(
    "leads a client that would rather speak 2026-07-28 to a session, if the server has only these",
    () =>
      Effect.gen(function* () {
        const server = yield* makeLegacyServer()
        const proxy = yield* startProxy(server)
        const client = yield* connect2(proxy.url, { era: "auto" })
        expect(client.protocolVersion()).toBe("2025-11-25")
        expect(client.sessionId()).toBeDefined()
        expect(server.sessions()).toHaveLength(1)
        expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
        const refused = yield* post(proxy.url, callTool(1, "echo", { text: "hi", _meta: envelope }), version)
        expect(refused.status).toBe(400)
      })
  )
})
