import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { fileURLToPath } from "node:url"
import {
  frontOf,
  open,
  script,
  startChildren,
  startChildrenCli,
  tell,
  type WithChildren
} from "../fixtures/Children.js"
import { eventually } from "../fixtures/eventually.js"
import type { Front, FrontOptions } from "../fixtures/Front.js"
import { openHere, openedSince } from "../fixtures/leaks.js"
import { processes, watchdogsOf } from "../fixtures/processes.js"
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

// What becomes of children that do not behave, and of what they leave behind.

type Children = Front & WithChildren

/** Runs a test with a proxy, after whose end nothing may be left of it: no process, and nothing open here. */
const leavesNothing = <E>(
  start: Effect.Effect<Children, E, Scope.Scope>,
  test: (front: Children) => Effect.Effect<void, unknown, Scope.Scope>
) =>
  Effect.gen(function* () {
    const before = yield* openHere
    const scope = yield* Scope.make()
    const front = yield* Scope.extend(start, scope)
    yield* Effect.ensuring(Effect.scoped(test(front)), Scope.close(scope, Exit.void))
    expect(front.census.alive()).toEqual([])
    yield* eventually(openedSince(before), (opened) => opened.length === 0)
  })

const expectText = (answer: Answer, id: string | number, text: string) => {
  expect(answer.status).toBe(200)
  expect(messages(answer).at(-1)).toEqual(toolResult(id, text))
}

/** A session with a good child before the test, which has to work after it as if nothing had happened. */
const undisturbed = (front: Children, test: Effect.Effect<void, unknown, Scope.Scope>) =>
  Effect.gen(function* () {
    const other = yield* open(front.url)
    const [own] = front.census.alive()
    yield* test
    expectText(yield* tell(front.url, other, "hello", "other"), "other", "hello")
    // It is the only one that is left.
    yield* front.census.until((alive) => alive.length === 1 && alive[0]?.pid === own?.pid)
    expect(yield* front.health).toMatchObject({ sessions: 1 })
  })

const nasty = (
  name: string,
  test: (front: Children) => Effect.Effect<void, unknown, Scope.Scope>,
  options: FrontOptions = {}
) =>
  it.scopedLive(name, () => leavesNothing(startChildren(options), (front) => undisturbed(front, test(front))))

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

describe("a command that", () => {
  for (const [what, command, message] of [
    ["does not exist", "/no/such/command", /cannot be started.*no such command/],
    ["is not executable", script, /cannot be started.*not executable/],
    ["is no program", fileURLToPath(new URL("../fixtures/children", import.meta.url)), /cannot be started/]
  ] as const) {
    it.scopedLive(`${what} is told as such, each time anew`, () =>
      leavesNothing(frontOf(command), (front) =>
        Effect.gen(function* () {
          for (const _ of [1, 2]) {
            expectError((yield* open(front.url)).answer, { status: 502, code: ERROR, id: 0, message })
          }
          expect(yield* front.health).toMatchObject({ status: "ok", sessions: 0 })
        })
      )
    )
  }
})

describe("a child that does not come to answer `initialize`", () => {
  for (const [kind, message] of [
    ["exits at once", /has ended \(exited with code 3: the database is locked\)/],
    ["is killed at once", /has ended \(was ended by SIGKILL\)/]
  ] as const) {
    nasty(`because it ${kind} is told at once`, (front) =>
      Effect.gen(function* () {
        const { answer, sessionId } = yield* open(front.url, kind)
        expectError(answer, { status: 502, code: ERROR, id: 0, message })
        expect(sessionId).toBeUndefined()
      })
    )
  }

  nasty(
    "within --start-timeout is given up",
    (front) =>
      Effect.gen(function* () {
        const { answer } = yield* open(front.url, "never answers")
        expectError(answer, { status: 504, code: ERROR, id: 0, message: /--start-timeout/ })
      }),
    { startTimeout: 300 }
  )
})

