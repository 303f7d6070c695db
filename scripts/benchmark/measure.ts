import type { Bench } from "./bench.js"
import type { Path } from "./paths.js"

/** What one sample of one path found, by name. */
export type Figures = Readonly<Record<string, number>>

export interface Mark {
  /** What is held against the limit: the comparison with the best reference, or the subject's own figure. */
  readonly of: "comparison" | "value"
  readonly atLeast?: number
  readonly atMost?: number
}

/** A line of the table. */
export interface Row {
  readonly title: string
  readonly figure: string
  readonly digits: number
  /** Shows what each path adds to the direct one in the same sample. */
  readonly overDirect?: boolean
  readonly compare?: "ratio" | "difference"
  /** Which of several references is the best: that with the most, or else that with the least. */
  readonly moreIsBetter?: boolean
  readonly mark?: Mark
}

/** One thing to measure: how to take a sample of one path, and the rows that show it. */
export interface Measure {
  readonly name: string
  /** False for what only a proxy has. */
  readonly direct: boolean
  /** How many samples of each path a run takes, spread over its rounds. */
  readonly samples: (plan: Plan) => number
  readonly sample: (path: Path, bench: Bench) => Promise<Figures>
  readonly rows: ReadonlyArray<Row>
}

/** How long and how large a run is. */
export interface Plan {
  readonly rounds: number
  readonly warmUpSeconds: number
  /** How often a round loads each path, and for how long: many short turns meet the same noise. */
  readonly turns: number
  readonly turnSeconds: number
  readonly idleSessions: number
  readonly openSessions: number
  /** The same where each session has a child, which is a Node of its own. */
  readonly idleChildren: number
  readonly openChildren: number
  readonly starts: number
}

export const fullPlan: Plan = {
  rounds: 5,
  warmUpSeconds: 5,
  turns: 5,
  turnSeconds: 1,
  idleSessions: 2_000,
  openSessions: 1_000,
  idleChildren: 80,
  openChildren: 100,
  starts: 10
}

export const quickPlan: Plan = {
  rounds: 1,
  warmUpSeconds: 1,
  turns: 1,
  turnSeconds: 1,
  idleSessions: 500,
  openSessions: 1_000,
  idleChildren: 40,
  openChildren: 100,
  starts: 3
}
