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

// Sessions that continue in the next process after a graceful or a forced exit of the proxy.

const signals = ["SIGKILL", "SIGTERM"] as const

/** Only a safety net: clients reconnect a second after the proxy has started. In milliseconds. */
const restartTimeout = 40_000

/** Connects one official client of each version. They reconnect until the next proxy has started. */
const connectAll = (url: string) =>
  Effect.forEach(officialClients, ([, connect]) => connect(url, { maxReconnections: 60 }), {
    concurrency: "unbounded"
  })

const ids = (clients: ReadonlyArray<AnyConnection>) => clients.map(({ sessionId }) => sessionId())

/** Counts the POST requests that contain a text. */
const countPosts = ({ requests }: Pick<LegacyServer, "requests">, text: string): number =>
  requests.filter(({ body, method }) => method === "POST" && body.includes(text)).length

/** Makes the server send a log message in each of its sessions, with calls that bypass the proxy. */
const logInAll = (server: LegacyServer, text: string) =>
  Effect.forEach(
    server.sessions(),
    (id, index) =>
      post(server.url, callTool("aside", "log", { text: `${text} to ${index}` }), {
        "mcp-session-id": id,
        "mcp-protocol-version": "2025-11-25"
      }),
    { discard: true }
  )

/** Returns the log messages that a client received. */
const logsOf = ({ notifications }: AnyConnection): ReadonlyArray<string> =>
  notifications.flatMap(({ params }) =>
    typeof params === "object" && params !== null && "data" in params
      ? [String(params.data).replace(/ to \d+$/, "")]
      : []
  )

/** Starts a call of each client that sends progress and then hangs. */
const startHangingCalls = (server: ToolServer, clients: ReadonlyArray<AnyConnection>) =>
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

/** Makes a call with each client, and expects it in the same session and once at the server. */
const expectContinues = (
  server: LegacyServer,
  clients: ReadonlyArray<AnyConnection>,
  before: ReadonlyArray<string | undefined>
) =>
  Effect.gen(function* () {
    const upstream = server.sessions()
    for (const [index, { call }] of clients.entries()) {
      const text = `after the restart, ${index}`
      expect(yield* call("echo", { text })).toBe(text)
      expect(countPosts(server, text)).toBe(1)
    }
    expect(ids(clients)).toEqual(before)
    expect(server.sessions()).toEqual(upstream)
    expect(server.counts).toMatchObject({ initialize: clients.length, delete: 0 })
  })

