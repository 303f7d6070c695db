import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { fileURLToPath } from "node:url"
import {
  startCommandFront,
  openSession,
  script,
  startChildrenFront,
  startChildrenCli,
  callChild,
  type TrackedChildren
} from "../fixtures/Children.js"
import { eventually } from "../fixtures/eventually.js"
import type { Front, FrontOptions } from "../fixtures/Front.js"
import { openDescriptors, descriptorsOpenedSince } from "../fixtures/leaks.js"
import { processes, type ProcessTracker, watchdogsOf } from "../fixtures/processes.js"
import {
  type Answer,
  callTool,
  del,
  get,
  type Initialized,
  messages,
  post,
  request,
  stream
} from "../fixtures/RawClient.js"
import { ERROR, expectError, NO_SESSION } from "../fixtures/RpcError.js"
import { toolResult } from "../fixtures/events.js"

// Children that misbehave, and the processes that they leave behind.

type Children = Front & TrackedChildren

/** Runs a test with a proxy, and checks afterwards that no process and no descriptor is left. */
const withoutLeaks = <E>(
  start: Effect.Effect<Children, E, Scope.Scope>,
  test: (front: Children) => Effect.Effect<void, unknown, Scope.Scope>
) =>
  Effect.gen(function* () {
    const before = yield* openDescriptors
    const scope = yield* Scope.make()
    const front = yield* Scope.extend(start, scope)
    yield* Effect.ensuring(Effect.scoped(test(front)), Scope.close(scope, Exit.void))
    expect(front.tracker.alive()).toEqual([])
    yield* eventually(descriptorsOpenedSince(before), (opened) => opened.length === 0)
  })

const expectText = (answer: Answer, id: string | number, text: string) => {
  expect(answer.status).toBe(200)
  expect(messages(answer).at(-1)).toEqual(toolResult(id, text))
}

/** Runs a test beside another session with a good child, and checks afterwards that the other session works. */
const besideOther = (front: Children, test: Effect.Effect<void, unknown, Scope.Scope>) =>
  Effect.gen(function* () {
    const other = yield* openSession(front.url)
    const [own] = front.tracker.alive()
    yield* test
    expectText(yield* callChild(front.url, other, "hello", "other"), "other", "hello")
    yield* front.tracker.until((alive) => alive.length === 1 && alive[0]?.pid === own?.pid)
    expect(yield* front.health).toMatchObject({ sessions: 1 })
  })

const itIsolates = (
  name: string,
  test: (front: Children) => Effect.Effect<void, unknown, Scope.Scope>,
  options: FrontOptions = {}
) =>
  it.scopedLive(name, () =>
    withoutLeaks(startChildrenFront(options), (front) => besideOther(front, test(front)))
  )

const expectGone = (front: Children, { session }: Initialized) =>
  Effect.gen(function* () {
    for (const answer of [
      yield* post(front.url, request("late", "ping"), session),
      yield* del(front.url, session)
    ]) {
      expect(answer.status).toBe(404)
    }
    expectError(yield* post(front.url, request("late", "ping"), session), {
      status: 404,
      code: NO_SESSION,
      id: "late"
    })
  })

describe("a command", () => {
  for (const [title, command, message] of [
    ["that does not exist", "/no/such/command", /cannot be started.*no such command/],
    ["that is not executable", script, /cannot be started.*not executable/],
    [
      "that is not a program",
      fileURLToPath(new URL("../fixtures/children", import.meta.url)),
      /cannot be started/
    ]
  ] as const) {
    it.scopedLive(`${title} fails each session with an error that says so`, () =>
      withoutLeaks(startCommandFront(command), (front) =>
        Effect.gen(function* () {
          for (const _ of [1, 2]) {
            expectError((yield* openSession(front.url)).answer, { status: 502, code: ERROR, id: 0, message })
          }
          expect(yield* front.health).toMatchObject({ status: "ok", sessions: 0 })
        })
      )
    )
  }
})

describe("a child that does not respond to `initialize`", () => {
  for (const [kind, message] of [
    ["exits at once", /has ended \(exited with code 3: the database is locked\)/],
    ["is killed at once", /has ended \(was ended by SIGKILL\)/]
  ] as const) {
    itIsolates(`because it ${kind} fails the request immediately`, (front) =>
      Effect.gen(function* () {
        const { answer, sessionId } = yield* openSession(front.url, kind)
        expectError(answer, { status: 502, code: ERROR, id: 0, message })
        expect(sessionId).toBeUndefined()
      })
    )
  }

  itIsolates(
    "within --start-timeout fails the request",
    (front) =>
      Effect.gen(function* () {
        const { answer } = yield* openSession(front.url, "never answers")
        expectError(answer, { status: 504, code: ERROR, id: 0, message: /--start-timeout/ })
      }),
    // Long enough for the other session to start on a busy machine.
    { upstream: { startTimeout: 3_000 } }
  )
})

