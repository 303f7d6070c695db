import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { type AnyConnection, type ClientError, officialClients } from "../fixtures/Clients.js"
import { end, makeDurable, recordsIn, retry } from "../fixtures/Durable.js"
import { type LegacyServer, makeLegacyServer } from "../fixtures/LegacyServer.js"
import { makePlainServer } from "../fixtures/PlainServer.js"
import { startProxy } from "../fixtures/Proxy.js"
import { callTool, del, initialize, messages, post, request, stream } from "../fixtures/RawClient.js"
import { ERROR, expectError, NO_SESSION } from "../fixtures/RpcError.js"
import { makeStdioServer, type StdioServer } from "../fixtures/StdioServer.js"
import type { ToolServer } from "../fixtures/ToolServer.js"

// Sessions that go on in the next process, whichever way the one before it has ended.

const signals = ["SIGKILL", "SIGTERM"] as const

/** One official client of each line. */
const connectAll = (url: string) =>
  Effect.forEach(officialClients, ([, connect]) => connect(url), { concurrency: "unbounded" })

const ids = (clients: ReadonlyArray<AnyConnection>) => clients.map(({ sessionId }) => sessionId())

/** How often the server was given a call with this text in it. */
const given = ({ requests }: Pick<LegacyServer, "requests">, text: string): number =>
  requests.filter(({ body, method }) => method === "POST" && body.includes(text)).length

/** Has the server say something in each of its sessions, behind the proxy's back. */
const say = (server: LegacyServer, text: string) =>
  Effect.forEach(
    server.sessions(),
    (id, index) =>
      post(server.url, callTool("aside", "log", { text: `${text} to ${index}` }), {
        "mcp-session-id": id,
        "mcp-protocol-version": "2025-11-25"
      }),
    { discard: true }
  )

/** What a client has been told so. */
const heard = ({ notifications }: AnyConnection): ReadonlyArray<string> =>
  notifications.flatMap(({ params }) =>
    typeof params === "object" && params !== null && "data" in params
      ? [String(params.data).replace(/ to \d+$/, "")]
      : []
  )

/** A call of each client whose answer has begun, and does not go on before the server is told to. */
const begin = (server: ToolServer, clients: ReadonlyArray<AnyConnection>) =>
  Effect.gen(function* () {
    const calls = yield* Effect.forEach(clients, ({ call }) =>
      Effect.gen(function* () {
        const begun = yield* Deferred.make<void>()
        const onProgress = () => Deferred.unsafeDone(begun, Effect.void)
        const fiber = yield* Effect.fork(
          Effect.flip(call("progress", { steps: 1, until: "ever" }, { onProgress }))
        )
        yield* Deferred.await(begun)
        return fiber
      })
    )
    yield* server.until(() => server.pending().length === clients.length)
    return calls
  })

const expectErrors = (calls: ReadonlyArray<Fiber.Fiber<ClientError, unknown>>, message: RegExp) =>
  Effect.forEach(calls, (call) =>
    Effect.map(Fiber.join(call), (error) => expect(error.message).toMatch(message))
  )

/** Every client makes a call in the session that it had, and the server is given each once. */
const expectGoesOn = (
  server: LegacyServer,
  clients: ReadonlyArray<AnyConnection>,
  before: ReadonlyArray<string | undefined>
) =>
  Effect.gen(function* () {
    const upstream = server.sessions()
    for (const [index, { call }] of clients.entries()) {
      const text = `after the restart, ${index}`
      expect(yield* call("echo", { text })).toBe(text)
      expect(given(server, text)).toBe(1)
    }
    expect(ids(clients)).toEqual(before)
    expect(server.sessions()).toEqual(upstream)
    expect(server.counts).toMatchObject({ initialize: clients.length, delete: 0 })
  })

