import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Changes } from "./fixtures/Changes.js"
import { runCli, startCli } from "./fixtures/Cli.js"
import { connect1, connect2, connectStdio1 } from "./fixtures/Clients.js"
import { everythingScript, startEverything } from "./fixtures/Everything.js"
import { descriptors, heapAfterGc } from "./fixtures/leaks.js"
import { makeLegacyServer } from "./fixtures/LegacyServer.js"
import { connectMcpRemote } from "./fixtures/McpRemote.js"
import { makeModernServer } from "./fixtures/ModernServer.js"
import {
  callTool,
  del,
  get,
  initialize,
  initialized,
  messages,
  post,
  raw,
  request,
  stream
} from "./fixtures/RawClient.js"
import { makeRawServer } from "./fixtures/RawServer.js"
import { SseParser } from "./fixtures/Sse.js"

// The fixtures are proved against each other without the proxy: what fails with it is then its fault.

/** What starts processes or collects the whole heap takes long where the machine is busy. */
const slow = 20_000

const clients = [
  ["1.x", connect1],
  ["2.x", connect2]
] as const

describe.each(clients)("client %s with a legacy server", (_, connect) => {
  it.scoped("opens a session, calls a tool, and ends the session when its scope closes", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const client = yield* connect(server.url)
          expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
          expect(server.sessions()).toEqual([client.sessionId()])
          expect(client.protocolVersion()).toBe("2025-11-25")
          yield* server.until(() => server.counts.getStreams === 1)
        })
      )
      yield* server.until(() => server.counts.getStreams === 0 && server.counts.posts === 0)
      expect(server.counts).toMatchObject({ initialize: 1, delete: 1 })
      expect(server.sessions()).toEqual([])
    })
  )

  it.scoped("leaves the session behind when told not to terminate", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* connect(server.url, { terminate: false })
        })
      )
      expect(server.counts.delete).toBe(0)
      expect(server.sessions()).toHaveLength(1)
    })
  )

  it.scoped("sees the memory of its own session only", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const one = yield* connect(server.url)
      const two = yield* connect(server.url)
      yield* one.call("remember", { key: "k", value: "one" })
      yield* two.call("remember", { key: "k", value: "two" })
      expect(yield* one.call("recall", { key: "k" })).toBe("one")
      expect(yield* two.call("recall", { key: "k" })).toBe("two")
    })
  )

  it.scoped("is told its session and its headers", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const client = yield* connect(server.url, { headers: { "x-test": "yes" } })
      expect(JSON.parse(yield* client.call("whoami"))).toMatchObject({
        sessionId: client.sessionId(),
        headers: { "x-test": "yes", "mcp-session-id": client.sessionId() }
      })
    })
  )

  it.scoped("gets progress, logs and list changes", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const client = yield* connect(server.url)
      const seen: Array<number> = []
      yield* client.call("progress", { steps: 3 }, { onProgress: (p) => seen.push(p.progress) })
      expect(seen).toEqual([1, 2, 3])
      yield* client.call("log", { text: "note" })
      yield* client.until(() => client.notifications.some((n) => n.method === "notifications/message"))
      yield* server.until(() => server.counts.getStreams === 1)
      yield* client.call("bump")
      yield* client.until(() =>
        client.notifications.some((n) => n.method === "notifications/tools/list_changed")
      )
    })
  )

  it.scoped("answers the server's requests", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const client = yield* connect(server.url, {
        sample: (prompt) => `sampled ${prompt}`,
        elicit: (message) => ({ answer: `elicited ${message}` }),
        roots: ["file:///a"]
      })
      expect(yield* client.call("sample", { prompt: "p" })).toBe("sampled p")
      expect(JSON.parse(yield* client.call("elicit", { message: "m" }))).toEqual({
        action: "accept",
        content: { answer: "elicited m" }
      })
      expect(yield* client.call("roots")).toBe(`["file:///a"]`)
    })
  )

  it.scoped("announces only what it can answer", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const client = yield* connect(server.url)
      const error = yield* Effect.flip(client.call("sample", { prompt: "p" }))
      // The SDK's server asks all the same.
      expect(error.message).toContain("Method not found")
      expect(server.requests[0]?.body).toContain(`"capabilities":{}`)
    })
  )

  it.scoped("cancels a call by interrupting it", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const client = yield* connect(server.url)
      const call = yield* Effect.fork(client.call("hang"))
      yield* server.until(() => server.pending().length === 1)
      expect(server.pending()).toMatchObject([{ name: "hang", sessionId: client.sessionId() }])
      yield* Fiber.interrupt(call)
      yield* server.until(() => server.cancellations.length === 1)
      expect(server.cancellations).toMatchObject([{ name: "hang", by: "notification" }])
      expect(server.pending()).toEqual([])
    })
  )

  it.scoped("waits until the test releases the call", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const client = yield* connect(server.url)
      const call = yield* Effect.fork(client.call("wait", { until: "go" }))
      yield* server.until(() => server.pending().length === 1)
      yield* server.release("other")
      expect(server.pending()).toHaveLength(1)
      yield* server.release("go")
      expect(yield* Fiber.join(call)).toBe("released go")
      expect(yield* client.call("wait", { until: "go" })).toBe("released go")
    })
  )

  it.scoped("reads the resource and the prompt", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const { client } = yield* connect(server.url)
      const resource = yield* Effect.promise(() => client.readResource({ uri: "fixture://greeting" }))
      expect(resource.contents).toMatchObject([{ text: "hello" }])
      const prompt = yield* Effect.promise(() =>
        client.getPrompt({ name: "question", arguments: { about: "x" } })
      )
      expect(prompt.messages).toMatchObject([{ content: { text: "What is x?" } }])
    })
  )

  it.scoped("speaks with a server that answers in JSON", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer({ json: true })
      const client = yield* connect(server.url, { sample: (prompt) => prompt })
      expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
      yield* server.until(() => server.counts.getStreams === 1)
      expect(yield* client.call("sample", { prompt: "by GET" })).toBe("by GET")
      const seen: Array<number> = []
      const onProgress = (p: { readonly progress: number }) => seen.push(p.progress)
      yield* client.call("progress", { steps: 2 }, { onProgress })
      // Two connections: the answer may overtake what the stream brings.
      yield* client.call("log", { text: "by GET" })
      yield* client.until(() => client.notifications.some((n) => n.method === "notifications/message"))
    })
  )

  it.scoped("speaks with a server without sessions", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer({ sessions: false })
      const client = yield* connect(server.url)
      expect(client.sessionId()).toBeUndefined()
      expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
      yield* client.call("remember", { key: "k", value: "v" })
      expect(yield* client.call("recall", { key: "k" })).toBe("nothing")
      const stream = yield* server.request(2)
      expect(stream).toMatchObject({ method: "GET", status: 405 })
    })
  )

  it.scoped("resumes a call whose connection broke, if events have ids", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer({ eventStore: true, retry: 20 })
      const client = yield* connect(server.url)
      yield* server.until(() => server.counts.getStreams === 1)
      // Without the priming event the client has nothing to resume from.
      const primed = yield* Deferred.make<string>()
      const onResumable = (id: string) => Deferred.unsafeDone(primed, Effect.succeed(id))
      const call = yield* Effect.fork(client.call("wait", { until: "resumed" }, { onResumable }))
      yield* Deferred.await(primed)
      yield* server.drop
      yield* server.until(() => server.requests.some((r) => r.headers["last-event-id"] !== undefined))
      yield* server.release("resumed")
      expect(yield* Fiber.join(call)).toBe("released resumed")
    })
  )

  it.scoped("fails when the server is killed, or has forgotten its session", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const client = yield* connect(server.url)
      yield* server.expire(client.sessionId() ?? "")
      expect((yield* Effect.flip(client.call("echo", { text: "hi" }))).message).toContain("Session not found")
      const other = yield* connect(server.url)
      yield* server.kill
      expect(server.connections()).toBe(0)
      expect((yield* Effect.flip(other.call("echo", { text: "hi" }))).message).toContain("fetch failed")
      // A server that comes back on the same port knows nothing of the old sessions.
      const again = yield* makeLegacyServer({ port: server.port })
      const lost = yield* Effect.flip(other.call("echo", { text: "hi" }))
      expect(lost.message).toContain("Session not found")
      const fresh = yield* connect(again.url)
      expect(yield* fresh.call("echo", { text: "hi" })).toBe("hi")
    })
  )
})