describe("a child that ends during a call", () => {
  for (const [behaviour, message] of [
    ["exit", /has ended \(exited with code 7: out of cheese\)/],
    ["kill", /has ended \(was ended by SIGKILL\)/],
    ["close stdout", /has ended \(closed its standard output\)/],
    ["half a line and exit", /has ended \(exited with code 0\)/],
    // Their descendants hold the pipes open after the child has exited.
    ["fork and exit", /has ended \(exited with code 0\)/],
    ["fork one that ignores SIGTERM and exit", /has ended \(exited with code 0\)/]
  ] as const) {
    itIsolates(`(${behaviour}) ends its session and its descendants`, (front) =>
      Effect.gen(function* () {
        const session = yield* openSession(front.url)
        expectError(yield* callChild(front.url, session, behaviour), {
          status: 502,
          code: ERROR,
          id: 1,
          message
        })
        yield* front.untilHealth(({ sessions }) => sessions === 1)
        yield* expectGone(front, session)
      })
    )
  }

  itIsolates("(close stdin) ends its session when it gets a message", (front) =>
    Effect.gen(function* () {
      const session = yield* openSession(front.url)
      expectText(yield* callChild(front.url, session, "close stdin"), 1, "close stdin")
      const message = /closed its standard input/
      expectError(yield* callChild(front.url, session, "hello", 2), {
        status: 502,
        code: ERROR,
        id: 2,
        message
      })
      yield* front.untilHealth(({ sessions }) => sessions === 1)
      yield* expectGone(front, session)
    })
  )

  itIsolates("can write its last message without a newline", (front) =>
    Effect.gen(function* () {
      const session = yield* openSession(front.url)
      expectText(yield* callChild(front.url, session, "end without a newline"), 1, "end without a newline")
      yield* front.untilHealth(({ sessions }) => sessions === 1)
    })
  )

  itIsolates("fails all calls, including one with a stream", (front) =>
    Effect.gen(function* () {
      const session = yield* openSession(front.url)
      const streaming = yield* stream(front.url, {
        method: "POST",
        headers: { ...session.session, accept: "text/event-stream" },
        body: callTool("s", "never answer")
      })
      const standalone = yield* stream(front.url, { headers: session.session })
      expectError(yield* callChild(front.url, session, "exit"), { status: 502, code: ERROR, id: 1 })
      expect(yield* streaming.end).toBe("ended")
      expect(streaming.messages()).toMatchObject([
        { id: "s", error: { message: expect.stringContaining("code 7: out of cheese") } }
      ])
      expect(yield* standalone.end).toBe("ended")
    })
  )

  itIsolates("(after three messages) ends its session", (front) =>
    Effect.gen(function* () {
      const session = yield* openSession(front.url, "exits after three")
      expectText(yield* callChild(front.url, session, "one"), 1, "one")
      expectText(yield* callChild(front.url, session, "two", 2), 2, "two")
      yield* front.untilHealth(({ sessions }) => sessions === 1)
      yield* expectGone(front, session)
    })
  )
})

