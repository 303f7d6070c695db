import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { acquireReleaseLight } from "../../src/internal/acquireReleaseLight.js"

describe("acquireReleaseLight", () => {
  it.effect("releases the resource with the exit of the scope", () =>
    Effect.gen(function* () {
      const exits: Array<unknown> = []
      const resource = acquireReleaseLight(Effect.succeed("resource"), (name, exit) =>
        Effect.sync(() => exits.push([name, exit]))
      )
      yield* Effect.scoped(Effect.zipRight(resource, Effect.fail("failure"))).pipe(Effect.ignore)
      expect(exits).toEqual([["resource", Exit.fail("failure")]])
    })
  )

  it.effect("releases a resource whose acquisition was interrupted", () =>
    Effect.gen(function* () {
      const isReady = yield* Deferred.make<void>()
      const continued = yield* Deferred.make<void>()
      let released = 0
      const acquire = Effect.zipRight(Deferred.succeed(isReady, undefined), Deferred.await(continued))
      const fiber = yield* Effect.fork(
        Effect.scoped(
          acquireReleaseLight(acquire, () =>
            Effect.sync(() => {
              released++
            })
          )
        )
      )
      yield* Deferred.await(isReady)
      const interrupting = yield* Effect.fork(Fiber.interrupt(fiber))
      yield* Deferred.succeed(continued, undefined)
      yield* Fiber.join(interrupting)
      expect(released).toBe(1)
    })
  )

  it.effect("releases nothing if the acquisition fails", () =>
    Effect.gen(function* () {
      let released = 0
      const resource = acquireReleaseLight(Effect.fail("failure"), () =>
        Effect.sync(() => {
          released++
        })
      )
      expect(yield* Effect.flip(Effect.scoped(resource))).toBe("failure")
      expect(released).toBe(0)
    })
  )
})
