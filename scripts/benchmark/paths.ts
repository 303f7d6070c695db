import { join } from "node:path"
import type { Bench } from "./bench.js"

/** A way from the clients to the upstream. */
export interface Path {
  readonly name: string
  /** The arguments of `node` that start its proxy; a path without them has none. */
  readonly proxy?: (bench: Bench) => ReadonlyArray<string> | Promise<ReadonlyArray<string>>
  /** It keeps sessions, and ends those of the upstream when it is ended. */
  readonly keepsSessions?: boolean
}

/** What the others are compared with. */
export const subject = "shadowcat"

/** The path that the others are said to add to. */
export const base = "direct"

const forward = (options: string): ReadonlyArray<string> => [
  ..."forward http --port 0 --multi-session --log-level warning".split(" "),
  ...options.split(" ")
]

const overHttp = (name: string, options: string): Path => ({
  name,
  keepsSessions: true,
  proxy: ({ programs, upstreamUrl }) => [programs.shadowcat, ...forward(`${options} --url`), upstreamUrl]
})

/** It keeps the events of streams, as it does by default. All that is measured of it shares one process. */
const tracked = overHttp(subject, "--max-sessions 5000")

/** To a server of Streamable HTTP. */
export const paths: ReadonlyArray<Path> = [
  { name: base },
  { name: "relay", proxy: ({ programs, upstreamUrl }) => [programs.relay, upstreamUrl] },
  tracked
]

/** The same server, with the events of streams kept and not. */
export const trackingPaths: ReadonlyArray<Path> = [
  tracked,
  overHttp("untracked", "--max-sessions 5000 --max-events 0")
]

/** The same server, with sessions kept in a file and in memory. */
export const storingPaths: ReadonlyArray<Path> = [
  {
    name: subject,
    proxy: ({ folder, programs, upstreamUrl }) => [
      programs.shadowcat,
      ...forward("--max-sessions 5000 --store"),
      `sqlite:${join(folder, "sessions.db")}`,
      "--url",
      upstreamUrl
    ]
  },
  overHttp("memory", "--max-sessions 5000")
]

/** To a command that speaks over standard input and output: a child for each session, but for mcp-proxy's only one. */
export const stdioPaths: ReadonlyArray<Path> = [
  {
    name: subject,
    proxy: ({ programs }) => [programs.shadowcat, ...forward("--"), process.execPath, programs.stdioServer]
  },
  {
    name: "mcp-proxy",
    proxy: async ({ peers, programs }) => [
      "--import",
      programs.loopback,
      await peers.program("mcp-proxy@6.7.19", "dist/bin/mcp-proxy.mjs"),
      ..."--server stream --port 0 --".split(" "),
      process.execPath,
      programs.stdioServer
    ]
  },
  {
    name: "supergateway",
    proxy: async ({ peers, programs }) => [
      "--import",
      programs.loopback,
      await peers.program("supergateway@4.0.0", "dist/index.js"),
      // By default it logs every message.
      ..."--outputTransport streamableHttp --stateful --logLevel none --port 0 --stdio".split(" "),
      // A shell reads it.
      [process.execPath, programs.stdioServer].map((word) => `'${word}'`).join(" ")
    ]
  }
]