describe("a child that writes invalid output", () => {
  for (const behaviour of ["answer twice", "answer an unknown id"]) {
    itIsolates(`(${behaviour}) has its unexpected responses dropped`, (front) =>
      Effect.gen(function* () {
        const session = yield* openSession(front.url)
        const answer = yield* callChild(front.url, session, behaviour)
        expect(messages(answer)).toEqual([toolResult(1, behaviour)])
        const next = yield* callChild(front.url, session, "next", 2)
        expect(messages(next)).toEqual([toolResult(2, "next")])
        yield* del(front.url, session.session)
      })
    )
  }

  itIsolates("(a banner before the first message) keeps its session", (front) =>
    Effect.gen(function* () {
      const session = yield* openSession(front.url, "prints a banner")
      expectText(yield* callChild(front.url, session, "hello"), 1, "hello")
      yield* del(front.url, session.session)
    })
  )

  itIsolates("(a character split between two writes) is decoded correctly", (front) =>
    Effect.gen(function* () {
      const session = yield* openSession(front.url)
      const answer = yield* stream(front.url, {
        method: "POST",
        headers: session.session,
        body: callTool(1, "split a character")
      })
      yield* answer.event(0)
      yield* post(front.url, { jsonrpc: "2.0", method: "notifications/go" }, session.session)
      expect(yield* answer.end).toBe("ended")
      expect(answer.messages().at(-1)).toEqual(toolResult(1, "café"))
      yield* del(front.url, session.session)
    })
  )

  itIsolates("(half a line) keeps its call open until the client ends the session", (front) =>
    Effect.gen(function* () {
      const session = yield* openSession(front.url)
      const call = yield* stream(front.url, {
        method: "POST",
        headers: session.session,
        body: callTool(1, "half a line")
      })
      expect(call.messages()).toEqual([])
      expect((yield* del(front.url, session.session)).status).toBe(200)
      expect(yield* call.end).toBe("ended")
      expect(call.messages()).toMatchObject([{ id: 1, error: { code: NO_SESSION } }])
    })
  )

  itIsolates(
    "(a line longer than --max-message) loses its session, but no other",
    (front) =>
      Effect.gen(function* () {
        const session = yield* openSession(front.url)
        expectError(yield* callChild(front.url, session, "long line"), {
          status: 502,
          code: ERROR,
          id: 1,
          message: /has ended \(sent a message of more than --max-message 65536 bytes\)/
        })
        yield* front.untilHealth(({ sessions }) => sessions === 1)
        yield* expectGone(front, session)
      }),
    { upstream: { maxMessage: 65_536 } }
  )
})

describe("a child that floods", () => {
  itIsolates("its standard output does not delay other sessions, and ends with its session", (front) =>
    Effect.gen(function* () {
      const session = yield* openSession(front.url)
      const call = yield* stream(front.url, {
        method: "POST",
        headers: session.session,
        body: callTool(1, "flood stdout")
      })
      yield* call.event(1000)
      const other = yield* openSession(front.url)
      expectText(yield* callChild(front.url, other, "hello"), 1, "hello")
      yield* del(front.url, other.session)
      yield* call.drop
      expect((yield* del(front.url, session.session)).status).toBe(200)
    })
  )

  itIsolates("its standard error keeps its session", (front) =>
    Effect.gen(function* () {
      const session = yield* openSession(front.url)
      expectText(yield* callChild(front.url, session, "flood stderr"), 1, "flood stderr")
      expectText(yield* callChild(front.url, session, "hello", 2), 2, "hello")
      yield* del(front.url, session.session)
    })
  )
})

describe("a child that never reads", () => {
  itIsolates(
    "fails its calls when --max-message bytes are waiting, and can be ended",
    (front) =>
      Effect.gen(function* () {
        const session = yield* openSession(front.url, "never reads")
        const call = callTool("large", "hello", { data: "x".repeat(300_000) })
        const first = yield* Effect.fork(post(front.url, call, session.session))
        yield* front.untilHealth(({ bufferedBytes }) => bufferedBytes > 300_000)
        const message = /does not read.*--max-message 100000/
        expectError(yield* callChild(front.url, session, "hello"), {
          status: 503,
          code: ERROR,
          id: 1,
          message
        })
        expect((yield* del(front.url, session.session)).status).toBe(200)
        yield* Fiber.await(first)
      }),
    { upstream: { maxMessage: 100_000 } }
  )

  itIsolates("blocks only its own client", (front) =>
    Effect.gen(function* () {
      const session = yield* openSession(front.url, "never reads")
      const data = "x".repeat(1024 * 1024)
      const notification = { jsonrpc: "2.0", method: "notifications/large", params: { data } }
      const waiting = yield* Effect.fork(post(front.url, notification, session.session))
      // The proxy has received the notification and waits for the pipe.
      yield* front.untilHealth(({ bufferedBytes }) => bufferedBytes > data.length)
      const other = yield* openSession(front.url)
      expectText(yield* callChild(front.url, other, "hello"), 1, "hello")
      yield* del(front.url, other.session)
      expect((yield* del(front.url, session.session)).status).toBe(200)
      expectError(yield* Fiber.join(waiting), { status: 404, code: NO_SESSION })
    })
  )
})

