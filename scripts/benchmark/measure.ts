import type * as Effect from "effect/Effect"
import type { Bench } from "./bench.js"
import type { Path } from "./paths.js"

/** One sample of a measure: its figures by name. */
export type Figures = Readonly<Record<string, number>>

/** A limit for the comparison with the best reference, or for the subject's own value. */
export type Mark = {
  readonly of: "comparison" | "value"
  readonly atLeast?: number
  readonly atMost?: number
}

/** A row of the table. */
export interface Row {
  readonly title: string
  readonly figure: string
  readonly digits: number
  /** Shows the difference to the direct path in the same sample. */
  readonly overDirect?: boolean
  readonly compare?: "ratio" | "difference"
  /** The best of several references is the largest one, not the smallest. */
  readonly moreIsBetter?: boolean
  readonly mark?: Mark
}

/** A measure: takes a sample of a path, and has the rows that show it. */
export interface Measure {
  readonly name: string
  /** False if only paths with a proxy are measured. */
  readonly direct: boolean
  /** The number of samples of each path, which are spread over the rounds. */
  readonly samples: (plan: Plan) => number
  readonly sample: (path: Path, bench: Bench) => Effect.Effect<Figures, unknown>
  readonly rows: ReadonlyArray<Row>
}

/** The length and the size of a run. */
export type Plan = typeof fullPlan

export const fullPlan = {
  rounds: 5,
  warmUpSeconds: 5,
  /** The number of times that a round loads each path. Short turns spread the noise of the machine over all paths. */
  turns: 5,
  turnSeconds: 1,
  idleSessions: 2_000,
  openSessions: 1_000,
  /** Fewer sessions where each has a child process. */
  idleChildren: 80,
  openChildren: 100,
  starts: 10
}

export const quickPlan: Plan = {
  ...fullPlan,
  rounds: 1,
  warmUpSeconds: 1,
  turns: 1,
  idleSessions: 500,
  idleChildren: 40,
  starts: 3
}
