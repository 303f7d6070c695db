import { describe, expect, it, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { connect2 } from "../fixtures/Clients.js"
import { type Proxy, startProxy } from "../fixtures/Proxy.js"
import {
  callTool,
  type Headers,
  initialize,
  initialized,
  type InitializeOverrides,
  messages,
  post,
  type RawStream,
  request,
  stream
} from "../fixtures/RawClient.js"
import { connect, requestBytes } from "../fixtures/RawSocket.js"
import { expectError, INVALID } from "../fixtures/RpcError.js"
import { makeStdioServer, type StdioServer } from "../fixtures/StdioServer.js"

// How the answers of a command, which come in one line after the other, become answers of HTTP.

class Rig extends Context.Tag("test/Rig")<Rig, { readonly server: StdioServer; readonly proxy: Proxy }>() {}

const open = (overrides: InitializeOverrides = {}) =>
  Effect.gen(function* () {
    const { proxy } = yield* Rig
    const { session } = yield* initialize(proxy.url, overrides)
    yield* post(proxy.url, initialized, session)
    return session
  })

/** What a client with these headers posts, read as it comes. */
const begin = (headers: Headers, body: object) =>
  Effect.flatMap(Rig, ({ proxy }) => stream(proxy.url, { method: "POST", headers, body }))

const sampling = { capabilities: { sampling: {} } }

/** The requests that the server sends on a stream. */
const asked = (answer: RawStream): ReadonlyArray<unknown> =>
  answer
    .messages()
    .flatMap((message) =>
      typeof message === "object" && message !== null && "method" in message && "id" in message
        ? [message.id]
        : []
    )

const sampled = (id: unknown, text: string) => ({
  jsonrpc: "2.0",
  id,
  result: { model: "raw", role: "assistant", content: { type: "text", text } }
})

layer(
  Layer.scoped(
    Rig,
    Effect.gen(function* () {
      const server = yield* makeStdioServer
      return { server, proxy: yield* startProxy(server) }
    })
  ),
  { excludeTestServices: true }
)("an upstream that is a command", (it) => {
  it.scoped(
    "asks its client on the oldest answer, where there is no stream: two calls do not wait for ever",
    () =>
      Effect.gen(function* () {
        const { proxy, server } = yield* Rig
        const session = yield* open(sampling)
        const waiting = yield* Effect.fork(begin(session, callTool("w", "wait", { until: "both" })))
        yield* server.until(() => server.pending().length === 1)
        const calls = yield* Effect.forEach(["a", "b"], (id) =>
          Effect.fork(post(proxy.url, callTool(id, "sample", { prompt: id }), session))
        )
        const oldest = yield* Fiber.join(waiting)
        yield* oldest.until(() => asked(oldest).length === 2)
        for (const id of asked(oldest)) {
          expect((yield* post(proxy.url, sampled(id, `sampled ${String(id)}`), session)).status).toBe(202)
        }
        const answers = yield* Effect.forEach(calls, Fiber.join)
        expect(answers.flatMap(messages)).toMatchObject([
          { id: "a", result: { content: [{ text: expect.stringMatching(/^sampled \d+$/) }] } },
          { id: "b", result: { content: [{ text: expect.stringMatching(/^sampled \d+$/) }] } }
        ])
        yield* server.release("both")
        yield* oldest.end
        expect(oldest.messages().at(-1)).toMatchObject({ id: "w" })
      })
  )

  it.scoped("answers its client's calls, though the client does not read its stream of messages", () =>
    Effect.gen(function* () {
      const { proxy, server } = yield* Rig
      const session = yield* open()
      const socket = yield* connect(proxy.port)
      yield* socket.write(requestBytes("GET", session))
      yield* socket.until(() => socket.received() > 0)
      yield* socket.pause
      // Where two calls are in flight, what belongs to neither is told on that stream.
      const other = yield* Effect.fork(begin(session, callTool("w", "wait", { until: "flooded" })))
      yield* server.until(() => server.pending().length === 1)
      const text = "x".repeat(500_000)
      for (let id = 0; id < 30; id++) {
        expect(messages(yield* post(proxy.url, callTool(id, "log", { text }), session))).toMatchObject([
          { id }
        ])
      }
      yield* socket.resume
      yield* socket.closed()
      yield* server.release("flooded")
      yield* (yield* Fiber.join(other)).end
    })
  )

  it.scoped("is answered in JSON when nothing else comes, and after a second with a stream", () =>
    Effect.gen(function* () {
      const { proxy, server } = yield* Rig
      const session = yield* open()
      const quick = yield* post(proxy.url, callTool(1, "echo", { text: "hi" }), session)
      expect(quick.headers).toMatchObject({
        "content-type": "application/json",
        "content-length": String(Buffer.byteLength(quick.text))
      })
      const before = performance.now()
      const slow = yield* begin(session, callTool(2, "wait", { until: "slow" }))
      expect(performance.now() - before).toBeGreaterThan(990)
      expect(slow.headers["content-type"]).toBe("text/event-stream")
      expect(slow.messages()).toEqual([])
      yield* server.release("slow")
      expect(yield* slow.end).toBe("ended")
      expect(slow.messages()).toMatchObject([{ id: 2, result: { content: [{ text: "released slow" }] } }])
      const talking = yield* post(proxy.url, callTool(3, "log", { text: "note" }), session)
      expect(talking.headers["content-type"]).toBe("text/event-stream")
      expect(messages(talking)).toMatchObject([{ method: "notifications/message" }, { id: 3 }])
      const only = { ...session, accept: "text/event-stream" }
      expect(messages(yield* post(proxy.url, callTool(4, "echo", { text: "hi" }), only))).toMatchObject([
        { id: 4 }
      ])
    })
  )

  it.scoped("is told progress by its token, whichever call is older", () =>
    Effect.gen(function* () {
      const { server } = yield* Rig
      const session = yield* open()
      const older = yield* Effect.fork(begin(session, callTool("w", "wait", { until: "told" })))
      yield* server.until(() => server.pending().length === 1)
      const params = (progressToken: string | number) => ({
        name: "progress",
        arguments: { steps: 2, until: "told" },
        _meta: { progressToken }
      })
      // The tokens 1 and "1" are two.
      const numbered = yield* begin(session, request("n", "tools/call", params(1)))
      const named = yield* begin(session, request("s", "tools/call", params("1")))
      yield* numbered.event(1)
      yield* named.event(1)
      yield* server.release("told")
      const told = (token: string | number, id: string) => [
        { params: { progressToken: token, progress: 1 } },
        { params: { progressToken: token, progress: 2 } },
        { id }
      ]
      expect([yield* numbered.end, yield* named.end]).toEqual(["ended", "ended"])
      expect(numbered.messages()).toMatchObject(told(1, "n"))
      expect(named.messages()).toMatchObject(told("1", "s"))
      const answer = yield* Fiber.join(older)
      yield* answer.end
      expect(messages({ headers: answer.headers, text: answer.text() })).toMatchObject([{ id: "w" }])
    })
  )

  it.scoped("takes a batch of 2025-03-26 apart, and no batch of a later revision", () =>
    Effect.gen(function* () {
      const { proxy, server } = yield* Rig
      const batch = [
        callTool(1, "echo", { text: "one" }),
        { jsonrpc: "2.0", method: "notifications/roots/list_changed" },
        callTool("1", "echo", { text: "two" })
      ]
      const old = yield* open({ protocolVersion: "2025-03-26" })
      const answer = yield* post(proxy.url, batch, old)
      expect(answer.headers["content-type"]).toBe("application/json")
      const heard: unknown = JSON.parse(answer.text)
      expect(heard).toHaveLength(2)
      expect(heard).toEqual(
        expect.arrayContaining([
          expect.objectContaining({ id: 1, result: { content: [{ type: "text", text: "one" }] } }),
          expect.objectContaining({ id: "1", result: { content: [{ type: "text", text: "two" }] } })
        ])
      )
      const [, note] = batch
      expect((yield* post(proxy.url, [note, note], old)).status).toBe(202)
      const held = [callTool(3, "wait", { until: "batch" }), callTool(4, "echo", { text: "hi" })]
      const slow = yield* begin(old, held)
      expect(slow.headers["content-type"]).toBe("text/event-stream")
      yield* server.release("batch")
      yield* slow.end
      expect(slow.messages()).toMatchObject([{ id: 4 }, { id: 3 }])
      for (const protocolVersion of ["2025-06-18", "2025-11-25"]) {
        const session = yield* open({ protocolVersion })
        const refused = yield* post(proxy.url, batch, session)
        expectError(refused, { status: 400, code: INVALID, id: 1, message: /2025-03-26/ })
      }
    })
  )

  it.scoped("is not asked a second time under an id that is in flight", () =>
    Effect.gen(function* () {
      const { proxy, server } = yield* Rig
      const session = yield* open()
      const first = yield* Effect.fork(post(proxy.url, callTool(7, "wait", { until: "taken" }), session))
      yield* server.until(() => server.pending().length === 1)
      const second = yield* post(proxy.url, callTool(7, "echo", { text: "hi" }), session)
      expectError(second, { status: 400, code: INVALID, id: 7, message: /in flight/ })
      const other = yield* post(proxy.url, callTool("7", "echo", { text: "hi" }), session)
      expect(messages(other)).toMatchObject([{ id: "7" }])
      yield* server.release("taken")
      expect(messages(yield* Fiber.join(first))).toMatchObject([
        { id: 7, result: { content: [{ text: "released taken" }] } }
      ])
      expect((yield* post(proxy.url, callTool(7, "echo", { text: "hi" }), session)).status).toBe(200)
    })
  )

  it.scoped("hears nothing of a revision that it does not speak: the client is told which it does", () =>
    Effect.gen(function* () {
      const { proxy, server } = yield* Rig
      const session = yield* open()
      const before = server.pids()
      const supported = expect.arrayContaining(["2025-03-26", "2025-06-18", "2025-11-25"])
      const _meta = { "io.modelcontextprotocol/protocolVersion": "2026-07-28" }
      for (const [body, headers, requested] of [
        [request(1, "ping"), { ...session, "mcp-protocol-version": "2099-01-01" }, "2099-01-01"],
        [request(1, "ping"), { "mcp-protocol-version": "2026-07-28" }, "2026-07-28"],
        [request(1, "server/discover", { _meta }), {}, "2026-07-28"],
        [request(1, "initialize", { _meta }), { "mcp-protocol-version": "2026-07-28" }, "2026-07-28"]
      ] as const) {
        const refused = yield* post(proxy.url, body, headers)
        expect(refused).toMatchObject({ status: 400, headers: { "content-type": "application/json" } })
        expect(JSON.parse(refused.text)).toMatchObject({
          id: 1,
          error: { code: -32022, data: { supported, requested } }
        })
      }
      expect(server.pids()).toEqual(before)
      expect((yield* post(proxy.url, request(1, "ping"), session)).status).toBe(200)
      const unnamed = { ...session, "mcp-protocol-version": undefined }
      expect((yield* post(proxy.url, request(2, "ping"), unnamed)).status).toBe(200)
    })
  )

  it.scoped("is used in a session by a client that would rather speak 2026-07-28", () =>
    Effect.gen(function* () {
      const { proxy, server } = yield* Rig
      const before = server.pids().length
      const client = yield* connect2(proxy.url, { era: "auto" })
      expect(client.protocolVersion()).toBe("2025-11-25")
      expect(client.sessionId()).toBeDefined()
      expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
      expect(server.pids()).toHaveLength(before + 1)
      const insisting = yield* Effect.flip(connect2(proxy.url, { era: "modern" }))
      expect(insisting.message).toMatch(/2026-07-28|version/i)
    })
  )
})

/** Answers `initialize`, and a request with the id 1 before it tells of its progress. */
const script = `
while read -r line; do
  case $line in
    *initialize\\"*) echo '{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"late","version":"0"}}}' ;;
    *'"id":1'*) echo '{"jsonrpc":"2.0","id":1,"result":{}}'; echo '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"task","progress":1}}' ;;
  esac
done
`

describe("progress", () => {
  it.scopedLive("may outlive the answer to its request, and comes on the stream", () =>
    Effect.gen(function* () {
      const proxy = yield* startProxy({ command: ["sh", "-c", script] })
      const { session } = yield* initialize(proxy.url)
      const body = request(1, "tools/call", { name: "task", _meta: { progressToken: "task" } })
      const late = { params: { progressToken: "task", progress: 1 } }
      expect(messages(yield* post(proxy.url, body, session))).toEqual([{ jsonrpc: "2.0", id: 1, result: {} }])
      // What comes while there is no stream waits for one.
      const listening = yield* stream(proxy.url, { headers: session })
      yield* listening.until(() => listening.messages().length === 1)
      expect(messages(yield* post(proxy.url, body, session))).toHaveLength(1)
      yield* listening.until(() => listening.messages().length === 2)
      expect(listening.messages()).toMatchObject([late, late])
    })
  )
})