for (const signal of signals) {
  describe.concurrent(`a proxy that is restarted after ${signal}`, () => {
    it.scopedLive("continues idle sessions, whose clients get all missed messages once", () =>
      Effect.gen(function* () {
        // Responses are JSON, so that other messages go to the standalone stream.
        const server = yield* makeLegacyServer({ eventStore: true, json: true })
        const { holds, start } = yield* makeDurable(server)
        const proxy = yield* start()
        const clients = yield* connectAll(proxy.url)
        const before = ids(clients)
        yield* server.until(() => server.counts.getStreams === clients.length)
        yield* logInAll(server, "one")
        for (const client of clients) yield* client.until(() => logsOf(client).length === 1)
        yield* Effect.forEach(clients, (_, index) => holds(`one to ${index}`))
        yield* end(proxy, signal)
        yield* logInAll(server, "two")
        const again = yield* start()
        for (const client of clients) yield* client.until(() => logsOf(client).length === 2, restartTimeout)
        yield* again.untilHealth(({ streams }) => streams === clients.length, restartTimeout)
        yield* logInAll(server, "three")
        for (const client of clients) yield* client.until(() => logsOf(client).length === 3)
        yield* expectContinues(server, clients, before)
        for (const client of clients) expect(logsOf(client)).toEqual(["one", "two", "three"])
      })
    )

    it.scopedLive("completes the calls of a server with resumable streams", () =>
      Effect.gen(function* () {
        const server = yield* makeLegacyServer({ eventStore: true })
        const { holds, start } = yield* makeDurable(server)
        const proxy = yield* start(["--shutdown-timeout", "100ms"])
        const clients = yield* connectAll(proxy.url)
        const before = ids(clients)
        const calls = yield* Effect.forEach(clients, (client, index) =>
          Effect.gen(function* () {
            const progress: Array<number> = []
            const onProgress = (event: { readonly progress: number }) => progress.push(event.progress)
            const args = { steps: 3 + index, until: `end ${index}` }
            return { progress, fiber: yield* Effect.fork(client.call("progress", args, { onProgress })) }
          })
        )
        yield* server.until(() => server.pending().length === clients.length)
        yield* Effect.forEach(calls, (_, index) => holds(`"progress":${3 + index},"total":${3 + index}`))
        yield* end(proxy, signal)
        // The first call completes while no proxy runs, the second after the restart.
        yield* server.release("end 0")
        const again = yield* start()
        yield* again.untilHealth(({ sessions }) => sessions === clients.length, restartTimeout)
        yield* server.release("end 1")
        for (const [index, { fiber, progress }] of calls.entries()) {
          expect(yield* Fiber.join(fiber)).toBe(`${3 + index} steps`)
          expect(progress).toEqual(Array.from({ length: 3 + index }, (_, step) => step + 1))
          expect(countPosts(server, `"until":"end ${index}"`)).toBe(1)
        }
        yield* expectContinues(server, clients, before)
      })
    )

    it.scopedLive(
      "ends the calls of a server without resumable streams with an error, and sends none twice",
      () =>
        Effect.gen(function* () {
          const server = yield* makeLegacyServer()
          const { start } = yield* makeDurable(server)
          const proxy = yield* start(["--shutdown-timeout", "100ms"])
          const clients = yield* connectAll(proxy.url)
          const before = ids(clients)
          const calls = yield* startHangingCalls(server, clients)
          yield* end(proxy, signal)
          if (signal === "SIGTERM") yield* expectErrors(calls, /shutting down/)
          yield* start()
          if (signal === "SIGKILL") yield* expectErrors(calls, /may have carried out|no longer kept/)
          expect(countPosts(server, `"until":"ever"`)).toBe(clients.length)
          yield* expectContinues(server, clients, before)
        })
    )
  })
}