describe("client 2.x in the modern revision", () => {
  it.scoped("calls tools without a session", () =>
    Effect.gen(function* () {
      const server = yield* makeModernServer()
      const client = yield* connect2(server.url, { era: "modern" })
      expect(client.protocolVersion()).toBe("2026-07-28")
      expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
      expect(client.sessionId()).toBeUndefined()
      expect(server.requests.map((r) => [r.method, r.headers["mcp-method"]])).toEqual([
        ["POST", "server/discover"],
        ["POST", "tools/call"]
      ])
      const seen: Array<number> = []
      const onProgress = (p: { readonly progress: number }) => seen.push(p.progress)
      yield* client.call("progress", { steps: 2 }, { onProgress })
      expect(seen).toEqual([1, 2])
    })
  )

  it.scoped("cancels by closing the stream", () =>
    Effect.gen(function* () {
      const server = yield* makeModernServer()
      const client = yield* connect2(server.url, { era: "modern" })
      const call = yield* Effect.fork(client.call("hang"))
      yield* server.until(() => server.pending().length === 1)
      yield* Fiber.interrupt(call)
      yield* server.until(() => server.cancellations.length === 1)
      expect(server.requests.some((r) => r.body.includes("notifications/cancelled"))).toBe(false)
    })
  )

  it.scoped("subscribes to list changes", () =>
    Effect.gen(function* () {
      const server = yield* makeModernServer()
      const client = yield* connect2(server.url, { era: "modern" })
      yield* Effect.promise(() => client.client.listen({ toolsListChanged: true }))
      yield* server.bump
      yield* client.until(() => client.notifications.length === 1)
      expect(client.notifications).toMatchObject([{ method: "notifications/tools/list_changed" }])
    })
  )

  it.scoped("finds out the era by itself", () =>
    Effect.gen(function* () {
      const legacy = yield* makeLegacyServer()
      const modern = yield* makeModernServer()
      const one = yield* connect2(legacy.url, { era: "auto" })
      const two = yield* connect2(modern.url, { era: "auto" })
      expect([one.protocolVersion(), two.protocolVersion()]).toEqual(["2025-11-25", "2026-07-28"])
      expect(yield* one.call("echo", { text: "hi" })).toBe("hi")
      expect(yield* two.call("echo", { text: "hi" })).toBe("hi")
    })
  )

  it.scoped("shares a server with legacy clients, which is told to serve both", () =>
    Effect.gen(function* () {
      const both = yield* makeModernServer({ legacy: true })
      for (const connect of [connect1, connect2]) {
        const client = yield* connect(both.url)
        expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
        expect(client.sessionId()).toBeUndefined()
      }
      const modern = yield* connect2(both.url, { era: "modern" })
      expect(yield* modern.call("echo", { text: "hi" })).toBe("hi")

      const strict = yield* makeModernServer()
      const refused = yield* Effect.flip(connect1(strict.url))
      expect(refused.message).toContain("-32022")
    })
  )
})

