import { idle, stdioIdle } from "./idle.js"
import { sessions, start, stdioSessions } from "./lifecycle.js"
import { load, stdioLoad, storing, tracking } from "./load.js"
import type { Measure } from "./measure.js"
import { type Path, paths, stdioPaths, storingPaths, trackingPaths } from "./paths.js"

/** Paths that do the same work, and what is measured of them, in the order of the table. */
export interface Contest {
  readonly paths: ReadonlyArray<Path>
  readonly measures: ReadonlyArray<Measure>
  /** Comparisons set the subject against the best of these, in the same sample. */
  readonly references: ReadonlyArray<string>
  /** What the table calls them. */
  readonly against: string
}

/** Everything that a run measures. */
export const contests: ReadonlyArray<Contest> = [
  { paths, measures: [...load, idle, sessions, start], references: ["relay"], against: "relay" },
  { paths: trackingPaths, measures: [tracking], references: ["untracked"], against: "untracked" },
  { paths: storingPaths, measures: storing, references: ["memory"], against: "memory" },
  {
    paths: stdioPaths,
    measures: [...stdioLoad, stdioIdle, stdioSessions],
    references: ["mcp-proxy", "supergateway"],
    against: "better peer"
  }
]