for (const signal of signals) {
  describe.concurrent(`a proxy that ends by ${signal} and is started again`, () => {
    it.scopedLive("goes on with idle sessions, whose clients are told all that they missed, once", () =>
      Effect.gen(function* () {
        // Answers are JSON: what is said besides goes out on the standalone stream.
        const server = yield* makeLegacyServer({ eventStore: true, json: true })
        const { holds, start } = yield* makeDurable(server)
        const proxy = yield* start()
        const clients = yield* connectAll(proxy.url)
        const before = ids(clients)
        yield* server.until(() => server.counts.getStreams === clients.length)
        yield* say(server, "one")
        for (const client of clients) yield* client.until(() => heard(client).length === 1)
        yield* Effect.forEach(clients, (_, index) => holds(`one to ${index}`))
        yield* end(proxy, signal)
        yield* say(server, "two")
        const again = yield* start()
        for (const client of clients) yield* client.until(() => heard(client).length === 2)
        yield* again.untilHealth(({ streams }) => streams === clients.length)
        yield* say(server, "three")
        for (const client of clients) yield* client.until(() => heard(client).length === 3)
        yield* expectGoesOn(server, clients, before)
        for (const client of clients) expect(heard(client)).toEqual(["one", "two", "three"])
      })
    )

    it.scopedLive("finishes the calls of a server that can go on with its streams", () =>
      Effect.gen(function* () {
        const server = yield* makeLegacyServer({ eventStore: true })
        const { holds, start } = yield* makeDurable(server)
        const proxy = yield* start(["--shutdown-timeout", "100ms"])
        const clients = yield* connectAll(proxy.url)
        const before = ids(clients)
        const calls = yield* Effect.forEach(clients, (client, index) =>
          Effect.gen(function* () {
            const progress: Array<number> = []
            const onProgress = (told: { readonly progress: number }) => progress.push(told.progress)
            const args = { steps: 3 + index, until: `end ${index}` }
            return { progress, fiber: yield* Effect.fork(client.call("progress", args, { onProgress })) }
          })
        )
        yield* server.until(() => server.pending().length === clients.length)
        yield* Effect.forEach(calls, (_, index) => holds(`"progress":${3 + index},"total":${3 + index}`))
        yield* end(proxy, signal)
        // The first comes while there is no proxy, the second when it is there again.
        yield* server.release("end 0")
        const again = yield* start()
        yield* again.untilHealth(({ sessions }) => sessions === clients.length)
        yield* server.release("end 1")
        for (const [index, { fiber, progress }] of calls.entries()) {
          expect(yield* Fiber.join(fiber)).toBe(`${3 + index} steps`)
          expect(progress).toEqual(Array.from({ length: 3 + index }, (_, step) => step + 1))
          expect(given(server, `"until":"end ${index}"`)).toBe(1)
        }
        yield* expectGoesOn(server, clients, before)
      })
    )

    it.scopedLive("ends the calls of a server that cannot with an error, and sends none twice", () =>
      Effect.gen(function* () {
        const server = yield* makeLegacyServer()
        const { start } = yield* makeDurable(server)
        const proxy = yield* start(["--shutdown-timeout", "100ms"])
        const clients = yield* connectAll(proxy.url)
        const before = ids(clients)
        const calls = yield* begin(server, clients)
        yield* end(proxy, signal)
        if (signal === "SIGTERM") yield* expectErrors(calls, /shutting down/)
        yield* start()
        if (signal === "SIGKILL") yield* expectErrors(calls, /may have carried out|no longer kept/)
        expect(given(server, `"until":"ever"`)).toBe(clients.length)
        yield* expectGoesOn(server, clients, before)
      })
    )
  })
}