describe.concurrent("a session of an earlier process", () => {
  it.scopedLive("gets a retry time on its streams at the shutdown, and stays open at its server", () =>
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

  it.scopedLive("is restored once for many concurrent requests", () =>
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
      expect(again.stderr().filter((line) => line.includes("session: restored"))).toHaveLength(1)
      expect([server.count("initialize"), server.count("tools/call")]).toEqual([1, 30])
      for (const { headers } of server.requests.slice(1)) {
        expect(headers).toMatchObject({ "mcp-session-id": "up-1", "mcp-protocol-version": "2025-11-25" })
      }
    })
  )

  it.scopedLive("is ended by a DELETE, also at its server, before it is restored", () =>
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

  it.scopedLive("stays in the store while the session limit is reached", () =>
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

  it.scopedLive("is ended at its server and removed if it has expired", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const { start } = yield* makeDurable(server)
      // The open stream of a client keeps the session alive while the process runs.
      const proxy = yield* start(["--session-timeout", "2s", "--cleanup-interval", "500ms"])
      const { session } = yield* initialize(proxy.url)
      yield* stream(proxy.url, { headers: session })
      yield* end(proxy, "SIGKILL")
      // The time in which the session expires: no event marks it, because no proxy runs.
      yield* Effect.sleep(2_500)
      const again = yield* start(["--cleanup-interval", "1h"])
      yield* server.until(() => server.counts.delete === 1 && server.sessions().length === 0)
      const late = yield* post(again.url, request("late", "ping"), session)
      expectError(late, { status: 404, code: NO_SESSION, id: "late", message: /initialize/ })
      expect(yield* again.health).toMatchObject({ sessions: 0 })
    })
  )

  it.scopedLive("continues in a new upstream session if the server was restarted too", () =>
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
            // The server denied the call in the old session and executed it in the new one.
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

  it.scopedLive("is not sent to another server", () =>
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

describe.concurrent("a client that resumes after an event that was not stored", () => {
  /** Returns the id of the next event of a stream, or of an event of the next stream. */
  const nextId = (eventId: string, place: "event" | "stream"): string => {
    const parts = eventId.split(".")
    const index = place === "event" ? 3 : 2
    return parts.with(index, (parseInt(parts[index] ?? "", 36) + 1).toString(36)).join(".")
  }

  it.scopedLive("gets an error for its call, and the later messages on its standalone stream", () =>
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
      // Each stream begins with an event that has only an id.
      const { id: listened = "" } = yield* listening.event(1)
      const { id: called = "" } = yield* calling.event(2)
      yield* holds("list_changed")
      yield* holds(`"progress":2`)
      yield* end(proxy, "SIGKILL")
      const again = yield* start()
      const from = (eventId: string) =>
        stream(again.url, { headers: { ...session, "last-event-id": eventId } })
      for (const place of ["event", "stream"] as const) {
        const lost = yield* from(nextId(called, place))
        expect(lost.status).toBe(200)
        expect(yield* lost.end).toBe("ended")
        expect(lost.messages()).toMatchObject([
          { id: "call", error: { code: ERROR, message: expect.stringContaining("no longer kept") } }
        ])
      }
      const back = yield* from(nextId(listened, "event"))
      yield* bump
      const { id: next = "" } = yield* back.event(0)
      expect(back.messages()).toMatchObject([{ method: "notifications/tools/list_changed" }])
      const issued = [...listening.events, ...calling.events].map(({ id }) => id)
      expect(issued).not.toContain(next)
      expect(next).not.toBe(nextId(listened, "event"))
      expect((yield* from(`x${listened.slice(1)}`)).status).toBe(400)
      expect(countPosts(server, `"until":"go"`)).toBe(1)
    })
  )
})

describe.concurrent("a session of a command", () => {
  /** Expects that the sessions continue in new processes, without the memory of the old ones. */
  const expectNewProcesses = (
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
      // No call was sent to a new process again.
      expect(server.pending()).toEqual([])
    })

  for (const signal of signals) {
    it.scopedLive(`continues with a new process after ${signal} to the proxy, with --recover-stdio`, () =>
      Effect.gen(function* () {
        const server = yield* makeStdioServer
        const { start } = yield* makeDurable(server)
        const args = ["--recover-stdio", "--shutdown-timeout", "100ms"]
        const proxy = yield* start(args)
        const clients = yield* connectAll(proxy.url)
        const before = ids(clients)
        for (const { call } of clients) yield* call("remember", { key: "k", value: "old" })
        const calls = yield* startHangingCalls(server, clients)
        const pids = server.pids()
        yield* end(proxy, signal)
        yield* server.until(() => server.pids().length === 0)
        if (signal === "SIGTERM") yield* expectErrors(calls, /shutting down/)
        const again = yield* start(args)
        if (signal === "SIGKILL") yield* expectErrors(calls, /may have carried out|no longer kept/)
        yield* expectNewProcesses(server, clients, pids)
        expect(ids(clients)).toEqual(before)
        expect(yield* again.health).toMatchObject({ sessions: clients.length })
      })
    )

    it.scopedLive(`ends after ${signal} to the proxy, without --recover-stdio, and leaves no record`, () =>
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

  it.scopedLive("continues with a new process when its process is killed, with --recover-stdio", () =>
    Effect.gen(function* () {
      const server = yield* makeStdioServer
      const proxy = yield* startProxy(server, ["--multi-session", "--recover-stdio"])
      const clients = yield* connectAll(proxy.url)
      const before = ids(clients)
      const calls = yield* startHangingCalls(server, clients)
      // Only now has this process read the reports of all processes.
      const pids = server.pids()
      for (const pid of pids) process.kill(pid, "SIGKILL")
      yield* expectErrors(calls, /SIGKILL/)
      yield* expectNewProcesses(server, clients, pids)
      expect(ids(clients)).toEqual(before)
    })
  )

  it.scopedLive("ends when its process is killed, without --recover-stdio", () =>
    Effect.gen(function* () {
      const server = yield* makeStdioServer
      const proxy = yield* startProxy(server)
      const clients = yield* connectAll(proxy.url)
      const calls = yield* startHangingCalls(server, clients)
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
