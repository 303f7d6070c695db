import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/** How long no further line is written where none can be rewritten, in milliseconds. */
const pause = 2_000

/** The progress of the demo on standard error: one line that is rewritten on a terminal, separate lines elsewhere. */
export class Progress {
  step = ""
  #written = 0

  begin(step: string): void {
    this.step = step
    this.#write(step)
  }

  /** Reports progress within the current step. */
  update(text: string): void {
    if (process.stderr.isTTY || performance.now() - this.#written >= pause) this.#write(text)
  }

  /** Removes the line from a terminal. */
  erase(): void {
    if (process.stderr.isTTY) this.#write("")
  }

  #write(text: string): void {
    const { columns, isTTY } = process.stderr
    this.#written = performance.now()
    // A longer line would wrap, and its first part would stay. Some terminals report 0 columns.
    process.stderr.write(isTTY ? `\r\u001b[K${text.slice(0, (columns || 80) - 1)}` : `${text}\n`)
  }
}

/** Makes the progress line of this process, which is erased when the scope closes. */
export const makeProgress: Effect.Effect<Progress, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => new Progress()),
  (progress) => Effect.sync(() => progress.erase())
)