describe("a child that ends in the middle of a call", () => {
  for (const [what, message] of [
    ["exit", /has ended \(exited with code 7: out of cheese\)/],
    ["kill", /has ended \(was ended by SIGKILL\)/],
    ["close stdout", /has ended \(closed its standard output\)/],
    ["half a line and exit", /has ended \(exited with code 0\)/],
    // These hold the pipes of the child that has gone.
    ["fork and exit", /has ended \(exited with code 0\)/],
    ["fork a deaf one and exit", /has ended \(exited with code 0\)/]
  ] as const) {
    nasty(`(${what}) ends its session, and all that it has started`, (front) =>
      Effect.gen(function* () {
        const session = yield* open(front.url)
        expectError(yield* tell(front.url, session, what), { status: 502, code: ERROR, id: 1, message })
        yield* front.untilHealth(({ sessions }) => sessions === 1)
        yield* expectGone(front, session)
      })
    )
  }

  nasty("(its input is closed) ends its session when it is told something", (front) =>
    Effect.gen(function* () {
      const session = yield* open(front.url)
      expectText(yield* tell(front.url, session, "close stdin"), 1, "close stdin")
      const message = /closed its standard input/
      expectError(yield* tell(front.url, session, "hello", 2), { status: 502, code: ERROR, id: 2, message })
      yield* front.untilHealth(({ sessions }) => sessions === 1)
      yield* expectGone(front, session)
    })
  )

  nasty("has its last words heard, whatever they end with", (front) =>
    Effect.gen(function* () {
      const session = yield* open(front.url)
      expectText(yield* tell(front.url, session, "end without a newline"), 1, "end without a newline")
      yield* front.untilHealth(({ sessions }) => sessions === 1)
    })
  )

  nasty("tells all its calls, one of them on a stream", (front) =>
    Effect.gen(function* () {
      const session = yield* open(front.url)
      const streaming = yield* stream(front.url, {
        method: "POST",
        headers: { ...session.session, accept: "text/event-stream" },
        body: callTool("s", "never answer")
      })
      const standalone = yield* stream(front.url, { headers: session.session })
      expectError(yield* tell(front.url, session, "exit"), { status: 502, code: ERROR, id: 1 })
      expect(yield* streaming.end).toBe("ended")
      expect(streaming.messages()).toMatchObject([
        { id: "s", error: { message: expect.stringContaining("code 7: out of cheese") } }
      ])
      expect(yield* standalone.end).toBe("ended")
    })
  )

  nasty("or between two of them, after the third message, ends its session", (front) =>
    Effect.gen(function* () {
      const session = yield* open(front.url, "exits after three")
      expectText(yield* tell(front.url, session, "one"), 1, "one")
      expectText(yield* tell(front.url, session, "two", 2), 2, "two")
      yield* front.untilHealth(({ sessions }) => sessions === 1)
      yield* expectGone(front, session)
    })
  )
})