describe("raw client", () => {
  it.scoped("opens a session, calls a tool and ends the session by hand", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer()
      const { message, session, sessionId } = yield* initialize(server.url)
      expect(sessionId).toBe(server.sessions()[0])
      expect(message).toMatchObject({ id: 0, result: { protocolVersion: "2025-11-25" } })
      expect((yield* post(server.url, initialized, session)).status).toBe(202)
      const answer = yield* post(server.url, callTool("a", "echo", { text: "hi" }), session)
      expect(messages(answer)).toMatchObject([{ id: "a", result: { content: [{ text: "hi" }] } }])
      expect((yield* del(server.url, session)).status).toBe(200)
      expect((yield* post(server.url, request(1, "ping"), session)).status).toBe(404)
      expect((yield* post(server.url, request(1, "ping"))).status).toBe(400)
      expect((yield* post(server.url, "{")).text).toContain("-32700")
      expect((yield* get(`${server.url}/other`)).status).toBe(404)
    })
  )

  it.scoped("reads a stream as it comes, and drops it", () =>
    Effect.gen(function* () {
      const server = yield* makeLegacyServer({ eventStore: true })
      const { session } = yield* initialize(server.url)
      const listening = yield* stream(server.url, { headers: session })
      expect(listening.headers["content-type"]).toBe("text/event-stream")
      yield* server.until(() => server.counts.getStreams === 1)
      // The SDK allows one standalone stream for a session.
      expect((yield* get(server.url, session)).status).toBe(409)
      yield* post(server.url, callTool(1, "bump"), session)
      expect(yield* listening.event(0)).toMatchObject({ event: "message" })
      expect(listening.messages()).toMatchObject([{ method: "notifications/tools/list_changed" }])

      const body = callTool(2, "wait", { until: "go" })
      const call = yield* stream(server.url, { method: "POST", headers: session, body })
      expect(yield* call.event(0)).toMatchObject({ data: "" })
      yield* call.drop
      expect(yield* call.end).toBe("dropped")
      yield* server.until(() => server.counts.posts === 0)
      expect(server.cancellations).toEqual([])
      yield* server.release("go")
      const headers = { ...session, "last-event-id": call.events[0]?.id }
      const resumed = yield* stream(server.url, { headers })
      yield* resumed.event(0)
      expect(resumed.messages()).toMatchObject([{ id: 2, result: { content: [{ text: "released go" }] } }])

      yield* listening.drop
      yield* resumed.drop
      yield* server.until(() => server.counts.getStreams === 0)
    })
  )

  it.scoped("writes bytes and reads all of the answer", () =>
    Effect.gen(function* () {
      const server = yield* makeRawServer((_, body, response) => response.end(body))
      expect(yield* raw(server.port, "nonsense\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 /)
      const alive = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
      expect(yield* raw(server.port, alive, (text) => text.endsWith("hi"))).toMatch(/^HTTP\/1\.1 200 /)
      expect(server.requests).toMatchObject([{ method: "POST", path: "/", body: "hi" }])
    })
  )

  it.scoped("fails when nobody listens", () =>
    Effect.gen(function* () {
      const server = yield* makeRawServer(() => undefined)
      yield* server.kill
      const error = yield* Effect.flip(get(server.url))
      expect(error).toMatchObject({ _tag: "RequestFailed", cause: { code: "ECONNREFUSED" } })
    })
  )

  it("reads events in pieces, with comments and what browsers hide", () => {
    const text =
      "id: 1\nretry: 5\ndata: \n\n: ping\n\nevent: message\r\ndata: a\r\ndata: b\r\n\r\nretry: 9\n\ndata: cut"
    const parser = new SseParser()
    for (const character of text) parser.push(character)
    expect(parser.comments).toEqual(["ping"])
    expect(parser.events).toEqual([
      { id: "1", event: undefined, data: "", retry: "5" },
      { id: undefined, event: "message", data: "a\nb", retry: undefined },
      { id: undefined, event: undefined, data: undefined, retry: "9" }
    ])
  })
})

