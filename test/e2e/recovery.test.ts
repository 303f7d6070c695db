import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { entry } from "../fixtures/Cli.js"
import { officialClients, officialStdioClients } from "../fixtures/Clients.js"
import { eventOf, openStream } from "../fixtures/events.js"
import { startEverything } from "../fixtures/Everything.js"
import { type LegacyServer, makeLegacyServer } from "../fixtures/LegacyServer.js"
import { initializeResult, makePlainServer, type PlainServer, type Script } from "../fixtures/PlainServer.js"
import { startProxy, upstreamArgs } from "../fixtures/Proxy.js"
import { callTool, initialize, post, request, stream } from "../fixtures/RawClient.js"
import { ERROR, expectError, NO_SESSION } from "../fixtures/RpcError.js"

// Upstreams that lose a session: the client session continues with a new upstream session.

/** Returns the bodies of the POST requests with an upstream session id. */
const sentTo = ({ requests }: Pick<PlainServer, "requests">, session: string): ReadonlyArray<unknown> =>
  requests
    .filter(({ headers, method }) => method === "POST" && headers["mcp-session-id"] === session)
    .map(({ body }): unknown => JSON.parse(body))

const noSession = {
  jsonrpc: "2.0",
  id: null,
  error: { code: ERROR, message: "Bad Request: No valid session ID provided" }
}

/** The ways in which servers report an unknown session. */
const denials: ReadonlyArray<readonly [how: string, status: number, body?: object]> = [
  ["with a 404", 404],
  ["with a 400 and an unspecific JSON-RPC error", 400, noSession],
  ["with a 400 that is not JSON-RPC", 400, { error: "no such session" }],
  ["with an empty 400", 400]
]

const withCapabilities = (capabilities: object, others: Script = {}): Script => {
  let sessions = 0
  return {
    initialize: ({ result }) =>
      result({ ...initializeResult, capabilities }, { "mcp-session-id": `up-${++sessions}` }),
    ...others
  }
}

