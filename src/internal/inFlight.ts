/** Counts what is under way, and tells when nothing is. */
import * as Effect from "effect/Effect"

export class InFlight {
  private count = 0
  private readonly latch = Effect.unsafeMakeLatch(true)

  begin(): void {
    if (this.count++ === 0) this.latch.unsafeClose()
  }

  end(): void {
    if (--this.count === 0) this.latch.unsafeOpen()
  }

  /** Completes as soon as nothing is under way. */
  readonly idle: Effect.Effect<void> = this.latch.await
}