describe.concurrent("a session that an earlier process has left", () => {
  it.scopedLive("has its streams ended with a time to come back, and its server left alone", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer({ eventStore: true })
      const { start } = yield* makeDurable(server)
      const proxy = yield* start(["--shutdown-timeout", "100ms"])
      const { session } = yield* initialize(proxy.url)
      const listening = yield* stream(proxy.url, { headers: session })
      const calling = yield* stream(proxy.url, {
        method: "POST",
        headers: session,
        body: callTool(1, "wait", { until: "go" })
      })
      yield* proxy.signal("SIGTERM")
      for (const { end, text } of [listening, calling]) {
        expect(yield* end).toBe("ended")
        expect(text().endsWith(`\n\n${retry}`)).toBe(true)
      }
      expect(yield* proxy.exit).toEqual({ code: 0, signal: null })
      expect(server.counts.delete).toBe(0)
      expect(server.sessions()).toHaveLength(1)
    })
  )

  it.scopedLive("is revived once, however many requests ask for it", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const { start } = yield* makeDurable(server)
      const proxy = yield* start()
      const { session } = yield* initialize(proxy.url)
      yield* end(proxy, "SIGKILL")
      const again = yield* start()
      expect(yield* again.health).toMatchObject({ sessions: 0 })
      const calls = Array.from({ length: 30 }, (_, id) => post(again.url, callTool(id, "x"), session))
      const answers = yield* Effect.all(calls, { concurrency: "unbounded" })
      expect(answers.map((answer) => [answer.status, messages(answer)])).toEqual(
        answers.map((_, id) => [200, [{ jsonrpc: "2.0", id, result: {} }]])
      )
      expect(yield* again.health).toMatchObject({ sessions: 1, bufferedBytes: 0 })
      expect(again.stderr().filter((line) => line.includes("session revived"))).toHaveLength(1)
      expect([server.count("initialize"), server.count("tools/call")]).toEqual([1, 30])
      for (const { headers } of server.requests.slice(1)) {
        expect(headers).toMatchObject({ "mcp-session-id": "up-1", "mcp-protocol-version": "2025-11-25" })
      }
    })
  )

  it.scopedLive("is ended by a DELETE, at its server too, before anything has woken it", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const { start } = yield* makeDurable(server)
      const proxy = yield* start()
      const { session } = yield* initialize(proxy.url)
      yield* end(proxy, "SIGKILL")
      const again = yield* start()
      expect((yield* del(again.url, { ...session, authorization: "Bearer of the client" })).status).toBe(200)
      expect(server.requests.at(-1)).toMatchObject({
        method: "DELETE",
        headers: { "mcp-session-id": "up-1", authorization: "Bearer of the client" }
      })
      const late = yield* post(again.url, request("late", "ping"), session)
      expectError(late, { status: 404, code: NO_SESSION, id: "late", message: /initialize/ })
      expect(yield* again.health).toMatchObject({ sessions: 0 })
      expect(server.requests).toHaveLength(2)
    })
  )

  it.scopedLive("waits in the file where there is no place for it", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const { start } = yield* makeDurable(server)
      const proxy = yield* start()
      const [one, two] = [yield* initialize(proxy.url), yield* initialize(proxy.url)]
      yield* end(proxy, "SIGKILL")
      const again = yield* start(["--max-sessions", "1"])
      expect((yield* post(again.url, request(1, "ping"), one.session)).status).toBe(200)
      const refused = yield* post(again.url, request(2, "ping"), two.session)
      expectError(refused, { status: 503, code: ERROR, id: 2, message: /--max-sessions/ })
      expect(refused.headers["retry-after"]).toMatch(/^\d+$/)
      const opened = yield* initialize(again.url)
      expect(opened.answer.status).toBe(503)
      expect((yield* del(again.url, one.session)).status).toBe(200)
      expect((yield* post(again.url, request(3, "ping"), two.session)).status).toBe(200)
      expect(server.requests.at(-1)?.headers).toMatchObject({ "mcp-session-id": "up-2" })
    })
  )

  it.scopedLive("and that has expired since is ended at its server, and gone", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const { start } = yield* makeDurable(server)
      // A client that listens keeps the session alive for as long as the process is.
      const proxy = yield* start(["--session-timeout", "2s", "--cleanup-interval", "500ms"])
      const { session } = yield* initialize(proxy.url)
      yield* stream(proxy.url, { headers: session })
      yield* end(proxy, "SIGKILL")
      // Then both times have passed.
      yield* Effect.sleep(2_500)
      const again = yield* start(["--cleanup-interval", "1h"])
      yield* server.until(() => server.counts.delete === 1 && server.sessions().length === 0)
      const late = yield* post(again.url, request("late", "ping"), session)
      expectError(late, { status: 404, code: NO_SESSION, id: "late", message: /initialize/ })
      expect(yield* again.health).toMatchObject({ sessions: 0 })
    })
  )

  it.scopedLive("goes on in another one of a server that was started again too", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const { start } = yield* makeDurable(server)
      const proxy = yield* start()
      const clients = yield* connectAll(proxy.url)
      const before = ids(clients)
      yield* end(proxy, "SIGKILL")
      yield* server.kill
      const other = yield* makeLegacyServer({ port: server.port })
      yield* start()
      yield* Effect.forEach(
        clients,
        ({ call }, index) =>
          Effect.gen(function* () {
            expect(yield* call("echo", { text: `call ${index}` })).toBe(`call ${index}`)
            // Denied in the old session, carried out in the new one.
            const executed = other.requests.filter(
              ({ body, status }) => status === 200 && body.includes(`"call ${index}"`)
            )
            expect(executed).toHaveLength(1)
          }),
        { concurrency: "unbounded" }
      )
      expect(ids(clients)).toEqual(before)
      expect(other.sessions()).toHaveLength(clients.length)
      expect(other.counts.initialize).toBe(clients.length)
    })
  )

  it.scopedLive("is not another server's", () =>
    Effect.gen(function* () {
      const [server, other] = [yield* makePlainServer(), yield* makePlainServer()]
      const upstream = { url: server.url }
      const { start } = yield* makeDurable(upstream)
      const proxy = yield* start()
      const { session } = yield* initialize(proxy.url)
      yield* end(proxy, "SIGKILL")
      upstream.url = other.url
      const again = yield* start()
      const late = yield* post(again.url, request("late", "ping"), session)
      expectError(late, { status: 404, code: NO_SESSION, id: "late", message: /initialize/ })
      expect(other.requests).toHaveLength(0)
    })
  )
})

