/** Resources that live as long as a session: there are many of them, so what each keeps counts. */
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"

/**
 * As `Effect.acquireRelease`, but the release runs with what the closing fiber has, and not with a copy of all that the
 * acquiring one had, which takes two kilobytes for as long as the scope is open.
 */
export const acquireReleaseLight = <A, E, R>(
  acquire: Effect.Effect<A, E, R>,
  release: (resource: A, exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void>
): Effect.Effect<A, E, R | Scope.Scope> =>
  Effect.uninterruptible(
    Effect.tap(acquire, (resource) =>
      Effect.flatMap(Effect.scope, (scope) =>
        Scope.addFinalizerExit(scope, (exit) => release(resource, exit))
      )
    )
  )
