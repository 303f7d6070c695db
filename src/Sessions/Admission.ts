/** Who may open a session: all of them count, and those of one client. */
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import { LimitReached } from "../ProxyError.js"

export interface AdmissionOptions {
  /** How many sessions there may be at once. */
  readonly maxSessions: number
  /** How many of them one client may have; `undefined` for no bound of its own. */
  readonly maxPerClient: number | undefined
  /** What a client is told to use when all sessions are taken. */
  readonly limit: "max-sessions" | "multi-session"
}

export class Admission {
  private taken = 0
  private readonly takenBy = new Map<string, number>()

  constructor(private readonly options: AdmissionOptions) {}

  /** How many places are taken. */
  get size(): number {
    return this.taken
  }

  /**
   * Takes a place for a client until the scope closes. Check and reservation are one synchronous step, so that
   * no number of simultaneous requests gets past a bound.
   */
  reserve(client: string, scope: Scope.Scope): Effect.Effect<void, LimitReached> {
    return Effect.uninterruptible(
      Effect.suspend(() => {
        const reached = this.check(client)
        if (reached !== undefined) return reached
        this.taken++
        this.takenBy.set(client, this.of(client) + 1)
        return Scope.addFinalizer(
          scope,
          Effect.sync(() => this.free(client))
        )
      })
    )
  }

  private check(client: string): LimitReached | undefined {
    const { limit, maxPerClient, maxSessions } = this.options
    if (this.taken >= maxSessions) return new LimitReached({ limit, bound: maxSessions })
    if (maxPerClient !== undefined && this.of(client) >= maxPerClient) {
      return new LimitReached({ limit: "max-per-client", bound: maxPerClient })
    }
    return undefined
  }

  private free(client: string): void {
    this.taken--
    const left = this.of(client) - 1
    if (left > 0) this.takenBy.set(client, left)
    else this.takenBy.delete(client)
  }

  private of(client: string): number {
    return this.takenBy.get(client) ?? 0
  }
}
