import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import {
  type AnyConnection,
  type ClientError,
  connect1,
  connect2,
  type ConnectOptions
} from "../fixtures/Clients.js"
import { descriptors } from "../fixtures/leaks.js"
import { makeLegacyServer } from "../fixtures/LegacyServer.js"
import { isAlive, proxyProcesses } from "../fixtures/processes.js"
import { startProxy } from "../fixtures/Proxy.js"
import { initialize, post, request } from "../fixtures/RawClient.js"
import { repetitions } from "../fixtures/repetitions.js"
import { makeStdioServer } from "../fixtures/StdioServer.js"
import type { ToolServer } from "../fixtures/ToolServer.js"

/** A kind of upstream. */
interface Kind {
  readonly name: string
  readonly make: Effect.Effect<ToolServer, never, Scope.Scope>
  /** Fewer for a command, because a child takes up to a second to start. */
  readonly clients: number
  /** The number of clients in tests that do not need all of them. */
  readonly fewer: number
}

const kinds: ReadonlyArray<Kind> = [
  { name: "of a server", make: makeLegacyServer(), clients: 100, fewer: 100 },
  { name: "of a command", make: makeStdioServer, clients: repetitions(30, 100), fewer: 20 }
]

/** Starting 100 Node.js children takes more than half a minute on a busy machine. */
const TIMEOUT = 180_000

/** Decodes the result of the tool `whoami`. */
const decodeIdentity = Schema.decode(
  Schema.parseJson(
    Schema.Struct({
      sessionId: Schema.String,
      headers: Schema.Struct({ authorization: Schema.optional(Schema.String) })
    })
  )
)

type Client = AnyConnection & { readonly name: string }

/** Connects a client with a name. Half of the clients use SDK 1.x, the others 2.x. */
const connect = (
  url: string,
  index: number,
  options: ConnectOptions = {}
): Effect.Effect<Client, ClientError, Scope.Scope> => {
  const name = `client-${index}`
  const named = { ...options, headers: { authorization: `Bearer ${name}` } }
  const connecting: Effect.Effect<AnyConnection, ClientError, Scope.Scope> =
    index % 2 === 0 ? connect1(url, named) : connect2(url, named)
  return Effect.map(connecting, (client) => ({ ...client, name }))
}

/**
 * Connects ten clients at a time. All of them run in this process. If it is blocked for longer than the proxy keeps idle
 * connections open, its next request fails.
 */
const connectAll = <A, E, R>(
  connectOne: (index: number) => Effect.Effect<A, E, R>,
  count: number
): Effect.Effect<Array<A>, E, R> =>
  Effect.forEach(
    Array.from({ length: count }, (_, index) => index),
    connectOne,
    { concurrency: 10 }
  )

