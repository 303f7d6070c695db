/** The paths from the clients to the upstream, and the groups of paths that are compared with each other. */
import { join } from "node:path"
import type { Measure } from "./measure.js"
import {
  load,
  memory,
  sessions,
  start,
  stdioLoad,
  stdioMemory,
  stdioSessions,
  storing,
  tracking
} from "./measures.js"

export interface Path {
  readonly name: string
  /** The script of the proxy and its arguments, with `{names}` in place of paths and URLs. Absent: no proxy. */
  readonly command?: string
  /** The npm package of the proxy, with its exact version. Its folder is `{peer}`. */
  readonly peer?: string
  /** The program that is started as `{shadowcat}`. Default: the build of this checkout. */
  readonly shadowcat?: string
  /** True if the proxy deletes its upstream sessions when it exits. */
  readonly deletesSessions?: boolean
}

/** Paths that do the same work, and the measures that are taken of them, in the order of the table. */
export interface Group {
  readonly paths: ReadonlyArray<Path>
  readonly measures: ReadonlyArray<Measure>
  /** The paths with which the subject is compared. In each sample, the best of them counts. */
  readonly references: ReadonlyArray<string>
}

/** The path that is compared with the others. */
export const subject = "shadowcat"

/** The path without a proxy. */
export const direct = "direct"

const forward = "{shadowcat} forward http --port 0 --multi-session --log-level warning"
const overHttp = `${forward} --max-sessions 5000 --url {upstream}`
const inFile = `${overHttp} --store sqlite:{folder}/{name}.db`

/** The subject with its default options, so that it retains events. One process serves all measures. */
const tracked: Path = { name: subject, command: overHttp, deletesSessions: true }

/** The groups that a run measures. */
export const groups: ReadonlyArray<Group> = [
  {
    paths: [{ name: direct }, { name: "relay", command: "{relay} {upstream}" }, tracked],
    measures: [...load, memory, sessions, start],
    references: ["relay"]
  },
  {
    paths: [tracked, { name: "untracked", command: `${overHttp} --max-events 0` }],
    measures: [tracking],
    references: ["untracked"]
  },
  {
    paths: [
      { name: subject, command: inFile },
      { name: "memory", command: overHttp }
    ],
    measures: storing,
    references: ["memory"]
  },
  {
    // Each session has a child process, except that the sessions of mcp-proxy share one.
    paths: [
      { name: subject, command: `${forward} -- {node} {stdioServer}` },
      {
        name: "mcp-proxy",
        peer: "mcp-proxy@6.7.19",
        command: "{peer}/dist/bin/mcp-proxy.mjs --server stream --port 0 -- {node} {stdioServer}"
      },
      {
        name: "supergateway",
        peer: "supergateway@4.0.0",
        // By default it logs every message.
        command:
          "{peer}/dist/index.js --outputTransport streamableHttp --stateful --logLevel none --port 0 --stdio {shellCommand}"
      }
    ],
    measures: [...stdioLoad, stdioMemory, stdioSessions],
    references: ["mcp-proxy", "supergateway"]
  }
]

/**
 * Compares the subject with the build of another checkout, in place of the references and of the marks against them.
 */
export const beside = (group: Group, checkout: string): Group => {
  const name = "beside"
  const other = { name, shadowcat: join(checkout, "dist/shadowcat.js") }
  return {
    paths: group.paths.flatMap((path) => (path.name === subject ? [path, { ...path, ...other }] : [path])),
    measures: group.measures.map((measure) => ({
      ...measure,
      rows: measure.rows.map(({ mark, ...row }) => (mark?.of === "value" ? { ...row, mark } : row))
    })),
    references: [name]
  }
}