describe("a session that the upstream denies", () => {
  it.scopedLive.each(denials)("%s is opened again, and the call is answered", ([, status, body]) =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const proxy = yield* startProxy(server)
      const { session } = yield* initialize(proxy.url)
      server.deny("up-1", status, body)
      const answer = yield* post(proxy.url, callTool("a", "x"), { ...session, authorization: "Bearer new" })
      expect(answer).toMatchObject({
        status: 200,
        text: JSON.stringify({ jsonrpc: "2.0", id: "a", result: {} })
      })
      expect(sentTo(server, "up-2")).toMatchObject([
        { method: "notifications/initialized" },
        { method: "tools/call", id: "a" }
      ])
      const [first, second] = server.requests.filter(({ body }) => body.includes(`"initialize"`))
      const params = (body = "") => body.slice(body.indexOf(`"params"`))
      expect(params(second?.body)).toBe(params(first?.body))
      expect(second?.headers).toMatchObject({ authorization: "Bearer new" })
      expect(second?.headers["mcp-session-id"]).toBeUndefined()
      expect((yield* post(proxy.url, request("b", "ping"), session)).status).toBe(200)
      expect(yield* proxy.health).toMatchObject({ sessions: 1, bufferedBytes: 0 })
    })
  )

  it.scopedLive("is opened again once for many concurrent calls", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const proxy = yield* startProxy(server)
      const { session } = yield* initialize(proxy.url)
      server.deny("up-1", 404)
      const calls = Array.from({ length: 20 }, (_, id) => post(proxy.url, callTool(id, "x"), session))
      const answers = yield* Effect.all(calls, { concurrency: "unbounded" })
      expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 20 }, () => 200))
      expect(server.count("initialize")).toBe(2)
      expect(sentTo(server, "up-2").length).toBe(21)
    })
  )

  it.scopedLive("is kept if only one request is invalid", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({
        "tools/call": ({ answer }) =>
          answer(400, { "content-type": "application/json" }, JSON.stringify(noSession))
      })
      const proxy = yield* startProxy(server)
      const { session } = yield* initialize(proxy.url)
      expect(yield* post(proxy.url, callTool("a", "x"), session)).toMatchObject({
        status: 400,
        text: JSON.stringify(noSession)
      })
      expect(server.count("initialize")).toBe(1)
      expect(server.count("ping")).toBe(1)
    })
  )

  it.scopedLive(
    "gets the client's log level and subscriptions again, but no message of the old session",
    () =>
      Effect.gen(function* () {
        const server = yield* makePlainServer()
        const proxy = yield* startProxy(server)
        const { session } = yield* initialize(proxy.url)
        const call = (id: number, method: string, params: object) =>
          post(proxy.url, request(id, method, params), session)
        yield* call(1, "logging/setLevel", { level: "debug" })
        yield* call(2, "logging/setLevel", { level: "error" })
        for (const uri of ["a://1", "a://2"]) yield* call(3, "resources/subscribe", { uri })
        yield* call(4, "resources/unsubscribe", { uri: "a://1" })
        server.deny("up-1", 404)
        const late: ReadonlyArray<object> = [
          { jsonrpc: "2.0", method: "notifications/progress", params: { progressToken: 9, progress: 1 } },
          { jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId: 9 } },
          { jsonrpc: "2.0", method: "notifications/initialized" },
          { jsonrpc: "2.0", id: 0, result: {} }
        ]
        const answers = yield* Effect.forEach(late, (message) => post(proxy.url, message, session), {
          concurrency: "unbounded"
        })
        expect(answers.map(({ status }) => status)).toEqual([202, 202, 202, 202])
        yield* post(proxy.url, { jsonrpc: "2.0", method: "notifications/roots/list_changed" }, session)
        expect(sentTo(server, "up-2")).toMatchObject([
          { method: "notifications/initialized" },
          { method: "logging/setLevel", params: { level: "error" } },
          { method: "resources/subscribe", params: { uri: "a://2" } },
          { method: "notifications/roots/list_changed" }
        ])
      })
  )

  it.scopedLive("ends with 404 if the server's capabilities changed", () =>
    Effect.gen(function* () {
      let capabilities: object = { tools: { listChanged: true }, logging: {} }
      let sessions = 0
      const server = yield* makePlainServer({
        initialize: ({ result }) =>
          result({ ...initializeResult, capabilities }, { "mcp-session-id": `up-${++sessions}` })
      })
      const proxy = yield* startProxy(server)
      const { session } = yield* initialize(proxy.url)
      server.deny("up-1", 404)
      capabilities = { tools: {}, logging: {}, prompts: {} }
      const refused = yield* post(proxy.url, callTool("a", "x"), session)
      expectError(refused, { status: 404, code: NO_SESSION, id: "a", message: /initialize/ })
      expect(yield* proxy.untilHealth(({ sessions }) => sessions === 0)).toMatchObject({ bufferedBytes: 0 })
      // The new upstream session is not used, so it is ended.
      yield* server.until(() => server.count("DELETE") === 1)
      expect(server.count("tools/call")).toBe(1)
    })
  )

  it.scopedLive("notifies the client, cancels the old server's requests, and drops responses to them", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer(
        withCapabilities(
          { logging: {}, tools: { listChanged: true } },
          {
            GET: ({ request, response }) => {
              openStream(response)
              const isFirst = request.headers["mcp-session-id"] === "up-1"
              const serverRequest = {
                jsonrpc: "2.0",
                id: 0,
                method: isFirst ? "roots/list" : "sampling/createMessage"
              }
              response.write(eventOf(serverRequest))
            },
            "tools/list": ({ request, result }) =>
              result({ tools: request.headers["mcp-session-id"] === "up-1" ? [] : [{ name: "new" }] })
          }
        )
      )
      const proxy = yield* startProxy(server)
      const { session } = yield* initialize(proxy.url)
      yield* post(proxy.url, request("list", "tools/list"), session)
      const listening = yield* stream(proxy.url, { headers: session })
      yield* listening.until(() => listening.messages().length === 1)
      server.deny("up-1", 404)
      expect((yield* post(proxy.url, callTool("a", "x"), session)).status).toBe(200)
      yield* listening.until(() => listening.messages().length === 5)
      expect(listening.messages()).toMatchObject([
        { id: 0, method: "roots/list" },
        { method: "notifications/cancelled", params: { requestId: 0 } },
        { method: "notifications/message", params: { level: "warning" } },
        { method: "notifications/tools/list_changed" },
        { id: 0, method: "sampling/createMessage" }
      ])
      const respond = (result: object) => post(proxy.url, { jsonrpc: "2.0", id: 0, result }, session)
      expect((yield* respond({ model: "x" })).status).toBe(202)
      // This response is for the request of the old session, whose ids began at 0 too.
      expect((yield* respond({ roots: [] })).status).toBe(202)
      expect(sentTo(server, "up-2").slice(-1)).toMatchObject([{ id: 0, result: { model: "x" } }])
      expect(listening.events.length).toBeGreaterThan(0)
    })
  )

  it.scopedLive("is left to the client with --recover false", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const proxy = yield* startProxy(server, ["--multi-session", "--recover", "false"])
      const { session } = yield* initialize(proxy.url)
      server.deny("up-1", 404)
      expect((yield* post(proxy.url, callTool("a", "x"), session)).status).toBe(404)
      expect(server.count("initialize")).toBe(1)
    })
  )
})

