import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { ChildProcess } from "node:child_process"
import * as ProcessGroup from "../../../src/Upstream/Stdio/processGroup.js"
import * as Watchdog from "../../../src/Upstream/Stdio/watchdog.js"
import { hasOnlyZombies } from "../../../src/Upstream/Stdio/zombies.js"
import { eventually } from "../../fixtures/eventually.js"
import { descriptorsOpenedSince, openDescriptors } from "../../fixtures/leaks.js"
import { ProcessTracker, zombies } from "../../fixtures/processes.js"

/** Longer than a test may take: what waits for it fails. */
const never = 60_000

const start = (
  watchdog: Watchdog.Watchdog,
  {
    census,
    script,
    ...options
  }: Partial<ProcessGroup.ProcessGroupOptions> & { census: ProcessTracker; script: string }
) =>
  ProcessGroup.start(
    {
      command: "/bin/sh",
      args: ["-c", script],
      cwd: undefined,
      env: { PATH: process.env["PATH"] ?? "", ...census.env },
      stderr: "pipe",
      killTimeout: never,
      ...options
    },
    watchdog
  )

/** Its first line. */
const said = ({ stdout }: ChildProcess): Effect.Effect<string> =>
  Effect.async((resume) => {
    stdout?.once("data", (chunk: Buffer) => resume(Effect.succeed(chunk.toString())))
  })

/** Runs a script until it has said something, and tells how it ended after that. */
const ending = (script: string, killTimeout = never) =>
  Effect.gen(function* () {
    const census = new ProcessTracker()
    const watchdog = yield* Watchdog.make
    const before = yield* openDescriptors
    const child = yield* Effect.scoped(Effect.tap(start(watchdog, { census, script, killTimeout }), said))
    expect(census.alive()).toEqual([])
    yield* eventually(descriptorsOpenedSince(before), (opened) => opened.length === 0)
    return child.signalCode ?? child.exitCode
  })

describe("a process group ends with its scope", () => {
  it.scopedLive("at the end of its input, if that is how it ends", () =>
    Effect.gen(function* () {
      expect(yield* ending("echo; read -r line; exit 3")).toBe(3)
    })
  )

  it.scopedLive("when it has ended already", () =>
    Effect.gen(function* () {
      expect(yield* ending("echo; exit 4")).toBe(4)
    })
  )

  it.scopedLive("by SIGTERM, if the end of its input means nothing to it", () =>
    Effect.gen(function* () {
      expect(yield* ending("echo; exec sleep 300", 50)).toBe("SIGTERM")
    })
  )

  it.scopedLive("by SIGKILL, if SIGTERM means nothing either", () =>
    Effect.gen(function* () {
      expect(yield* ending("trap '' TERM; echo; while :; do sleep 300; done", 50)).toBe("SIGKILL")
    })
  )

  it.scopedLive("with those who outlive its leader", () =>
    Effect.gen(function* () {
      expect(yield* ending("sleep 300 & (trap '' TERM; exec sleep 300) & echo; exit 5", 50)).toBe(5)
    })
  )

  it.scopedLive("waiting for those who outlive its leader, if they end by themselves", () =>
    Effect.gen(function* () {
      expect(yield* ending("exec 3<&0; (read -r line <&3; sleep 0.1) & echo; exit 6")).toBe(6)
    })
  )

  it.scopedLive("without waiting for zombies that nobody will ever ask how they have ended", () =>
    Effect.gen(function* () {
      const census = new ProcessTracker()
      const watchdog = yield* Watchdog.make
      const scope = yield* Scope.make()
      // Whoever has started the zombie leaves the group, goes on as another program, and does not ask.
      const script = "(: & exec setsid sleep 300) & echo; read -r line"
      const child = yield* Scope.extend(start(watchdog, { census, script }), scope)
      const group = child.pid ?? 0
      yield* said(child)
      yield* census.until((alive) => alive.some(({ command }) => command === "sleep 300"))
      yield* eventually(Effect.sync(zombies), (all) => all.some((zombie) => zombie.group === group))
      expect(yield* hasOnlyZombies(group)).toBe(false)
      yield* Scope.close(scope, Exit.void)
      expect(zombies().some((zombie) => zombie.group === group)).toBe(true)
      // The other has left the group, and follows.
      yield* census.untilEmpty()
    })
  )
})

describe("a pipe that somebody else holds", () => {
  it.scopedLive("is closed here all the same", () =>
    Effect.gen(function* () {
      const watchdog = yield* Watchdog.make
      const before = yield* openDescriptors
      // Without a mark and in a session of its own, nobody knows it.
      const script = 'env -i "$(command -v setsid)" "$(command -v sleep)" 300 & echo $!; exit'
      const holder = yield* Effect.scoped(
        Effect.flatMap(start(watchdog, { census: new ProcessTracker(), script }), said)
      )
      yield* Effect.addFinalizer(() => Effect.sync(() => process.kill(Number(holder), "SIGKILL")))
      yield* eventually(descriptorsOpenedSince(before), (opened) => opened.length === 0)
    })
  )
})

describe("a command that cannot be started", () => {
  for (const [options, message] of [
    [{ command: "/no/such/command" }, /ENOENT/],
    [{ cwd: "/no/such/folder" }, /ENOENT/],
    [{ command: "/" }, /EACCES/],
    [{ command: "no\0command" }, /null bytes/]
  ] as const) {
    it.scopedLive(`fails with the system's error: ${JSON.stringify(options)}`, () =>
      Effect.gen(function* () {
        const watchdog = yield* Watchdog.make
        const before = yield* openDescriptors
        const { cause } = yield* Effect.flip(
          start(watchdog, { census: new ProcessTracker(), script: "", ...options })
        )
        expect(String(cause)).toMatch(message)
        yield* eventually(descriptorsOpenedSince(before), (opened) => opened.length === 0)
      })
    )
  }
})
