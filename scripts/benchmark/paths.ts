/** The paths from the clients to the upstream, and the groups of paths that are compared with each other. */
import { randomUUID } from "node:crypto"
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

/** What the command of a proxy may name: programs, a folder for its files, the upstream, its own package. */
export interface Setting {
  readonly shadowcat: string
  readonly relay: string
  readonly stdioServer: string
  readonly folder: string
  readonly upstreamUrl: string
  readonly peerFolder: string
}

export interface Path {
  readonly name: string
  /** The script of the proxy and its arguments. A path without a proxy is the direct one. */
  readonly proxy?: (setting: Setting) => ReadonlyArray<string>
  /** The npm package of the proxy, with its exact version. */
  readonly peer?: string
  /** The proxy deletes its upstream sessions when it exits. */
  readonly deletesSessions?: boolean
}

/** The path that is compared with the others. */
export const subject = "shadowcat"

/** The path without a proxy. */
export const direct = "direct"

const forward = (script: string, options: string, ...target: ReadonlyArray<string>) => [
  script,
  ..."forward http --port 0 --multi-session --log-level warning".split(" "),
  ...options.split(" "),
  ...target
]

const overHttp = (name: string, options = "", store?: (folder: string) => string): Path => ({
  name,
  deletesSessions: true,
  proxy: ({ folder, shadowcat, upstreamUrl }) =>
    forward(
      shadowcat,
      `--max-sessions 5000 ${options}`.trim(),
      ...(store === undefined ? [] : ["--store", store(folder)]),
      "--url",
      upstreamUrl
    )
})

/** It keeps the events of streams, as it does by default. One process serves all measures. */
const tracked = overHttp(subject)

/** Paths that do the same work, and the measures that are taken of them, in the order of the table. */
export interface Group {
  readonly paths: ReadonlyArray<Path>
  readonly measures: ReadonlyArray<Measure>
  /** The paths that the subject is compared with: with the best of them, in the same sample. */
  readonly references: ReadonlyArray<string>
  /** The name of the references in the table. */
  readonly against: string
}

/** All that a run measures. */
export const groups: ReadonlyArray<Group> = [
  {
    paths: [
      { name: direct },
      { name: "relay", proxy: ({ relay, upstreamUrl }) => [relay, upstreamUrl] },
      tracked
    ],
    measures: [...load, memory, sessions, start],
    references: ["relay"],
    against: "relay"
  },
  {
    paths: [tracked, overHttp("untracked", "--max-events 0")],
    measures: [tracking],
    references: ["untracked"],
    against: "untracked"
  },
  {
    paths: [overHttp(subject, "", (folder) => `sqlite:${join(folder, randomUUID())}.db`), overHttp("memory")],
    measures: storing,
    references: ["memory"],
    against: "memory"
  },
  {
    // Each session has a child process, except that the sessions of mcp-proxy share one.
    paths: [
      {
        name: subject,
        proxy: ({ shadowcat, stdioServer }) => forward(shadowcat, "--", process.execPath, stdioServer)
      },
      {
        name: "mcp-proxy",
        peer: "mcp-proxy@6.7.19",
        proxy: ({ peerFolder, stdioServer }) => [
          join(peerFolder, "dist/bin/mcp-proxy.mjs"),
          ..."--server stream --port 0 --".split(" "),
          process.execPath,
          stdioServer
        ]
      },
      {
        name: "supergateway",
        peer: "supergateway@4.0.0",
        proxy: ({ peerFolder, stdioServer }) => [
          join(peerFolder, "dist/index.js"),
          // By default it logs every message.
          ..."--outputTransport streamableHttp --stateful --logLevel none --port 0 --stdio".split(" "),
          // A shell command.
          [process.execPath, stdioServer].map((word) => `'${word}'`).join(" ")
        ]
      }
    ],
    measures: [...stdioLoad, stdioMemory, stdioSessions],
    references: ["mcp-proxy", "supergateway"],
    against: "better peer"
  }
]

const other = "beside"

/** Compares the subject with the build of another checkout, in place of the usual references and their marks. */
export const beside = (group: Group, checkout: string): Group => ({
  paths: group.paths.flatMap((path) => {
    const { name, proxy } = path
    if (name !== subject || proxy === undefined) return [path]
    const shadowcat = join(checkout, "dist/shadowcat.js")
    return [path, { ...path, name: other, proxy: (setting) => proxy({ ...setting, shadowcat }) }]
  }),
  measures: group.measures.map((measure) => ({
    ...measure,
    rows: measure.rows.map(({ mark, ...row }) => (mark?.of === "value" ? { ...row, mark } : row))
  })),
  references: [other],
  against: other
})
