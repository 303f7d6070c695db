import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { DemoFailure } from "./failure.js"

/** How a process has ended: its exit code, or the signal that killed it. */
export type Ending = number | NodeJS.Signals

export interface ServerOptions {
  readonly name: string
  /** The arguments of `node`. */
  readonly args: ReadonlyArray<string>
  /** Nothing of the demo's own environment is handed on: neither options of the proxy nor any secret. */
  readonly env?: Readonly<Record<string, string>>
  readonly onLine?: (line: string) => void
}

/** A server that runs as a process of its own and listens. */
export interface Server {
  readonly url: string
  readonly pid: number
  readonly ended: Effect.Effect<Ending>
  /** Fails as soon as the server ends by itself, and never succeeds. */
  readonly endedEarly: Effect.Effect<never, DemoFailure>
  readonly terminate: Effect.Effect<void>
  /** Kills it, as is meant to happen, and waits for its end. */
  readonly kill: Effect.Effect<void>
}

const guard = fileURLToPath(new URL("guard.js", import.meta.url))

const listening = /listening on (http:\/\/127\.0\.0\.1:\d+\/\S*)/

/** How long a server may take to listen where the machine is busy. */
const patience = "15 seconds"

/** Starts a server and waits until it listens. It is killed when the scope closes, if it has not ended by then. */
export const startServer = (options: ServerOptions): Effect.Effect<Server, DemoFailure, Scope.Scope> =>
  Effect.gen(function* () {
    const ended = yield* Deferred.make<Ending>()
    const listens = yield* Deferred.make<string>()
    let lastSaid = ""

    const child = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const child = spawn(process.execPath, ["--import", guard, ...options.args], {
          stdio: ["pipe", "pipe", "pipe"],
          env: { ...options.env },
          // In a group of its own, a server does not hear the terminal's Ctrl-C: the demo decides what it means.
          detached: true
        })
        // A child that is gone closes its end of this pipe, which says no more than its exit does.
        child.stdin.on("error", () => {})
        child.once("error", (error) => {
          lastSaid = error.message
          Deferred.unsafeDone(ended, Effect.succeed(1))
        })
        child.once("exit", (code, signal) => {
          Deferred.unsafeDone(ended, Effect.succeed(code ?? signal ?? 1))
        })
        for (const stream of [child.stdout, child.stderr]) {
          createInterface({ input: stream }).on("line", (line) => {
            if (line.trim() !== "") lastSaid = line.trim()
            options.onLine?.(line)
            const url = listening.exec(line)?.[1]
            if (url !== undefined) Deferred.unsafeDone(listens, Effect.succeed(url))
          })
        }
        return child
      }),
      (child) =>
        Effect.suspend(() => {
          child.kill("SIGKILL")
          return Deferred.await(ended)
        })
    )

    let isKilled = false
    const endedEarly = Effect.flatMap(Deferred.await(ended), (ending) =>
      isKilled
        ? Effect.never
        : Effect.fail(
            new DemoFailure({
              message: `${options.name} ended by itself (${ending}) and last said: ${lastSaid}`
            })
          )
    )
    const url = yield* Deferred.await(listens).pipe(
      Effect.raceFirst(endedEarly),
      Effect.timeoutFail({
        duration: patience,
        onTimeout: () =>
          new DemoFailure({ message: `${options.name} did not listen within ${patience}: ${lastSaid}` })
      })
    )
    return {
      url,
      pid: child.pid ?? 0,
      ended: Deferred.await(ended),
      endedEarly,
      terminate: Effect.sync(() => child.kill("SIGTERM")),
      kill: Effect.suspend(() => {
        isKilled = true
        child.kill("SIGKILL")
        return Effect.asVoid(Deferred.await(ended))
      })
    }
  })
