import { describe, expect, it, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { type Child, spawnNode } from "../fixtures/Child.js"
import { type CliEnded, entry } from "../fixtures/Cli.js"
import { connectStdio2, officialStdioClients, type StdioCommand } from "../fixtures/Clients.js"
import { makeLegacyServer } from "../fixtures/LegacyServer.js"
import { makeModernServer } from "../fixtures/ModernServer.js"
import { makePlainServer } from "../fixtures/PlainServer.js"
import { isAlive } from "../fixtures/processes.js"
import { startProxy, type Upstream, upstreamArgs } from "../fixtures/Proxy.js"
import { callTool, initialized, initializeRequest, request } from "../fixtures/RawClient.js"
import { ERROR, INVALID, NOT_JSON } from "../fixtures/RpcError.js"
import { makeStdioServer } from "../fixtures/StdioServer.js"
import type { ToolServer } from "../fixtures/ToolServer.js"

// Clients that start servers as commands, such as desktop applications, with `shadowcat forward stdio` as the command.

const args = (upstream: Upstream) => [entry, "forward", "stdio", ...upstreamArgs(upstream)]

/** The command that a client starts. */
const command = (upstream: Upstream): StdioCommand => ({ command: process.execPath, args: args(upstream) })

interface Target {
  readonly name: string
  readonly make: Effect.Effect<ToolServer, never, Scope.Scope>
  /** Returns the upstream of `forward stdio`, which may be another proxy in front of the server. */
  readonly upstreamOf: (server: ToolServer) => Effect.Effect<Upstream, CliEnded, Scope.Scope>
}

const targets: ReadonlyArray<Target> = [
  { name: "to a URL", make: makeLegacyServer(), upstreamOf: Effect.succeed },
  { name: "to a command", make: makeStdioServer, upstreamOf: Effect.succeed },
  {
    name: "to a command behind forward http",
    make: makeStdioServer,
    upstreamOf: (server) => startProxy(server)
  }
]

class Rig extends Context.Tag("test/Rig")<
  Rig,
  { readonly server: ToolServer; readonly command: StdioCommand }
>() {}

for (const { make, name, upstreamOf } of targets) {
  const rig = Layer.scoped(
    Rig,
    Effect.gen(function* () {
      const server = yield* make
      return { server, command: command(yield* upstreamOf(server)) }
    })
  )

  layer(rig, { excludeTestServices: true })(`forward stdio ${name}`, (it) => {
    for (const [line, connect] of officialStdioClients) {
      it.scoped(`relays the calls of client ${line} and the requests of the server`, () =>
        Effect.gen(function* () {
          const { command, server } = yield* Rig
          const client = yield* connect(command, {
            sample: (prompt) => `sampled ${prompt}`,
            elicit: (message) => ({ answer: `elicited ${message}` }),
            roots: ["file:///a"]
          })
          expect(yield* client.call("echo", { text: "hé\u2028" })).toBe("hé\u2028")
          expect(yield* client.call("sample", { prompt: "p" })).toBe("sampled p")
          expect(JSON.parse(yield* client.call("elicit", { message: "m" }))).toEqual({
            action: "accept",
            content: { answer: "elicited m" }
          })
          expect(yield* client.call("roots")).toBe(`["file:///a"]`)
          const until = `progress of ${name} ${line}`
          const seen: Array<number> = []
          const onProgress = (p: { readonly progress: number }) => {
            if (seen.push(p.progress) === 20) Effect.runFork(server.release(until))
          }
          yield* client.call("progress", { steps: 20, until }, { onProgress })
          expect(seen).toEqual(Array.from({ length: 20 }, (_, index) => index + 1))
          const prompt = yield* Effect.promise(() =>
            client.client.getPrompt({ name: "question", arguments: { about: "x" } })
          )
          expect(prompt.messages).toMatchObject([{ content: { text: "What is x?" } }])
          expect((yield* Effect.flip(client.call("no-such-tool"))).message).toContain("no-such-tool")
          expect(client.errors).toEqual([])
        })
      )

      it.scoped(`relays notifications without a call to client ${line}`, () =>
        Effect.gen(function* () {
          const { command, server } = yield* Rig
          const client = yield* connect(command)
          if ("url" in server) yield* server.until(() => server.counts.getStreams === 1)
          yield* client.call("bump")
          yield* client.until(() => client.notifications.length === 1)
          expect(client.notifications).toMatchObject([{ method: "notifications/tools/list_changed" }])
        })
      )

      it.scoped(`relays a cancellation of client ${line} while other calls run`, () =>
        Effect.gen(function* () {
          const { command, server } = yield* Rig
          const before = server.cancellations.length
          const until = `${name} ${line}`
          const client = yield* connect(command)
          const staying = yield* Effect.fork(client.call("wait", { until }))
          yield* server.until(() => server.pending().length === 1)
          const leaving = yield* Effect.fork(client.call("hang"))
          yield* server.until(() => server.pending().length === 2)
          yield* Fiber.interrupt(leaving)
          yield* server.until(() => server.cancellations.length === before + 1)
          expect(server.cancellations[before]).toMatchObject({ name: "hang", by: "notification" })
          expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
          yield* server.release(until)
          expect(yield* Fiber.join(staying)).toBe(`released ${until}`)
        })
      )

      it.scoped(`ends the server's session when client ${line} closes`, () =>
        Effect.gen(function* () {
          const { command, server } = yield* Rig
          const client = yield* connect(command)
          expect(server.sessions()).toHaveLength(1)
          const pid = client.pid()
          yield* client.close
          expect(pid !== undefined && isAlive(pid)).toBe(false)
          yield* server.until(() => server.sessions().length === 0)
        })
      )
    }

    it.scoped("answers the calls in flight after stdin has closed, and exits 0", () =>
      Effect.gen(function* () {
        const { command, server } = yield* Rig
        const proxy = yield* spawnNode(command.args[0] ?? "", command.args.slice(1))
        yield* write(proxy, initializeRequest({ id: "i" }), initialized, callTool(1, "wait", { until: name }))
        yield* server.until(() => server.pending().length === 1)
        yield* proxy.closeStdin
        yield* server.release(name)
        expect(yield* proxy.exit).toEqual({ code: 0, signal: null })
        expect(received(proxy)).toMatchObject([
          { id: "i" },
          { id: 1, result: { content: [{ text: `released ${name}` }] } }
        ])
        yield* server.until(() => server.sessions().length === 0)
        if ("url" in server) expect(server.counts.delete).toBe(server.counts.initialize)
      })
    )
  })
}

/** Writes messages as lines. A string is written unchanged. */
const write = (proxy: Child, ...messages: ReadonlyArray<object | string>) =>
  proxy.write(messages.map((m) => `${typeof m === "string" ? m : JSON.stringify(m)}\n`).join(""))

const received = (proxy: Child): ReadonlyArray<unknown> =>
  proxy.stdout().map((line): unknown => JSON.parse(line))

const start = (upstream: Upstream) => {
  const [script = "", ...rest] = args(upstream)
  return spawnNode(script, rest)
}

describe("forward stdio", () => {
  it.scopedLive("answers an invalid line with an error, and continues", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const proxy = yield* start(server)
      yield* write(proxy, "garbage", "{}", "", "[]", request(1, "ping"))
      yield* proxy.until(() => proxy.stdout().length === 4)
      expect(received(proxy)).toMatchObject([
        { id: null, error: { code: NOT_JSON } },
        { id: null, error: { code: INVALID } },
        { id: null, error: { code: INVALID } },
        { id: 1, error: { code: INVALID, message: expect.stringContaining("initialize") } }
      ])
      expect(server.requests).toEqual([])
      yield* write(proxy, initializeRequest(), initialized, `\t{"id":2,"jsonrpc":"2.0","method":"ping"}\r`)
      yield* proxy.until(() => proxy.stdout().length === 6)
      expect(received(proxy).slice(4)).toMatchObject([{ id: 0 }, { id: 2, result: {} }])
    })
  )

  it.scopedLive("sends in order, with the session and the revision in each request", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const proxy = yield* start(server)
      const numbers = Array.from({ length: 20 }, (_, index) => index + 1)
      yield* write(
        proxy,
        initializeRequest(),
        initialized,
        ...numbers.map((id) => request(id, "test/numbered"))
      )
      yield* proxy.until(() => proxy.stdout().length === 21)
      yield* proxy.closeStdin
      expect(yield* proxy.exit).toMatchObject({ code: 0 })
      const [first, second, ...others] = server.requests
      expect([first, second]).toMatchObject([
        { method: "POST", body: JSON.stringify(initializeRequest()) },
        { method: "POST", body: JSON.stringify(initialized) }
      ])
      expect(first?.headers).not.toHaveProperty("mcp-session-id")
      const named = { "mcp-session-id": "up-1", "mcp-protocol-version": "2025-11-25" }
      expect([second, ...others]).toMatchObject(Array.from({ length: 23 }, () => ({ headers: named })))
      expect(
        others.filter(({ method }) => method === "POST").map(({ body }): unknown => JSON.parse(body))
      ).toMatchObject(numbers.map((id) => ({ id })))
      expect(others.map(({ method }) => method)).toContain("GET")
      expect(others.at(-1)?.method).toBe("DELETE")
    })
  )

  it.scopedLive("answers with an error if the upstream requires authorization or cannot be reached", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({
        initialize: ({ answer }) => answer(401, { "www-authenticate": "Bearer" }, "unauthorized")
      })
      const refused = yield* start(server)
      yield* write(refused, initializeRequest({ id: "a" }))
      yield* refused.until(() => refused.stdout().length === 1)
      expect(received(refused)).toMatchObject([
        { id: "a", error: { code: ERROR, message: expect.stringContaining("401") } }
      ])
      for (const [upstream, why] of [
        [{ url: "http://127.0.0.1:1/mcp" }, "cannot be reached"],
        [{ command: ["/no/such/command"] }, "no such command"],
        [{ command: ["sh", "-c", "echo broken >&2; exit 3"] }, "exited with code 3: broken"]
      ] as const) {
        const proxy = yield* start(upstream)
        yield* write(proxy, initializeRequest({ id: "b" }))
        yield* proxy.until(() => proxy.stdout().length === 1)
        expect(received(proxy)).toMatchObject([
          { id: "b", error: { code: ERROR, message: expect.stringContaining(why) } }
        ])
      }
    })
  )

  it.scopedLive("answers the calls in flight with an error when the upstream dies, and exits 1", () =>
    Effect.gen(function* () {
      const server = yield* makeStdioServer
      const proxy = yield* start(server)
      yield* write(proxy, initializeRequest(), initialized, callTool("c", "hang"))
      yield* server.until(() => server.pending().length === 1)
      const [pid] = server.pids()
      if (pid !== undefined) process.kill(pid, "SIGKILL")
      expect(yield* proxy.exit).toEqual({ code: 1, signal: null })
      expect(received(proxy)[1]).toMatchObject({
        id: "c",
        error: { code: ERROR, message: expect.stringContaining("SIGKILL") }
      })
    })
  )

  for (const era of ["auto", "modern"] as const) {
    it.scopedLive(`relays a client of 2026-07-28 (${era}) to a server of that revision`, () =>
      Effect.gen(function* () {
        const server = yield* makeModernServer()
        const client = yield* connectStdio2(command(server), { era })
        expect(client.protocolVersion()).toBe("2026-07-28")
        expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
        const seen: Array<number> = []
        const onProgress = (p: { readonly progress: number }) => {
          if (seen.push(p.progress) === 5) Effect.runFork(server.release("go"))
        }
        yield* client.call("progress", { steps: 5, until: "go" }, { onProgress })
        expect(seen).toEqual([1, 2, 3, 4, 5])
        const hanging = yield* Effect.fork(client.call("hang"))
        yield* server.until(() => server.pending().length === 1)
        yield* Fiber.interrupt(hanging)
        yield* server.until(() => server.cancellations.length === 1)
        const subscription = yield* Effect.promise(() => client.client.listen({ toolsListChanged: true }))
        yield* server.bump
        yield* client.until(() => client.notifications.length === 1)
        yield* Effect.promise(() => subscription.close())
        expect(yield* client.call("echo", { text: "still" })).toBe("still")
        expect(server.requests.some(({ headers }) => "mcp-session-id" in headers)).toBe(false)
        expect(client.errors).toEqual([])
      })
    )
  }

  for (const { make, name, upstreamOf } of targets) {
    it.scopedLive(`opens a session for a client that prefers 2026-07-28 ${name}`, () =>
      Effect.gen(function* () {
        const server = yield* make
        const client = yield* connectStdio2(command(yield* upstreamOf(server)), { era: "auto" })
        expect(client.protocolVersion()).toBe("2025-11-25")
        expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
        expect(server.sessions()).toHaveLength(1)
      })
    )
  }
})
