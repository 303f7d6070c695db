import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Watchdog from "../../../src/Upstream/Stdio/watchdog.js"
import { eventually } from "../../fixtures/eventually.js"
import { processes, watchdogsOf } from "../../fixtures/processes.js"

/** A process that ends when it is killed, in a group of its own. */
const sleeper = (mark: string): Effect.Effect<number, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.async<ReturnType<typeof spawn>>((resume) => {
        const child = spawn("/bin/sleep", ["300"], {
          detached: true,
          stdio: "ignore",
          env: { [Watchdog.MARKER]: mark }
        })
        child.once("spawn", () => resume(Effect.succeed(child)))
      }),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    ),
    ({ pid }) => pid ?? 0
  )

const isAlive = (pid: number): boolean => processes().some((process) => process.pid === pid)

const gone = (pid: number) =>
  eventually(
    Effect.sync(() => isAlive(pid)),
    (alive) => !alive
  )

/** With another PATH while the scope is open. */
const path = (of: (path: string) => string): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(
    Effect.acquireRelease(
      Effect.sync(() => {
        const before = process.env["PATH"] ?? ""
        process.env["PATH"] = of(before)
        return before
      }),
      (before) => Effect.sync(() => (process.env["PATH"] = before))
    )
  )

/** A `grep` that does as it should and says that it has failed, as when a process has ended under its eyes. */
const failingGrep = Effect.gen(function* () {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "grep-"))),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
  )
  const file = join(folder, "grep")
  writeFileSync(file, `#!/bin/sh\nPATH=$\{PATH#*:}\nexport PATH\ngrep "$@"\nexit 2\n`)
  chmodSync(file, 0o755)
  yield* path((before) => `${folder}:${before}`)
})

describe("the watchdog", () => {
  it.scopedLive(
    "kills, when its scope closes, the groups that it guards and what carries a mark of its",
    () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const watchdog = yield* Scope.extend(Watchdog.make, scope)
        const stranger = yield* sleeper("somebody else's")
        const guarded = yield* sleeper("without a mark")
        watchdog.addGroup(guarded, watchdog.createMark())
        const marked = yield* sleeper(watchdog.createMark())
        yield* Scope.close(scope, Exit.void)
        yield* gone(guarded)
        yield* gone(marked)
        expect(isAlive(stranger)).toBe(true)
        expect(watchdogsOf(process.pid)).toEqual([])
      })
  )

  it.scopedLive("kills soon what a group that has ended has left elsewhere, and nothing else", () =>
    Effect.gen(function* () {
      const watchdog = yield* Watchdog.make
      const marks = Array.from({ length: 12 }, () => watchdog.createMark())
      const left = yield* Effect.forEach(marks, sleeper)
      // No process has such numbers.
      for (const [index, mark] of marks.entries()) watchdog.addGroup(2 ** 30 + index, mark)
      watchdog.removeGroup(2 ** 30)
      watchdog.removeGroup(2 ** 30 + 5)
      yield* gone(left[0] ?? 0)
      yield* gone(left[5] ?? 0)
      // The marks of the last three begin with the figure that is the first one's.
      expect(left.map(isAlive)).toEqual(marks.map((_, index) => index !== 0 && index !== 5))
      // Those of a second round are named by themselves.
      watchdog.removeGroup(2 ** 30 + 1)
      yield* gone(left[1] ?? 0)
      expect(left.filter(isAlive)).toHaveLength(9)
    })
  )

  it.scopedLive("does not care that its look at the processes fails in part", () =>
    Effect.gen(function* () {
      yield* failingGrep
      const scope = yield* Scope.make()
      const watchdog = yield* Scope.extend(Watchdog.make, scope)
      const marked = yield* sleeper(watchdog.createMark())
      yield* Scope.close(scope, Exit.void)
      yield* gone(marked)
    })
  )

  it.scopedLive("is replaced when it has been killed, and knows what it has to", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const watchdog = yield* Scope.extend(Watchdog.make, scope)
      const guarded = yield* sleeper("without a mark")
      watchdog.addGroup(guarded, watchdog.createMark())
      for (let time = 0; time < 3; time++) {
        const [shell] = watchdogsOf(process.pid)
        process.kill(shell?.pid ?? 0, "SIGKILL")
        yield* eventually(
          Effect.sync(() => watchdogsOf(process.pid)),
          ([now]) => now !== undefined && now.pid !== shell?.pid
        )
      }
      expect(isAlive(guarded)).toBe(true)
      yield* Scope.close(scope, Exit.void)
      yield* gone(guarded)
      expect(watchdogsOf(process.pid)).toEqual([])
    })
  )

  it.scopedLive("is missed by nobody where there is no shell", () =>
    Effect.gen(function* () {
      yield* path(() => "/nowhere")
      const watchdog = yield* Watchdog.make
      watchdog.addGroup(2 ** 30, watchdog.createMark())
      watchdog.removeGroup(2 ** 30)
      expect(watchdogsOf(process.pid)).toEqual([])
    })
  )
})
