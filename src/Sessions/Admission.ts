/** Limits the number of sessions, in total and for each client. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { acquireReleaseLight } from "../internal/acquireReleaseLight.js"
import { LimitReached } from "../ProxyError.js"

export interface AdmissionOptions {
  /** The maximum number of concurrent sessions. */
  readonly maxSessions: number
  /** The maximum number of them per client; `undefined` for no separate limit. */
  readonly maxPerClient: number | undefined
  /** The name of the `maxSessions` limit in the error. */
  readonly limit: "max-sessions" | "multi-session"
}

export class Admission {
  private taken = 0
  private readonly takenBy = new Map<string, number>()

  constructor(private readonly options: AdmissionOptions) {}

  /** The number of sessions that are opening or live. */
  get size(): number {
    return this.taken
  }

  /**
   * Counts one more session of a client until the scope closes. Fails if a limit is reached. Check and count are one
   * synchronous step, so that concurrent requests cannot exceed a limit.
   */
  reserve(client: string): Effect.Effect<void, LimitReached, Scope.Scope> {
    return acquireReleaseLight(
      Effect.suspend(() => {
        const reached = this.check(client)
        if (reached !== undefined) return reached
        this.taken++
        this.takenBy.set(client, this.countOf(client) + 1)
        return Effect.void
      }),
      () => Effect.sync(() => this.release(client))
    )
  }

  private check(client: string): LimitReached | undefined {
    const { limit, maxPerClient, maxSessions } = this.options
    if (this.taken >= maxSessions) return new LimitReached({ limit, bound: maxSessions })
    if (maxPerClient !== undefined && this.countOf(client) >= maxPerClient) {
      return new LimitReached({ limit: "max-per-client", bound: maxPerClient })
    }
    return undefined
  }

  private release(client: string): void {
    this.taken--
    const left = this.countOf(client) - 1
    if (left > 0) this.takenBy.set(client, left)
    else this.takenBy.delete(client)
  }

  private countOf(client: string): number {
    return this.takenBy.get(client) ?? 0
  }
}