describe("DELETE ends", () => {
  const itEnds = (name: string, kind: string, ...calls: ReadonlyArray<string>) =>
    itIsolates(name, (front) =>
      Effect.gen(function* () {
        const session = yield* openSession(front.url, kind)
        for (const [id, behaviour] of calls.entries()) {
          expectText(yield* callChild(front.url, session, behaviour, id), id, behaviour)
        }
        expect((yield* del(front.url, session.session)).status).toBe(200)
      })
    )

  itEnds("a child that ignores the end of its input and SIGTERM", "ignores SIGTERM")
  itEnds("a child that begins to ignore them", "good", "ignore SIGTERM")
  itEnds("the descendants of a child", "good", "fork", "fork", "fork")
  itEnds("the descendants of a child that ignores SIGTERM", "ignores SIGTERM", "fork")
  itEnds("a descendant that left the process group", "good", "fork out of the group")
  itEnds(
    "a descendant that left the process group of a child that ignores SIGTERM",
    "ignores SIGTERM",
    "fork out of the group"
  )
  itEnds("a Node.js server that replaced a shell", "is Node", "hello")
  itEnds("a Node.js server that a shell runs", "is wrapped Node", "hello")

  for (const kind of ["good", "ignores SIGTERM"]) {
    it.scopedLive(`a server (${kind}) in a process session of its own, whose parent waits for it`, () =>
      withoutLeaks(startCommandFront("setsid", { upstream: { args: ["--wait", "sh", script] } }), (front) =>
        Effect.gen(function* () {
          const session = yield* openSession(front.url, kind)
          expectText(yield* callChild(front.url, session, "hello"), 1, "hello")
          expect(new Set(front.tracker.alive().map(({ group }) => group)).size).toBe(2)
          yield* del(front.url, session.session)
          yield* front.tracker.untilEmpty()
        })
      )
    )
  }

  it.scopedLive("a server that `sh -c` runs", () =>
    withoutLeaks(startCommandFront("sh", { upstream: { args: ["-c", `sh '${script}'; exit`] } }), (front) =>
      Effect.gen(function* () {
        const session = yield* openSession(front.url, "ignores SIGTERM")
        expect(front.tracker.alive()).toHaveLength(2)
        yield* del(front.url, session.session)
        yield* front.tracker.untilEmpty()
      })
    )
  )
})

/** Opens sessions with two children that ignore SIGTERM, one of them with descendants, and with two others. */
const populate = (url: string) =>
  Effect.gen(function* () {
    const session = yield* openSession(url, "ignores SIGTERM")
    yield* callChild(url, session, "fork")
    yield* callChild(url, session, "fork out of the group")
    return yield* Effect.forEach(["ignores SIGTERM", "good", "is wrapped Node"], (kind) =>
      openSession(url, kind)
    )
  })

const population = 7

/** Waits until all processes have executed their programs, and returns them. */
const untilPopulated = (tracker: ProcessTracker) =>
  tracker.until(
    (alive) =>
      alive.length === population && alive.filter(({ command }) => command === "sleep 300").length === 2
  )

describe("the proxy", () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    it.scopedLive(`ends all children on ${signal} and exits with code 0`, () =>
      Effect.gen(function* () {
        const cli = yield* startChildrenCli()
        yield* populate(cli.url)
        expect(yield* untilPopulated(cli.tracker)).toHaveLength(population)
        yield* cli.signal(signal)
        expect(yield* cli.exit).toEqual({ code: 0, signal: null })
        expect(cli.tracker.alive()).toEqual([])
        expect(watchdogsOf(cli.pid)).toEqual([])
      })
    )
  }

  it.scopedLive("leaves no children when it is killed", () =>
    Effect.gen(function* () {
      const cli = yield* startChildrenCli()
      yield* populate(cli.url)
      const all = yield* untilPopulated(cli.tracker)
      expect(all).toHaveLength(population)
      expect(cli.tracker.aliveWithMarker()).toEqual(all)
      const [watchdog] = watchdogsOf(cli.pid)
      yield* cli.signal("SIGKILL")
      yield* cli.tracker.untilEmpty()
      yield* eventually(
        Effect.sync(() => processes().filter(({ pid }) => pid === watchdog?.pid)),
        (left) => left.length === 0
      )
    })
  )

  it.scopedLive("leaves no children when it is killed after its watchdog was killed", () =>
    Effect.gen(function* () {
      const cli = yield* startChildrenCli()
      const opened = yield* populate(cli.url)
      const [first] = watchdogsOf(cli.pid)
      process.kill(first?.pid ?? 0, "SIGKILL")
      const [second] = yield* eventually(
        Effect.sync(() => watchdogsOf(cli.pid)),
        ([now]) => now !== undefined && now.pid !== first?.pid
      )
      expect(second).toBeDefined()
      for (const session of opened) expectText(yield* callChild(cli.url, session, "hello"), 1, "hello")
      expect((yield* get(new URL("/health", cli.url).href)).status).toBe(200)
      yield* cli.signal("SIGKILL")
      yield* cli.tracker.untilEmpty()
    })
  )
})