describe.concurrent("a client that comes back behind an event that was not stored", () => {
  /** The id of the event after this one, or of an event in the stream after its own. */
  const behind = (eventId: string, place: "event" | "stream"): string => {
    const parts = eventId.split(".")
    const index = place === "event" ? 3 : 2
    return parts.with(index, (parseInt(parts[index] ?? "", 36) + 1).toString(36)).join(".")
  }

  it.scopedLive("gets an error for its call, and on a standalone stream what comes from then on", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer({ eventStore: true })
      const { holds, start } = yield* makeDurable(server)
      const proxy = yield* start()
      const { session } = yield* initialize(proxy.url)
      const listening = yield* stream(proxy.url, { headers: session })
      const params = {
        name: "progress",
        arguments: { steps: 2, until: "go" },
        _meta: { progressToken: "t" }
      }
      const body = request("call", "tools/call", params)
      const calling = yield* stream(proxy.url, { method: "POST", headers: session, body })
      const bump = Effect.suspend(() =>
        post(server.url, callTool(1, "bump"), { ...session, "mcp-session-id": server.sessions()[0] })
      )
      yield* bump
      // Each begins with an event that holds an id alone.
      const { id: listened = "" } = yield* listening.event(1)
      const { id: called = "" } = yield* calling.event(2)
      yield* holds("list_changed")
      yield* holds(`"progress":2`)
      yield* end(proxy, "SIGKILL")
      const again = yield* start()
      const from = (eventId: string) =>
        stream(again.url, { headers: { ...session, "last-event-id": eventId } })
      for (const place of ["event", "stream"] as const) {
        const lost = yield* from(behind(called, place))
        expect(lost.status).toBe(200)
        expect(yield* lost.end).toBe("ended")
        expect(lost.messages()).toMatchObject([
          { id: "call", error: { code: ERROR, message: expect.stringContaining("no longer kept") } }
        ])
      }
      const back = yield* from(behind(listened, "event"))
      yield* bump
      const { id: next = "" } = yield* back.event(0)
      expect(back.messages()).toMatchObject([{ method: "notifications/tools/list_changed" }])
      const issued = [...listening.events, ...calling.events].map(({ id }) => id)
      expect(issued).not.toContain(next)
      expect(next).not.toBe(behind(listened, "event"))
      expect((yield* from(`x${listened.slice(1)}`)).status).toBe(400)
      expect(given(server, `"until":"go"`)).toBe(1)
    })
  )
})

