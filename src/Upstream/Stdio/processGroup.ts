/** A command that runs in a process group of its own, all of which ends with the scope. */
import { type ChildProcess, spawn } from "node:child_process"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { acquireReleaseLight } from "../../internal/acquireReleaseLight.js"
import { MARKER, type Watchdog } from "./watchdog.js"
import { hasOnlyZombies } from "./zombies.js"

export interface ProcessGroupOptions {
  readonly command: string
  readonly args: ReadonlyArray<string>
  readonly cwd: string | undefined
  /** All that the command finds in its environment. */
  readonly env: Readonly<Record<string, string>>
  /** Where its standard error goes. */
  readonly stderr: "pipe" | "inherit"
  /** How long to wait for its end after its input has ended, and again after SIGTERM, in milliseconds. */
  readonly killTimeout: number
}

/** How long the system may take to end what it was told to kill. */
const KILL_PATIENCE = Duration.seconds(1)

/** How often to look whether a group has ended whose leader has: the system does not tell. */
const INTERVAL = Duration.millis(10)

/** How often to look whether those who are left are zombies, which costs more. */
const LOOK_INTERVAL = Duration.millis(250)

/** The command cannot be started, for what the system says. */
export class SpawnError extends Data.TaggedError("NotStarted")<{ readonly cause: unknown }> {}

/** Starts a command. */
export const start = (
  options: ProcessGroupOptions,
  watchdog: Watchdog
): Effect.Effect<ChildProcess, SpawnError, Scope.Scope> =>
  acquireReleaseLight(launch(options, watchdog), (child) =>
    Effect.andThen(stop(child, options.killTimeout), () => {
      if (child.pid !== undefined) watchdog.removeGroup(child.pid)
      for (const pipe of [child.stdin, child.stdout, child.stderr]) pipe?.destroy()
    })
  )

const launch = (options: ProcessGroupOptions, watchdog: Watchdog): Effect.Effect<ChildProcess, SpawnError> =>
  Effect.flatMap(
    Effect.try({ try: () => spawned(options, watchdog), catch: (cause) => new SpawnError({ cause }) }),
    (child) =>
      Effect.async((resume) => {
        child.once("spawn", () => resume(Effect.succeed(child)))
        child.on("error", (cause) => resume(new SpawnError({ cause })))
      })
  )

const spawned = (options: ProcessGroupOptions, watchdog: Watchdog): ChildProcess => {
  const mark = watchdog.createMark()
  const child = spawn(options.command, options.args, {
    // It makes the child the leader of a new session and group.
    detached: true,
    stdio: ["pipe", "pipe", options.stderr],
    env: { ...options.env, [MARKER]: mark },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd })
  })
  if (child.pid !== undefined) watchdog.addGroup(child.pid, mark)
  return child
}

/** The end of input, then SIGTERM, then SIGKILL (Lifecycle, "Shutdown"); the last two go to the whole group. */
const stop = (child: ChildProcess, killTimeout: number): Effect.Effect<void> =>
  Effect.gen(function* () {
    const patience = Duration.millis(killTimeout)
    child.stdin?.end()
    if (yield* ends(child, patience)) return
    signal(child, "SIGTERM")
    if (yield* ends(child, patience)) return
    signal(child, "SIGKILL")
    yield* ends(child, KILL_PATIENCE)
  })

/** Whether the whole group ends in time. Whoever outlives its leader gets no more input that could end. */
const ends = (child: ChildProcess, patience: Duration.Duration): Effect.Effect<boolean> =>
  Effect.suspend(() => (hasExited(child) ? Effect.void : exit(child))).pipe(
    Effect.andThen(Effect.suspend(() => (signal(child, 0) ? emptiness(child) : Effect.void))),
    Effect.interruptible,
    Effect.timeoutTo({ duration: patience, onSuccess: () => true, onTimeout: () => false })
  )

/** Waits until there is nobody in the group. */
const emptiness = (child: ChildProcess): Effect.Effect<void> =>
  Effect.raceFirst(
    until(
      Effect.sync(() => !signal(child, 0)),
      INTERVAL
    ),
    until(child.pid === undefined ? Effect.succeed(true) : hasOnlyZombies(child.pid), LOOK_INTERVAL)
  )

const until = (holds: Effect.Effect<boolean>, interval: Duration.Duration): Effect.Effect<void> =>
  Effect.repeat(Effect.delay(holds, interval), { until: (isSo) => isSo })

const hasExited = ({ exitCode, signalCode }: ChildProcess): boolean =>
  exitCode !== null || signalCode !== null

const exit = (child: ChildProcess): Effect.Effect<void> =>
  Effect.async((resume) => {
    const exited = () => resume(Effect.void)
    child.once("exit", exited)
    return Effect.sync(() => child.off("exit", exited))
  })

/** Signals the whole group; 0 only asks. False when there is nobody in it. */
const signal = ({ pid }: ChildProcess, signal: NodeJS.Signals | 0): boolean => {
  try {
    return pid !== undefined && process.kill(-pid, signal)
  } catch {
    return false
  }
}
