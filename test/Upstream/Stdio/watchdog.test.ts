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
import { isAlive, watchdogsOf } from "../../fixtures/processes.js"

/** Starts a process in a group of its own. */
const startSleeper = (mark: string): Effect.Effect<number, never, Scope.Scope> =>
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

const untilEnded = (pid: number) =>
  eventually(
    Effect.sync(() => isAlive(pid)),
    (alive) => !alive
  )

/** Changes PATH until the scope closes. */
const setPath = (change: (path: string) => string): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(
    Effect.acquireRelease(
      Effect.sync(() => {
        const before = process.env["PATH"] ?? ""
        process.env["PATH"] = change(before)
        return before
      }),
      (before) => Effect.sync(() => (process.env["PATH"] = before))
    )
  )

/** Installs a `grep` that works but exits with 2, as it does when a process ends during the search. */
const failingGrep = Effect.gen(function* () {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "grep-"))),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
  )
  const file = join(folder, "grep")
  writeFileSync(file, `#!/bin/sh\nPATH=$\{PATH#*:}\nexport PATH\ngrep "$@"\nexit 2\n`)
  chmodSync(file, 0o755)
  yield* setPath((before) => `${folder}:${before}`)
})

describe("the watchdog", () => {
  it.scopedLive("kills its groups and the processes with its marks when its scope closes", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const watchdog = yield* Scope.extend(Watchdog.make, scope)
      const stranger = yield* startSleeper("another mark")
      const inGroup = yield* startSleeper("no mark")
      watchdog.addGroup(inGroup, watchdog.createMark())
      const marked = yield* startSleeper(watchdog.createMark())
      yield* Scope.close(scope, Exit.void)
      yield* untilEnded(inGroup)
      yield* untilEnded(marked)
      expect(isAlive(stranger)).toBe(true)
      expect(watchdogsOf(process.pid)).toEqual([])
    })
  )

  it.scopedLive("kills processes that left a group after the group has ended, and no others", () =>
    Effect.gen(function* () {
      const watchdog = yield* Watchdog.make
      const marks = Array.from({ length: 12 }, () => watchdog.createMark())
      const left = yield* Effect.forEach(marks, startSleeper)
      // No process has these numbers.
      for (const [index, mark] of marks.entries()) watchdog.addGroup(2 ** 30 + index, mark)
      watchdog.removeGroup(2 ** 30)
      watchdog.removeGroup(2 ** 30 + 5)
      yield* untilEnded(left[0] ?? 0)
      yield* untilEnded(left[5] ?? 0)
      // The numbers of the last three marks begin with that of the first mark.
      expect(left.map(isAlive)).toEqual(marks.map((_, index) => index !== 0 && index !== 5))
      // A later search names only the marks of groups that ended since.
      watchdog.removeGroup(2 ** 30 + 1)
      yield* untilEnded(left[1] ?? 0)
      expect(left.filter(isAlive)).toHaveLength(9)
    })
  )

  it.scopedLive("ignores that the search fails for some processes", () =>
    Effect.gen(function* () {
      yield* failingGrep
      const scope = yield* Scope.make()
      const watchdog = yield* Scope.extend(Watchdog.make, scope)
      const marked = yield* startSleeper(watchdog.createMark())
      yield* Scope.close(scope, Exit.void)
      yield* untilEnded(marked)
    })
  )

  it.scopedLive("is restarted when it is killed, and keeps its groups", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const watchdog = yield* Scope.extend(Watchdog.make, scope)
      const inGroup = yield* startSleeper("no mark")
      watchdog.addGroup(inGroup, watchdog.createMark())
      for (let time = 0; time < 3; time++) {
        const [shell] = watchdogsOf(process.pid)
        process.kill(shell?.pid ?? 0, "SIGKILL")
        yield* eventually(
          Effect.sync(() => watchdogsOf(process.pid)),
          ([now]) => now !== undefined && now.pid !== shell?.pid
        )
      }
      expect(isAlive(inGroup)).toBe(true)
      yield* Scope.close(scope, Exit.void)
      yield* untilEnded(inGroup)
      expect(watchdogsOf(process.pid)).toEqual([])
    })
  )

  it.scopedLive("does nothing if there is no shell", () =>
    Effect.gen(function* () {
      yield* setPath(() => "/nowhere")
      const watchdog = yield* Watchdog.make
      watchdog.addGroup(2 ** 30, watchdog.createMark())
      watchdog.removeGroup(2 ** 30)
      expect(watchdogsOf(process.pid)).toEqual([])
    })
  )
})
