import * as Data from "effect/Data"

/** Why the demo cannot go on, in the one line that is told. */
export class DemoFailure extends Data.TaggedError("DemoFailure")<{ readonly message: string }> {}

export const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))
