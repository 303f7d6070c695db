/** Resources that live as long as a session, with little memory for each of them. */
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"

/**
 * Acquires a resource like `Effect.acquireRelease`, but does not keep the context of the acquiring fiber, which takes 2
 * KB while the scope is open. The release runs in the context of the fiber that closes the scope.
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
