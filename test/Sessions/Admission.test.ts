import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Scope from "effect/Scope"
import { Admission, type AdmissionOptions } from "../../src/Sessions/Admission.js"
import { LimitReached } from "../../src/ProxyError.js"

const options: AdmissionOptions = { maxSessions: 3, maxPerClient: 2, limit: "max-sessions" }

const admit = (admission: Admission, client: string) =>
  Effect.flatMap(Scope.make(), (scope) => Effect.as(Scope.extend(admission.reserve(client), scope), scope))

describe("an admission", () => {
  it.effect("lasts until its scope closes", () =>
    Effect.gen(function* () {
      const admission = new Admission(options)
      const scope = yield* admit(admission, "a")
      expect(admission.size).toBe(1)
      yield* Scope.close(scope, Exit.void)
      expect(admission.size).toBe(0)
    })
  )

  it.effect("is released once, even if its scope closes twice", () =>
    Effect.gen(function* () {
      const admission = new Admission(options)
      const [first] = [yield* admit(admission, "a"), yield* admit(admission, "b")]
      yield* Scope.close(first, Exit.void)
      yield* Scope.close(first, Exit.void)
      expect(admission.size).toBe(1)
    })
  )

  it.effect("is released immediately if its scope is already closed", () =>
    Effect.gen(function* () {
      const admission = new Admission(options)
      const scope = yield* Scope.make()
      yield* Scope.close(scope, Exit.void)
      yield* Scope.extend(admission.reserve("a"), scope)
      expect(admission.size).toBe(0)
    })
  )
})

describe("the limits", () => {
  it.effect("are named in the error", () =>
    Effect.gen(function* () {
      const admission = new Admission(options)
      yield* admit(admission, "a")
      yield* admit(admission, "a")
      expect(yield* Effect.flip(admit(admission, "a"))).toEqual(
        new LimitReached({ limit: "max-per-client", bound: 2 })
      )
      yield* admit(admission, "b")
      expect(yield* Effect.flip(admit(admission, "b"))).toEqual(
        new LimitReached({ limit: "max-sessions", bound: 3 })
      )
    })
  )

  it.effect("allow one client all sessions if there is no limit per client", () =>
    Effect.gen(function* () {
      const admission = new Admission({ ...options, maxPerClient: undefined })
      yield* Effect.repeatN(admit(admission, "a"), 2)
      expect(admission.size).toBe(3)
    })
  )

  it.effect("hold for simultaneous clients", () =>
    Effect.gen(function* () {
      const admission = new Admission(options)
      const attempts = Array.from({ length: 50 }, (_, index) =>
        Effect.isSuccess(admit(admission, `client ${index % 7}`))
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
    "count the held admissions after arbitrary operations",
    [FastCheck.array(operation, { maxLength: 30, size: "max" })],
    ([operations]) =>
      // The effects are synchronous, and without a test environment for each run the test takes a twentieth of the time.
      Effect.gen(function* () {
        const admission = new Admission(options)
        const held: Array<{ readonly client: string; readonly scope: Scope.CloseableScope }> = []
        for (const operation of operations) {
          if ("client" in operation) {
            const { client } = operation
            const isFull =
              held.length >= 3 || held.filter((admission) => admission.client === client).length >= 2
            const exit = yield* Effect.exit(admit(admission, client))
            expect(Exit.isFailure(exit)).toBe(isFull)
            if (Exit.isSuccess(exit)) held.push({ client, scope: exit.value })
          } else {
            const [released] = held.splice(operation.release, 1)
            if (released !== undefined) yield* Scope.close(released.scope, Exit.void)
          }
          expect(admission.size).toBe(held.length)
        }
        for (const { scope } of held) yield* Scope.close(scope, Exit.void)
        expect(admission.size).toBe(0)
        // The count of a client starts at 0 again after its admissions are released.
        yield* admit(admission, "a")
        yield* admit(admission, "a")
      }).pipe(Effect.runSync)
  )
})