describe("raw server", () => {
  it.scoped("records what it got, and says when a request came and its socket closed", () =>
    Effect.gen(function* () {
      const server = yield* makeRawServer((request, _, response) => {
        if (request.method === "POST") response.writeHead(201).end()
        else response.writeHead(200, { "content-type": "text/event-stream" }).write("data: x\n\n")
      })
      yield* post(server.url, "é", { "x-one": "1" })
      expect(yield* server.request(0)).toMatchObject({
        body: "é",
        status: 201,
        end: "answered",
        headers: { "x-one": "1" }
      })
      const open = yield* stream(server.url)
      yield* open.event(0)
      expect(yield* server.request(1)).toMatchObject({ status: 200, end: undefined })
      yield* open.drop
      expect(yield* server.closed(1)).toMatchObject({ end: "dropped" })
      expect(server.connections()).toBe(0)
      yield* server.clearRequests
      expect(server.requests).toEqual([])
      yield* post(server.url, "again")
      expect(yield* server.request(0)).toMatchObject({ body: "again" })
    })
  )

  it.scoped("drops its connections and goes on listening", () =>
    Effect.gen(function* () {
      const server = yield* makeRawServer((request, _, response) => {
        if (request.method === "POST") response.end("ok")
      })
      const pending = yield* Effect.fork(Effect.flip(get(server.url)))
      yield* server.request(0)
      yield* server.drop
      expect((yield* Fiber.join(pending)).message).toBe("socket hang up")
      expect((yield* post(server.url, "x")).text).toBe("ok")
    })
  )

  it.effect("is gone when its scope is closed", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const server = yield* Scope.extend(
        makeRawServer(() => undefined),
        scope
      )
      const pending = yield* Effect.fork(Effect.flip(get(server.url)))
      yield* server.request(0)
      yield* Scope.close(scope, Exit.void)
      yield* Fiber.join(pending)
      expect(server.connections()).toBe(0)
    })
  )
})

const script = (text: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "shadowcat-fixture-"))),
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
    ),
    (folder) => {
      const file = join(folder, "script.mjs")
      writeFileSync(file, text)
      return file
    }
  )

