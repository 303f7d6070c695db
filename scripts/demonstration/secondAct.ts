/** The second act: the demo server is killed while the clients call, and then the proxy, and each comes back. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { echo } from "./calls.js"
import type { Client } from "./clients.js"
import type { DemoFailure } from "./failure.js"
import { liveSessions } from "./health.js"
import { load } from "./load.js"
import type { Progress } from "./progress.js"
import type { HttpUpstream, Servers } from "./servers.js"
import { Tally } from "./tally.js"

export interface SecondAct {
  /** How many clients' next call in the same session was answered. */
  readonly wentOn: number
  /** The first reason why one was not. */
  readonly firstError: string | undefined
  /** As the proxy counts them after that. */
  readonly sessions: number
  /** Calls that failed meanwhile: those in flight at a killing, and those that found no proxy. */
  readonly interrupted: number
  readonly calls: number
}

/** How long the clients call around each killing, in seconds, and how much of that has passed then. */
const seconds = 2
const before = 0.5

/** A number that no call of the first act has. */
const lastCall = 1_000_000

export const secondAct = (
  servers: Servers,
  upstream: HttpUpstream,
  clients: ReadonlyArray<Client>,
  progress: Progress
): Effect.Effect<SecondAct, DemoFailure> =>
  Effect.gen(function* () {
    const meanwhile = new Tally()
    const through = (event: Effect.Effect<void, DemoFailure>) =>
      Effect.all([load(clients, seconds, meanwhile, false), Effect.delay(event, Duration.seconds(before))], {
        concurrency: "unbounded",
        discard: true
      })

    progress.begin("killing the demo server, which comes back and knows nobody")
    yield* through(
      Effect.gen(function* () {
        yield* upstream.server.kill
        upstream.issued.clear()
        upstream.server = yield* upstream.startServer
      })
    )
    progress.begin("killing the proxy, which comes back and knows everybody")
    yield* through(
      Effect.gen(function* () {
        yield* servers.proxy.kill
        servers.proxy = yield* upstream.startProxy
      })
    )

    progress.begin("calling once more from every client")
    const after = new Tally()
    yield* Effect.forEach(
      clients,
      (client) =>
        Effect.match(echo(client, lastCall), {
          onFailure: ({ message }) => after.fail(message),
          onSuccess: () => after.timed(0)
        }),
      { concurrency: "unbounded", discard: true }
    )
    return {
      wentOn: clients.length - after.errors,
      firstError: after.firstError,
      sessions: yield* liveSessions(servers.proxy.url),
      interrupted: meanwhile.errors,
      calls: meanwhile.calls
    }
  })
