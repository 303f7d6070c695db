import * as Effect from "effect/Effect"
import { type CheckedCall, echo, longOperation, sampling, sum } from "./calls.js"
import type { Client } from "./clients.js"
import type { Tally } from "./tally.js"

/** The short calls of a client, over and over. */
const rota = [echo, sum, sampling, echo, sum]

/**
 * How long a client thinks before a short call, in milliseconds at most. Without it a hundred clients in one process
 * measure how long they wait for each other; a short demo has a call from each all the same.
 */
const longestThought = (seconds: number): number => Math.min(1_000, seconds * 125)

/** Lets one client call, short calls one after the other beside long ones, until so many seconds have passed. */
const life = (client: Client, seconds: number, tally: Tally, hasLongCalls: boolean): Effect.Effect<void> =>
  Effect.suspend(() => {
    const end = performance.now() + seconds * 1000
    let number = 0
    const make = (call: CheckedCall, timed: boolean) =>
      Effect.suspend(() => {
        const started = performance.now()
        tally.calls++
        return Effect.match(call(client, ++number), {
          onFailure: ({ message }) => tally.fail(message),
          onSuccess: () => {
            if (timed) tally.timed(performance.now() - started)
          }
        })
      })
    const untilTheEnd = (body: () => Effect.Effect<void>) =>
      Effect.whileLoop({ while: () => performance.now() < end, body, step: () => {} })

    let turn = 0
    const short = untilTheEnd(() => {
      const call = rota[turn++ % rota.length] ?? echo
      return Effect.delay(make(call, call !== sampling), Math.random() * longestThought(seconds))
    })
    if (!hasLongCalls) return short
    const long = make(longOperation(Math.min(2, seconds / 2)), false)
    return Effect.all([short, untilTheEnd(() => long)], { concurrency: "unbounded", discard: true })
  })

/** Lets all clients call at the same time. */
export const load = (
  clients: ReadonlyArray<Client>,
  seconds: number,
  tally: Tally,
  hasLongCalls = true
): Effect.Effect<void> =>
  Effect.forEach(clients, (client) => life(client, seconds, tally, hasLongCalls), {
    concurrency: "unbounded",
    discard: true
  })
