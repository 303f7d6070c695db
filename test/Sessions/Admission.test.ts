import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Scope from "effect/Scope"
import { Admission, type AdmissionOptions } from "../../src/Sessions/Admission.js"
import { LimitReached } from "../../src/ProxyError.js"

const options: AdmissionOptions = { maxSessions: 3, maxPerClient: 2, limit: "max-sessions" }

const taking = (admission: Admission, client: string) =>
  Effect.flatMap(Scope.make(), (scope) => Effect.as(Scope.extend(admission.reserve(client), scope), scope))

describe("a place", () => {
  it.effect("is taken until its scope closes", () =>
    Effect.gen(function* () {
      const admission = new Admission(options)
      const scope = yield* taking(admission, "a")
      expect(admission.size).toBe(1)
      yield* Scope.close(scope, Exit.void)
      expect(admission.size).toBe(0)
    })
  )

  it.effect("is given back once, however often its scope closes", () =>
    Effect.gen(function* () {
      const admission = new Admission(options)
      const [first] = [yield* taking(admission, "a"), yield* taking(admission, "b")]
      yield* Scope.close(first, Exit.void)
      yield* Scope.close(first, Exit.void)
      expect(admission.size).toBe(1)
    })
  )

  it.effect("is given back at once when the scope is closed already", () =>
    Effect.gen(function* () {
      const admission = new Admission(options)
      const scope = yield* Scope.make()
      yield* Scope.close(scope, Exit.void)
      yield* Scope.extend(admission.reserve("a"), scope)
      expect(admission.size).toBe(0)
    })
  )
})

describe("bounds", () => {
  it.effect("the error names the bound that is reached", () =>
    Effect.gen(function* () {
      const admission = new Admission(options)
      yield* taking(admission, "a")
      yield* taking(admission, "a")
      expect(yield* Effect.flip(taking(admission, "a"))).toEqual(
        new LimitReached({ limit: "max-per-client", bound: 2 })
      )
      yield* taking(admission, "b")
      expect(yield* Effect.flip(taking(admission, "b"))).toEqual(
        new LimitReached({ limit: "max-sessions", bound: 3 })
      )
    })
  )

  it.effect("without a bound of its own, one client may have all places", () =>
    Effect.gen(function* () {
      const admission = new Admission({ ...options, maxPerClient: undefined })
      yield* Effect.repeatN(taking(admission, "a"), 2)
      expect(admission.size).toBe(3)
    })
  )

  it.effect("no number of simultaneous clients gets past them", () =>
    Effect.gen(function* () {
      const admission = new Admission(options)
      const attempts = Array.from({ length: 50 }, (_, index) =>
        Effect.isSuccess(taking(admission, `client ${index % 7}`))
      )
      const admitted = yield* Effect.all(attempts, { concurrency: "unbounded" })
      expect(admitted.filter(Boolean).length).toBe(3)
    })
  )

  const client = FastCheck.constantFrom("a", "b", "c")
  const operation = FastCheck.oneof(
    FastCheck.record({ client }),
    FastCheck.record({ release: FastCheck.nat({ max: 2 }) })
  )

  it.prop(
    "whatever comes and goes, the counts are those of the places held",
    [FastCheck.array(operation, { maxLength: 30, size: "max" })],
    ([operations]) =>
      // Nothing here waits, and without a test environment of its own a run is twenty times as fast.
      Effect.gen(function* () {
        const admission = new Admission(options)
        const held: Array<{ readonly client: string; readonly scope: Scope.CloseableScope }> = []
        for (const operation of operations) {
          if ("client" in operation) {
            const { client } = operation
            const isFull = held.length >= 3 || held.filter((place) => place.client === client).length >= 2
            const exit = yield* Effect.exit(taking(admission, client))
            expect(Exit.isFailure(exit)).toBe(isFull)
            if (Exit.isSuccess(exit)) held.push({ client, scope: exit.value })
          } else {
            const [place] = held.splice(operation.release, 1)
            if (place !== undefined) yield* Scope.close(place.scope, Exit.void)
          }
          expect(admission.size).toBe(held.length)
        }
        for (const { scope } of held) yield* Scope.close(scope, Exit.void)
        expect(admission.size).toBe(0)
        // Nothing of a client that has gone is kept: all may come again.
        yield* taking(admission, "a")
        yield* taking(admission, "a")
      }).pipe(Effect.runSync)
  )
})
