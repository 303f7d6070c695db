import type { Programs } from "./programs.js"

/** A way from the clients to the upstream. */
export interface Path {
  readonly name: string
  /** The arguments of `node` that start its proxy; a path without them has none. */
  readonly proxy?: (programs: Programs, upstreamUrl: string) => ReadonlyArray<string>
  /** It keeps sessions, and ends those of the upstream when it is ended. */
  readonly keepsSessions?: boolean
}

export const paths: ReadonlyArray<Path> = [
  { name: "direct" },
  { name: "relay", proxy: ({ relay }, url) => [relay, url] },
  {
    name: "shadowcat",
    keepsSessions: true,
    proxy: ({ shadowcat }, url) => [
      shadowcat,
      ..."forward http --port 0 --multi-session --max-sessions 5000 --log-level warning --url".split(" "),
      url
    ]
  }
]

/** Comparisons set the first of these against the second, in the same sample. */
export const subject = "shadowcat"
export const reference = "relay"

/** The path that the others are said to add to. */
export const base = "direct"