describe("a child that says what it should not", () => {
  for (const what of ["answer twice", "answer another"]) {
    nasty(`(${what}) is believed once, and what nobody asked is dropped`, (front) =>
      Effect.gen(function* () {
        const session = yield* open(front.url)
        const answer = yield* tell(front.url, session, what)
        expect(messages(answer)).toEqual([toolResult(1, what)])
        const next = yield* tell(front.url, session, "next", 2)
        expect(messages(next)).toEqual([toolResult(2, "next")])
        yield* del(front.url, session.session)
      })
    )
  }

  nasty("prints a banner first is understood all the same", (front) =>
    Effect.gen(function* () {
      const session = yield* open(front.url, "prints a banner")
      expectText(yield* tell(front.url, session, "hello"), 1, "hello")
      yield* del(front.url, session.session)
    })
  )

  nasty("splits a character between two writes is understood", (front) =>
    Effect.gen(function* () {
      const session = yield* open(front.url)
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

  nasty("writes half a line and stops is waited for as long as the client likes", (front) =>
    Effect.gen(function* () {
      const session = yield* open(front.url)
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

  nasty(
    "sends a line over --max-message loses its session, and no other",
    (front) =>
      Effect.gen(function* () {
        const session = yield* open(front.url)
        expectError(yield* tell(front.url, session, "long line"), {
          status: 502,
          code: ERROR,
          id: 1,
          message: /has ended \(sent a message of more than --max-message 65536 bytes\)/
        })
        yield* front.untilHealth(({ sessions }) => sessions === 1)
        yield* expectGone(front, session)
      }),
    { maxMessage: 65_536 }
  )
})

describe("a child that floods", () => {
  nasty("its output is read no faster than its client reads, and ends with its session", (front) =>
    Effect.gen(function* () {
      const session = yield* open(front.url)
      const call = yield* stream(front.url, {
        method: "POST",
        headers: session.session,
        body: callTool(1, "flood stdout")
      })
      yield* call.event(1000)
      const other = yield* open(front.url)
      expectText(yield* tell(front.url, other, "hello"), 1, "hello")
      yield* del(front.url, other.session)
      yield* call.drop
      expect((yield* del(front.url, session.session)).status).toBe(200)
    })
  )

  nasty("its standard error goes on working", (front) =>
    Effect.gen(function* () {
      const session = yield* open(front.url)
      expectText(yield* tell(front.url, session, "flood stderr"), 1, "flood stderr")
      expectText(yield* tell(front.url, session, "hello", 2), 2, "hello")
      yield* del(front.url, session.session)
    })
  )
})

describe("a child that never reads", () => {
  nasty(
    "is sent no more than may wait for it, whatever its client cancels",
    (front) =>
      Effect.gen(function* () {
        const session = yield* open(front.url, "never reads")
        const call = callTool("large", "hello", { data: "x".repeat(300_000) })
        const first = yield* Effect.fork(post(front.url, call, session.session))
        yield* front.untilHealth(({ bufferedBytes }) => bufferedBytes > 300_000)
        const message = /does not read.*--max-message 100000/
        expectError(yield* tell(front.url, session, "hello"), { status: 503, code: ERROR, id: 1, message })
        expect((yield* del(front.url, session.session)).status).toBe(200)
        yield* Fiber.await(first)
      }),
    { maxMessage: 100_000 }
  )

  nasty("holds back its own client only", (front) =>
    Effect.gen(function* () {
      const session = yield* open(front.url, "never reads")
      const data = "x".repeat(1024 * 1024)
      const notification = { jsonrpc: "2.0", method: "notifications/large", params: { data } }
      const waiting = yield* Effect.fork(post(front.url, notification, session.session))
      // It has arrived, and is held until the pipe takes it.
      yield* front.untilHealth(({ bufferedBytes }) => bufferedBytes > data.length)
      const other = yield* open(front.url)
      expectText(yield* tell(front.url, other, "hello"), 1, "hello")
      yield* del(front.url, other.session)
      expect((yield* del(front.url, session.session)).status).toBe(200)
      expectError(yield* Fiber.join(waiting), { status: 404, code: NO_SESSION })
    })
  )
})

describe("with its session ends", () => {
  const ends = (name: string, kind: string, ...told: ReadonlyArray<string>) =>
    nasty(name, (front) =>
      Effect.gen(function* () {
        const session = yield* open(front.url, kind)
        for (const [id, what] of told.entries()) {
          expectText(yield* tell(front.url, session, what, id), id, what)
        }
        expect((yield* del(front.url, session.session)).status).toBe(200)
      })
    )

  ends("a child that ignores the end of its input and SIGTERM", "is deaf")
  ends("one that comes to ignore them", "good", "become deaf")
  ends("what it has started", "good", "fork", "fork", "fork")
  ends("what a deaf one has started", "is deaf", "fork")
  ends("what has left its process group", "good", "fork out of the group")
  ends("what has left the group of a deaf one", "is deaf", "fork out of the group")
  ends("a server that has taken the place of a shell", "is Node", "hello")
  ends("a server within a shell", "is wrapped Node", "hello")

  for (const kind of ["good", "is deaf"]) {
    it.scopedLive(`a server in a session of its own (${kind}), behind one that waits for it`, () =>
      leavesNothing(frontOf("setsid", { args: ["--wait", "sh", script] }), (front) =>
        Effect.gen(function* () {
          const session = yield* open(front.url, kind)
          expectText(yield* tell(front.url, session, "hello"), 1, "hello")
          expect(new Set(front.census.alive().map(({ group }) => group)).size).toBe(2)
          yield* del(front.url, session.session)
          yield* front.census.empty()
        })
      )
    )
  }

  it.scopedLive("a server that `sh -c` runs", () =>
    leavesNothing(frontOf("sh", { args: ["-c", `sh '${script}'; exit`] }), (front) =>
      Effect.gen(function* () {
        const session = yield* open(front.url, "is deaf")
        expect(front.census.alive()).toHaveLength(2)
        yield* del(front.url, session.session)
        yield* front.census.empty()
      })
    )
  )
})

/** Two deaf children, one of which has started others of every kind, one that behaves, and one of Node's. */
const populate = (url: string) =>
  Effect.gen(function* () {
    const deaf = yield* open(url, "is deaf")
    yield* tell(url, deaf, "fork")
    yield* tell(url, deaf, "fork out of the group")
    return yield* Effect.forEach(["is deaf", "good", "is wrapped Node"], (kind) => open(url, kind))
  })

const population = 7

describe("the end of the proxy", () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    it.scopedLive(`by ${signal} is the end of all children, and exit 0`, () =>
      Effect.gen(function* () {
        const cli = yield* startChildrenCli()
        yield* populate(cli.url)
        expect(cli.census.alive()).toHaveLength(population)
        yield* cli.signal(signal)
        expect(yield* cli.exit).toEqual({ code: 0, signal: null })
        expect(cli.census.alive()).toEqual([])
        expect(watchdogsOf(cli.pid)).toEqual([])
      })
    )
  }

  it.scopedLive("by SIGKILL is the end of all children", () =>
    Effect.gen(function* () {
      const cli = yield* startChildrenCli()
      yield* populate(cli.url)
      const all = cli.census.alive()
      expect(all).toHaveLength(population)
      expect(cli.census.owned()).toEqual(all)
      const [watchdog] = watchdogsOf(cli.pid)
      yield* cli.signal("SIGKILL")
      yield* cli.census.empty()
      yield* eventually(
        Effect.sync(() => processes().filter(({ pid }) => pid === watchdog?.pid)),
        (left) => left.length === 0
      )
    })
  )

  it.scopedLive("is that of all children even when the watchdog has been killed before", () =>
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
      for (const session of opened) expectText(yield* tell(cli.url, session, "hello"), 1, "hello")
      expect((yield* get(new URL("/health", cli.url).href)).status).toBe(200)
      yield* cli.signal("SIGKILL")
      yield* cli.census.empty()
    })
  )
})
