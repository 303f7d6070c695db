import { idle } from "./idle.js"
import { sessions, start } from "./lifecycle.js"
import { load } from "./load.js"
import type { Measure } from "./measure.js"

/** Everything that a run measures, in the order of the table. */
export const measures: ReadonlyArray<Measure> = [...load, idle, sessions, start]