describe("children", () => {
  const listens = `
    process.on("SIGTERM", () => process.exit(7))
    process.stderr.write("starting\\nlistening on http://127.0.0.1:4321/" + process.env.WHERE)
    process.stderr.write("\\n")
    setInterval(() => undefined, 1000)`

  it.scoped("command line: waits until it listens, signals it, and sees it end", () =>
    Effect.gen(function* () {
      const entry = yield* script(listens)
      const cli = yield* startCli(["run"], { entry, env: { WHERE: "mcp" } })
      expect(cli).toMatchObject({ url: "http://127.0.0.1:4321/mcp", port: 4321 })
      expect(cli.stderr()[0]).toBe("starting")
      yield* cli.signal("SIGTERM")
      expect(yield* cli.exit).toEqual({ code: 7, signal: null })
      expect(yield* cli.exit).toEqual({ code: 7, signal: null })
    })
  )

  it.scoped("command line: is killed with its scope", () =>
    Effect.gen(function* () {
      const entry = yield* script(listens)
      const cli = yield* Effect.scoped(startCli([], { entry, env: { WHERE: "mcp" } }))
      expect(cli.exited()).toEqual({ code: null, signal: "SIGKILL" })
      expect(existsSync(`/proc/${cli.pid}`)).toBe(false)
    })
  )

  it.scoped("command line: fails with all of stderr if it ends first, and runs to its end", () =>
    Effect.gen(function* () {
      const entry = yield* script(`
        process.stdout.write(process.argv.slice(2).join(" "))
        process.stderr.write("one\\ntwo")
        process.exitCode = 3`)
      const error = yield* Effect.flip(startCli([], { entry }))
      expect(error).toMatchObject({ stderr: "one\ntwo", exit: { code: 3 } })
      expect(yield* runCli(["a", "b"], { entry })).toEqual({
        code: 3,
        signal: null,
        stdout: "a b",
        stderr: "one\ntwo"
      })
    })
  )

  it.scoped(
    "the everything server starts, answers and is gone",
    () =>
      Effect.gen(function* () {
        const pid = yield* Effect.scoped(
          Effect.gen(function* () {
            const server = yield* startEverything()
            const client = yield* connect1(server.url)
            expect(yield* client.call("echo", { message: "hi" })).toBe("Echo: hi")
            return server.pid
          })
        )
        expect(existsSync(`/proc/${pid}`)).toBe(false)
      }),
    slow
  )

  it.scoped(
    "the everything server answers over stdio",
    () =>
      Effect.gen(function* () {
        const command = { command: process.execPath, args: [everythingScript, "stdio"] }
        const client = yield* connectStdio1(command)
        expect(yield* client.call("echo", { message: "hi" })).toBe("Echo: hi")
      }),
    slow
  )

  it.scoped(
    "mcp-remote bridges to a legacy server and leaves nothing behind",
    () =>
      Effect.gen(function* () {
        const server = yield* makeLegacyServer()
        const { home, pid } = yield* Effect.scoped(
          Effect.gen(function* () {
            const client = yield* connectMcpRemote(server.url, { sample: (prompt) => `sampled ${prompt}` })
            expect(yield* client.call("echo", { text: "hi" })).toBe("hi")
            expect(yield* client.call("sample", { prompt: "p" })).toBe("sampled p")
            return { home: client.home, pid: client.pid() }
          })
        )
        expect(existsSync(home)).toBe(false)
        expect(existsSync(`/proc/${pid}`)).toBe(false)
        expect(server.counts.initialize).toBe(2)
      }),
    slow
  )
})

describe("leaks", () => {
  it.scoped(
    "counts the descriptors of a process by kind",
    () =>
      Effect.gen(function* () {
        const entry = yield* script(`
        import * as fs from "node:fs"
        import * as net from "node:net"
        const count = Number(process.argv[2])
        for (let i = 0; i < count; i++) {
          fs.openSync(process.argv[1])
          await new Promise((resolve) => net.createServer().listen(0, "127.0.0.1", resolve))
        }
        process.stderr.write("listening on http://127.0.0.1:1/mcp\\n")
        setInterval(() => undefined, 1000)`)
        const none = yield* Effect.flatMap(startCli(["0"], { entry }), (cli) => descriptors(cli.pid))
        const five = yield* Effect.flatMap(startCli(["5"], { entry }), (cli) => descriptors(cli.pid))
        expect(five.sockets - none.sockets).toBe(5)
        expect(five.files - none.files).toBe(5)
        expect(five.total - none.total).toBe(10)
        expect((yield* descriptors()).total).toBeGreaterThan(0)
      }),
    slow
  )

  it.effect(
    "measures the heap that is left",
    () =>
      Effect.gen(function* () {
        const before = yield* heapAfterGc
        const held = Array.from({ length: 100_000 }, (_, index) => ({ index }))
        expect((yield* heapAfterGc) - before).toBeGreaterThan(1_000_000)
        held.length = 0
        expect((yield* heapAfterGc) - before).toBeLessThan(1_000_000)
      }),
    slow
  )
})

describe("waiting", () => {
  it.effect("says what was seen when it waited in vain", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(
        new Changes().until(
          () => false,
          () => "nothing",
          10
        )
      )
      expect(String(exit)).toContain("waited 10 ms in vain; seen: nothing")
    })
  )
})