describe.concurrent("a session of a command", () => {
  /** The sessions go on in other processes, which know nothing of what the first ones were told. */
  const expectOthers = (
    server: StdioServer,
    clients: ReadonlyArray<AnyConnection>,
    before: ReadonlyArray<number>
  ) =>
    Effect.gen(function* () {
      for (const { call } of clients) {
        expect(yield* call("recall", { key: "k" })).toBe("nothing")
        yield* call("remember", { key: "k", value: "new" })
        expect(yield* call("recall", { key: "k" })).toBe("new")
      }
      yield* server.until(() => server.pids().length === clients.length)
      for (const pid of server.pids()) expect(before).not.toContain(pid)
      // Nothing was sent to them again.
      expect(server.pending()).toEqual([])
    })

  for (const signal of signals) {
    it.scopedLive(`goes on with another process after a ${signal} of the proxy, with --recover-stdio`, () =>
      Effect.gen(function* () {
        const server = yield* makeStdioServer
        const { start } = yield* makeDurable(server)
        const args = ["--recover-stdio", "--shutdown-timeout", "100ms"]
        const proxy = yield* start(args)
        const clients = yield* connectAll(proxy.url)
        const before = ids(clients)
        for (const { call } of clients) yield* call("remember", { key: "k", value: "old" })
        const pids = server.pids()
        const calls = yield* begin(server, clients)
        yield* end(proxy, signal)
        yield* server.until(() => server.pids().length === 0)
        if (signal === "SIGTERM") yield* expectErrors(calls, /shutting down/)
        const again = yield* start(args)
        if (signal === "SIGKILL") yield* expectErrors(calls, /may have carried out|no longer kept/)
        yield* expectOthers(server, clients, pids)
        expect(ids(clients)).toEqual(before)
        expect(yield* again.health).toMatchObject({ sessions: clients.length })
      })
    )

    it.scopedLive(`is over after a ${signal} of the proxy without, and leaves no record`, () =>
      Effect.gen(function* () {
        const server = yield* makeStdioServer
        const { path, start } = yield* makeDurable(server)
        const proxy = yield* start()
        const { session } = yield* initialize(proxy.url)
        yield* end(proxy, signal)
        yield* server.until(() => server.pids().length === 0)
        const again = yield* start()
        const late = yield* post(again.url, request("late", "ping"), session)
        expectError(late, { status: 404, code: NO_SESSION, id: "late", message: /initialize/ })
        expect(server.pids()).toEqual([])
        yield* end(again, "SIGTERM")
        expect(yield* recordsIn(path)).toEqual([])
      })
    )
  }

  it.scopedLive("goes on with another process when its own is killed, with --recover-stdio", () =>
    Effect.gen(function* () {
      const server = yield* makeStdioServer
      const proxy = yield* startProxy(server, ["--multi-session", "--recover-stdio"])
      const clients = yield* connectAll(proxy.url)
      const before = ids(clients)
      const pids = server.pids()
      const calls = yield* begin(server, clients)
      for (const pid of pids) process.kill(pid, "SIGKILL")
      yield* expectErrors(calls, /SIGKILL/)
      yield* expectOthers(server, clients, pids)
      expect(ids(clients)).toEqual(before)
    })
  )

  it.scopedLive("is over when its process is killed, without", () =>
    Effect.gen(function* () {
      const server = yield* makeStdioServer
      const proxy = yield* startProxy(server)
      const clients = yield* connectAll(proxy.url)
      const calls = yield* begin(server, clients)
      for (const pid of server.pids()) process.kill(pid, "SIGKILL")
      yield* expectErrors(calls, /SIGKILL/)
      yield* proxy.untilHealth(({ sessions }) => sessions === 0)
      for (const { call } of clients) {
        expect((yield* Effect.flip(call("echo", { text: "late" }))).message).toMatch(/initialize/)
      }
      expect(server.pids()).toEqual([])
    })
  )
})
