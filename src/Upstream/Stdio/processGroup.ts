/** Runs a command in its own process group, and ends the whole group when the scope closes. */
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
  /** The complete environment of the command, except the watchdog's marker. */
  readonly env: Readonly<Record<string, string>>
  /** The destination of the standard error of the command. */
  readonly stderr: "pipe" | "inherit"
  /** The maximum wait for the end of the group after its input is closed, and again after SIGTERM, in milliseconds. */
  readonly killTimeout: number
}

/** The maximum wait for the end of the group after SIGKILL. */
const SIGKILL_TIMEOUT = Duration.seconds(1)

/** The interval between checks for an empty group, after its leader has exited. The system sends no event for this. */
const POLL_INTERVAL = Duration.millis(10)

/** The interval between checks for a group of zombies. It is longer, because this check reads all processes. */
const ZOMBIE_POLL_INTERVAL = Duration.millis(250)

/** The error if the system cannot start the command. */
export class SpawnError extends Data.TaggedError("SpawnError")<{ readonly cause: unknown }> {}

/** Starts a command. When the scope closes, its process group is ended. */
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
    Effect.try({ try: () => spawnGroup(options, watchdog), catch: (cause) => new SpawnError({ cause }) }),
    (child) =>
      Effect.async((resume) => {
        child.once("spawn", () => resume(Effect.succeed(child)))
        child.on("error", (cause) => resume(new SpawnError({ cause })))
      })
  )

const spawnGroup = (options: ProcessGroupOptions, watchdog: Watchdog): ChildProcess => {
  const mark = watchdog.createMark()
  const child = spawn(options.command, options.args, {
    // The child becomes the leader of a new session and process group.
    detached: true,
    stdio: ["pipe", "pipe", options.stderr],
    env: { ...options.env, [MARKER]: mark },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd })
  })
  if (child.pid !== undefined) watchdog.addGroup(child.pid, mark)
  return child
}

/**
 * Closes standard input, then sends SIGTERM and then SIGKILL to the whole group, until the group has ended (2025-11-25,
 * Lifecycle, "Shutdown").
 */
const stop = (child: ChildProcess, killTimeout: number): Effect.Effect<void> =>
  Effect.gen(function* () {
    const timeout = Duration.millis(killTimeout)
    child.stdin?.end()
    if (yield* waitForEnd(child, timeout)) return
    signalGroup(child, "SIGTERM")
    if (yield* waitForEnd(child, timeout)) return
    signalGroup(child, "SIGKILL")
    yield* waitForEnd(child, SIGKILL_TIMEOUT)
  })

/** Waits for the end of the whole group. Succeeds with false after a timeout. */
const waitForEnd = (child: ChildProcess, timeout: Duration.Duration): Effect.Effect<boolean> =>
  Effect.suspend(() => (hasExited(child) ? Effect.void : waitForExit(child))).pipe(
    Effect.andThen(Effect.suspend(() => (isGroupEmpty(child) ? Effect.void : waitUntilEmpty(child)))),
    Effect.interruptible,
    Effect.timeoutTo({ duration: timeout, onSuccess: () => true, onTimeout: () => false })
  )

/** Waits until the group has no process, or only zombies. */
const waitUntilEmpty = (child: ChildProcess): Effect.Effect<void> =>
  Effect.raceFirst(
    poll(
      Effect.sync(() => isGroupEmpty(child)),
      POLL_INTERVAL
    ),
    poll(child.pid === undefined ? Effect.succeed(true) : hasOnlyZombies(child.pid), ZOMBIE_POLL_INTERVAL)
  )

const poll = (condition: Effect.Effect<boolean>, interval: Duration.Duration): Effect.Effect<void> =>
  Effect.repeat(Effect.delay(condition, interval), { until: (isTrue) => isTrue })

const hasExited = ({ exitCode, signalCode }: ChildProcess): boolean =>
  exitCode !== null || signalCode !== null

const waitForExit = (child: ChildProcess): Effect.Effect<void> =>
  Effect.async((resume) => {
    const onExit = () => resume(Effect.void)
    child.once("exit", onExit)
    return Effect.sync(() => child.off("exit", onExit))
  })

const isGroupEmpty = (child: ChildProcess): boolean => !signalGroup(child, 0)

/** Sends a signal to the whole group. Signal 0 only checks for processes. Returns false if the group has none. */
const signalGroup = ({ pid }: ChildProcess, signal: NodeJS.Signals | 0): boolean => {
  try {
    return pid !== undefined && process.kill(-pid, signal)
  } catch {
    return false
  }
}