for (const { clients, fewer, make, name } of kinds) {
  describe(`many clients of one proxy ${name}`, () => {
    it.scopedLive(
      "have separate sessions, ids, requests and notifications",
      () =>
        Effect.gen(function* () {
          const server = yield* make
          const proxy = yield* startProxy(server)
          const before = yield* descriptors(proxy.pid)
          const processes = yield* Effect.scoped(
            Effect.gen(function* () {
              const all = yield* connectAll(
                (index) =>
                  connect(proxy.url, index, { sample: (prompt) => `client-${index} received ${prompt}` }),
                clients
              )
              const each = <A, E>(use: (client: Client) => Effect.Effect<A, E>) =>
                Effect.forEach(all, use, { concurrency: "unbounded" })
              if ("url" in server) yield* server.until(() => server.counts.getStreams === clients, TIMEOUT)
              expect(yield* proxy.health).toMatchObject({ sessions: clients })

              // All clients write before the first one reads, so that mixed-up sessions would show.
              yield* each((client) => client.call("remember", { key: "mine", value: client.name }))
              yield* each((client) => client.call("remember", { key: client.name, value: "secret" }))
              const memories = yield* each((client) => client.call("recall-all"))
              expect(memories.map((memory): unknown => JSON.parse(memory))).toEqual(
                all.map(({ name }) => ({ mine: name, [name]: "secret" }))
              )

              // Headers and session ids are separate too.
              const seen = yield* each((client) => Effect.flatMap(client.call("whoami"), decodeIdentity))
              const upstreamIds = server.sessions()
              const clientIds = all.map((client) => client.sessionId())
              expect(new Set([...upstreamIds, ...clientIds]).size).toBe(2 * clients)
              expect(seen.map(({ headers }) => headers.authorization)).toEqual(
                all.map(({ name }) => ("url" in server ? `Bearer ${name}` : undefined))
              )
              expect(seen.map(({ sessionId }) => sessionId).toSorted()).toEqual(upstreamIds.toSorted())

              // The server numbers its requests from 0 in each session, so that all of these have the same id.
              const sampled = yield* each((client) => client.call("sample", { prompt: `for ${client.name}` }))
              expect(sampled).toEqual(all.map(({ name }) => `${name} received for ${name}`))

              const [first, ...others] = all
              yield* first?.call("bump") ?? Effect.dieMessage("no client")
              yield* first?.until(() => first.notifications.length === 1) ?? Effect.void
              // A notification to a wrong client would arrive before this later one.
              yield* each((client) => client.call("log", { text: client.name }))
              yield* each((client) =>
                client.until(() =>
                  client.notifications.some(({ method }) => method === "notifications/message")
                )
              )
              expect(first?.notifications.map(({ method }) => method)).toEqual([
                "notifications/tools/list_changed",
                "notifications/message"
              ])
              expect(others.map(({ notifications }) => notifications)).toMatchObject(
                others.map(({ name }) => [{ method: "notifications/message", params: { data: name } }])
              )
              expect(all.flatMap(({ errors }) => errors)).toEqual([])
              return yield* proxyProcesses(proxy.pid)
            })
          )
          // This process can read the end of a child's control socket later than the client reads its response.
          if (!("url" in server)) yield* server.until(() => server.sessions().length === 0, TIMEOUT)
          expect(server.sessions()).toEqual([])
          yield* proxy.untilHealth((health) => health.sessions === 0 && health.connections === 1, TIMEOUT)
          expect(yield* proxy.health).toMatchObject({ sessions: 0, stateless: 0, bufferedBytes: 0 })
          if ("url" in server) {
            expect(server.counts).toMatchObject({ initialize: clients, delete: clients })
            yield* server.until(() => server.counts.getStreams === 0 && server.counts.posts === 0)
            expect(server.errors).toEqual([])
            return
          }
          expect(processes.children).toHaveLength(clients)
          expect(yield* proxyProcesses(proxy.pid)).toMatchObject({
            children: [],
            watchdogs: processes.watchdogs
          })
          expect(yield* descriptors(proxy.pid)).toEqual(before)
          yield* proxy.signal("SIGTERM")
          expect(yield* proxy.exit).toEqual({ code: 0, signal: null })
          expect([...processes.children, ...processes.watchdogs].filter(isAlive)).toEqual([])
          expect((yield* Effect.flip(proxy.health)).message).toContain("ECONNREFUSED")
        }),
      TIMEOUT
    )

    it.scopedLive(
      "can continue their calls when half of the clients leave",
      () =>
        Effect.gen(function* () {
          const server = yield* make
          const proxy = yield* startProxy(server)
          const all = yield* connectAll((index) => connect(proxy.url, index), fewer)
          const calls = yield* Effect.forEach(all, (client) =>
            Effect.fork(client.call("wait", { until: "go" }))
          )
          yield* server.until(() => server.pending().length === fewer, TIMEOUT)
          const leaving = all.filter((_, index) => index % 4 < 2)
          yield* Effect.forEach(leaving, (client) => client.terminate, { concurrency: "unbounded" })
          yield* server.until(() => server.sessions().length === fewer / 2, TIMEOUT)
          expect(server.pending()).toHaveLength(fewer / 2)
          yield* server.release("go")
          const staying = calls.filter((_, index) => index % 4 >= 2)
          expect(new Set(yield* Effect.forEach(staying, Fiber.join))).toEqual(new Set(["released go"]))
          expect(yield* proxy.health).toMatchObject({ sessions: fewer / 2 })
          yield* Effect.forEach(calls, Fiber.interrupt, { concurrency: "unbounded" })
        }),
      TIMEOUT
    )
  })
}

describe("a client", () => {
  it.scopedLive("cannot use the session id of the upstream", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const proxy = yield* startProxy(server)
      const { session } = yield* initialize(proxy.url)
      const [upstreamId] = server.sessions()
      const stolen = { ...session, "mcp-session-id": upstreamId }
      expect((yield* post(server.url, request(1, "ping"), stolen)).status).toBe(200)
      const refused = yield* post(proxy.url, request(1, "ping"), stolen)
      expect(refused.status).toBe(404)
      expect(JSON.parse(refused.text)).toMatchObject({ id: 1, error: { code: -32001 } })
    })
  )
})
