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

/** Longer than the time limit of a test, so that a test that waits for it fails. */
const NEVER = 60_000

const start = (
  watchdog: Watchdog.Watchdog,
  {
    tracker,
    script,
    ...options
  }: Partial<ProcessGroup.ProcessGroupOptions> & { tracker: ProcessTracker; script: string }
) =>
  ProcessGroup.start(
    {
      command: "/bin/sh",
      args: ["-c", script],
      cwd: undefined,
      env: { PATH: process.env["PATH"] ?? "", ...tracker.env },
      stderr: "pipe",
      killTimeout: NEVER,
      ...options
    },
    watchdog
  )

/** Waits for the first output of a child. */
const firstOutput = ({ stdout }: ChildProcess): Effect.Effect<string> =>
  Effect.async((resume) => {
    stdout?.once("data", (chunk: Buffer) => resume(Effect.succeed(chunk.toString())))
  })

const exited = (child: ChildProcess): Effect.Effect<void> =>
  Effect.async((resume) => {
    if (child.exitCode !== null) resume(Effect.void)
    else child.once("exit", () => resume(Effect.void))
  })

/** Runs a script until it is ready, closes the scope, and returns the exit code or signal. */
const run = (
  script: string,
  killTimeout = NEVER,
  untilReady: (child: ChildProcess) => Effect.Effect<unknown> = firstOutput
) =>
  Effect.gen(function* () {
    const tracker = new ProcessTracker()
    const watchdog = yield* Watchdog.make
    const before = yield* openDescriptors
    const child = yield* Effect.scoped(
      Effect.tap(start(watchdog, { tracker, script, killTimeout }), untilReady)
    )
    expect(tracker.alive()).toEqual([])
    yield* eventually(descriptorsOpenedSince(before), (opened) => opened.length === 0)
    return child.signalCode ?? child.exitCode
  })

describe("when the scope closes, a process group", () => {
  it.scopedLive("ends at the end of its input", () =>
    Effect.gen(function* () {
      expect(yield* run("echo; read -r line; exit 3")).toBe(3)
    })
  )

  it.scopedLive("can have ended before", () =>
    Effect.gen(function* () {
      expect(yield* run("echo; exit 4")).toBe(4)
    })
  )

  it.scopedLive("gets SIGTERM if it ignores the end of its input", () =>
    Effect.gen(function* () {
      // The timeout is long enough for a busy machine to end the process before SIGKILL.
      expect(yield* run("echo; exec sleep 300", 1_000)).toBe("SIGTERM")
    })
  )

  it.scopedLive("gets SIGKILL if it ignores SIGTERM too", () =>
    Effect.gen(function* () {
      expect(yield* run("trap '' TERM; echo; while :; do sleep 300; done", 50)).toBe("SIGKILL")
    })
  )

  it.scopedLive("ends together with processes that outlive its leader", () =>
    Effect.gen(function* () {
      const script = "sleep 300 & (trap '' TERM; exec sleep 300) & exit 5"
      expect(yield* run(script, 50, exited)).toBe(5)
    })
  )

  it.scopedLive("gets no signal if the processes that outlive its leader end by themselves", () =>
    Effect.gen(function* () {
      expect(yield* run("exec 3<&0; (read -r line <&3; sleep 0.1) & echo; exit 6")).toBe(6)
    })
  )

  it.scopedLive("ends without waiting for zombies that nobody reaps", () =>
    Effect.gen(function* () {
      const tracker = new ProcessTracker()
      const watchdog = yield* Watchdog.make
      const scope = yield* Scope.make()
      // The parent of the zombie leaves the group and executes another program, which does not reap it.
      const script = "(: & exec setsid sleep 300) & echo; read -r line"
      const child = yield* Scope.extend(start(watchdog, { tracker, script }), scope)
      const group = child.pid ?? 0
      yield* firstOutput(child)
      yield* tracker.until((alive) => alive.some(({ command }) => command === "sleep 300"))
      yield* eventually(Effect.sync(zombies), (all) => all.some((zombie) => zombie.group === group))
      expect(yield* hasOnlyZombies(group)).toBe(false)
      yield* Scope.close(scope, Exit.void)
      expect(zombies().some((zombie) => zombie.group === group)).toBe(true)
      // The watchdog kills the process that left the group.
      yield* tracker.untilEmpty()
    })
  )
})

describe("a pipe that another process holds", () => {
  it.scopedLive("is closed in this process when the scope closes", () =>
    Effect.gen(function* () {
      const watchdog = yield* Watchdog.make
      const before = yield* openDescriptors
      // The watchdog cannot find a process without a mark in a session of its own.
      const script = 'env -i "$(command -v setsid)" "$(command -v sleep)" 300 & echo $!; exit'
      const holder = yield* Effect.scoped(
        Effect.flatMap(start(watchdog, { tracker: new ProcessTracker(), script }), firstOutput)
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
    it.scopedLive(`fails with the error of the system: ${JSON.stringify(options)}`, () =>
      Effect.gen(function* () {
        const watchdog = yield* Watchdog.make
        const before = yield* openDescriptors
        const { cause } = yield* Effect.flip(
          start(watchdog, { tracker: new ProcessTracker(), script: "", ...options })
        )
        expect(String(cause)).toMatch(message)
        yield* eventually(descriptorsOpenedSince(before), (opened) => opened.length === 0)
      })
    )
  }
})
