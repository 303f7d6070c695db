/** Counts operations in flight, and waits until there are none. */
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

  /** Waits until no operation is in flight. */
  readonly idle: Effect.Effect<void> = this.latch.await
}
