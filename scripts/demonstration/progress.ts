import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/** A line that tells how far the demo is: rewritten in place on a terminal, and written anew elsewhere. */
export interface Progress {
  /** Tells what begins now. */
  readonly begin: (what: string) => void
  /** Tells how far it has come, which is not worth a line of its own every time. */
  readonly update: (how: string) => void
}

/** Milliseconds between two lines where none can be rewritten. */
const pause = 2_000

const onTerminal = (stream: NodeJS.WriteStream): Progress => {
  const rewrite = (text: string) => {
    // A longer line would wrap, and its first part stay. Some terminals say that they are 0 columns wide.
    stream.write(`\r\u001b[K${text.slice(0, (stream.columns || 80) - 1)}`)
  }
  return { begin: rewrite, update: rewrite }
}

const elsewhere = (stream: NodeJS.WriteStream): Progress => {
  let written = performance.now()
  const write = (text: string) => {
    written = performance.now()
    stream.write(`${text}\n`)
  }
  return {
    begin: write,
    update: (text) => {
      if (performance.now() - written >= pause) write(text)
    }
  }
}

/** The progress line of this process. It is gone when the scope has closed. */
export const makeProgress: Effect.Effect<Progress, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => (process.stderr.isTTY ? onTerminal : elsewhere)(process.stderr)),
  (progress) => Effect.sync(() => (process.stderr.isTTY ? progress.begin("") : undefined))
)