const CLIENTS = 50

/** Counts the successful echo calls by text, over all servers. */
const echoes = (servers: ReadonlyArray<LegacyServer>): ReadonlyMap<string, number> => {
  const counts = new Map<string, number>()
  for (const { body, status } of servers.flatMap(({ requests }) => requests)) {
    if (status !== 200) continue
    const text = /"text":"(call \d+ of \d+)"/.exec(body)?.[1]
    if (text !== undefined) counts.set(text, (counts.get(text) ?? 0) + 1)
  }
  return counts
}

describe("after a server restart", () => {
  it.scopedLive(`${CLIENTS} sessions continue, and only calls in flight fail`, () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const proxy = yield* startProxy(server)
      const connect = (index: number) => (officialClients[index % officialClients.length] ?? [])[1]
      const clients = yield* Effect.forEach(
        Array.from({ length: CLIENTS }, (_, index) => index),
        (index) => connect(index)?.(proxy.url) ?? Effect.dieMessage("no client"),
        { concurrency: 10 }
      )
      const ids = clients.map(({ sessionId }) => sessionId())
      const hanging = yield* Effect.forEach(clients.slice(0, 5), ({ call }) =>
        Effect.fork(Effect.flip(call("hang")))
      )
      yield* server.until(() => server.pending().length === 5)
      yield* server.kill
      // After these errors the proxy knows that its connections are closed, and sends no request on one of them.
      for (const call of hanging) expect((yield* Fiber.join(call)).message).toMatch(/may have carried/)
      const calls = yield* Effect.forEach(clients, ({ call }, index) =>
        Effect.fork(call("echo", { text: `call 1 of ${index}` }))
      )
      const again = yield* makeLegacyServer({ port: server.port })
      for (const [index, call] of calls.entries()) {
        expect(yield* Fiber.join(call)).toBe(`call 1 of ${index}`)
      }
      yield* Effect.forEach(clients, ({ call }, index) => call("echo", { text: `call 2 of ${index}` }), {
        concurrency: "unbounded"
      })
      expect(clients.map(({ sessionId }) => sessionId())).toEqual(ids)
      expect(again.sessions().length).toBe(CLIENTS)
      expect(Array.from(echoes([server, again]).values())).toEqual(
        Array.from({ length: 2 * CLIENTS }, () => 1)
      )
      expect(yield* proxy.health).toMatchObject({ sessions: CLIENTS })
    })
  )

  it.scopedLive("the open streams of clients continue without a request of the client", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const proxy = yield* startProxy(server)
      const [, connect] = officialClients[0] ?? []
      const client = yield* connect?.(proxy.url) ?? Effect.dieMessage("no client")
      yield* server.until(() => server.counts.getStreams === 1)
      yield* server.kill
      const again = yield* makeLegacyServer({ port: server.port })
      yield* again.until(() => again.counts.getStreams === 1)
      expect(yield* client.call("bump")).toBe("bumped")
      yield* client.until(() => client.notifications.some(({ method }) => method.endsWith("list_changed")))
      expect(again.counts.initialize).toBe(1)
    })
  )

  it.scopedLive.each(officialStdioClients)("the client of `forward stdio` continues (%s)", ([, connect]) =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const args = [entry, "forward", "stdio", ...upstreamArgs(server)]
      const client = yield* connect({ command: process.execPath, args })
      yield* server.until(() => server.counts.getStreams === 1)
      yield* server.kill
      const again = yield* makeLegacyServer({ port: server.port })
      expect(yield* client.call("bump")).toBe("bumped")
      yield* again.until(() => again.counts.getStreams === 1)
      expect(yield* client.call("bump")).toBe("bumped")
      yield* client.until(() => client.notifications.some(({ method }) => method.endsWith("list_changed")))
      expect(again.counts.initialize).toBe(1)
    })
  )

  it.scopedLive("of the official demo server, which has its own error, a session continues", () =>
    Effect.gen(function* () {
      const server = yield* startEverything()
      const proxy = yield* startProxy(server)
      const [, connect] = officialClients[0] ?? []
      const client = yield* connect?.(proxy.url) ?? Effect.dieMessage("no client")
      expect(yield* client.call("echo", { message: "one" })).toBe("Echo: one")
      yield* server.signal("SIGKILL")
      yield* server.exit
      yield* startEverything({ port: server.port })
      expect(yield* client.call("echo", { message: "two" })).toBe("Echo: two")
    })
  )
})
