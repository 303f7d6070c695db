/** What the demo found, as a table and as a verdict. */
import type { Ending } from "./children.js"
import type { SecondAct } from "./secondAct.js"

export interface Findings {
  readonly clients: number
  /** As the proxy counts them while all clients are connected, and after those that send a DELETE have sent it. */
  readonly sessions: { readonly atOnce: number; readonly afterDeletes: number }
  /** Clients that left without a DELETE. */
  readonly vanished: number
  readonly seconds: number
  readonly calls: number
  readonly errors: number
  readonly firstError: string | undefined
  readonly p50: number | undefined
  readonly p99: number | undefined
  /** In MB; undefined where the system does not tell. */
  readonly memory: number | undefined
  readonly proxy: { readonly ending: Ending | undefined; readonly ms: number }
  readonly sockets: { readonly left: number; readonly peak: number }
  readonly upstream: HttpFindings | StdioFindings
  /** Absent where the demo server is a command. */
  readonly second: SecondAct | undefined
}

/** The sessions of one demo server. */
export interface HttpFindings {
  readonly issued: number
  readonly left: number
}

/** The child processes, at once and at the end; undefined where the system does not tell. */
export interface StdioFindings {
  readonly children: { readonly atOnce: number; readonly left: number } | undefined
}

const count = (value: number): string => value.toLocaleString("en")

const milliseconds = (value: number | undefined): string =>
  value === undefined ? "–" : `${value.toFixed(value < 10 ? 1 : 0)} ms`

export const table = (found: Findings): string => {
  const { memory, proxy, sessions, sockets, upstream } = found
  const rows: ReadonlyArray<readonly [title: string, value: string, note: string]> = [
    ["sessions", count(sessions.atOnce), `at once: official clients, ${lines(found.clients)}`],
    ["calls", count(found.calls), `in ${found.seconds} s, each answer checked to be the caller's own`],
    ["errors", count(found.errors), "calls that failed, or whose answer was another's"],
    ["p50", milliseconds(found.p50), "from call to answer, of echo and get-sum,"],
    ["p99", milliseconds(found.p99), "clients and servers on this one machine"],
    ...(memory === undefined
      ? []
      : [["memory", `${memory.toFixed(0)} MB`, "the most that the proxy has had (resident set)"] as const]),
    ...secondRows(found.second),
    [
      "shutdown",
      milliseconds(proxy.ms),
      `from SIGTERM to the proxy's exit, ${ended(proxy.ending)}, ${found.vanished} sessions still open`
    ],
    [
      "sockets left",
      count(sockets.left),
      `TCP connections of the clients' process, ${sockets.peak} at the peak`
    ],
    ...upstreamRows(upstream, found.vanished)
  ]
  const widths = [0, 1].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  return rows
    .map(
      ([title, value, note]) => `${title.padEnd(widths[0] ?? 0)}  ${value.padStart(widths[1] ?? 0)}  ${note}`
    )
    .join("\n")
}

const secondRows = (
  second: SecondAct | undefined
): ReadonlyArray<readonly [title: string, value: string, note: string]> =>
  second === undefined
    ? []
    : [
        [
          "went on",
          count(second.wentOn),
          "clients, each in its session, after the demo server and then the proxy were killed (SIGKILL)"
        ],
        [
          "interrupted",
          count(second.interrupted),
          `of ${count(second.calls)} calls meanwhile: in flight at a killing, or while there was no proxy`
        ]
      ]

const upstreamRows = (
  upstream: Findings["upstream"],
  vanished: number
): ReadonlyArray<readonly [title: string, value: string, note: string]> => {
  if ("issued" in upstream) {
    const note = `at the demo server, of the ${upstream.issued} it issued: the ${vanished} still open, for the proxy's next start`
    return [["sessions left", count(upstream.left), note]]
  }
  const { children } = upstream
  if (children === undefined) return []
  return [
    ["children left", count(children.left), `of the ${children.atOnce} child processes that there were`]
  ]
}

const lines = (clients: number): string =>
  `${Math.ceil(clients / 2)} of the line 1.x and ${Math.floor(clients / 2)} of 2.x`

const ended = (ending: Ending | undefined): string =>
  ending === undefined ? "not in time" : typeof ending === "number" ? `code ${ending}` : ending

/** What went wrong, in one line; undefined when nothing did. */
export const verdict = (found: Findings): string | undefined => {
  const { clients, proxy, second, sessions, sockets, upstream, vanished } = found
  const wrong = [
    found.errors > 0 &&
      `${count(found.errors)} of ${count(found.calls)} calls failed, the first: ${found.firstError}`,
    second !== undefined &&
      second.wentOn < clients &&
      `${clients - second.wentOn} of ${clients} sessions did not go on, the first: ${second.firstError}`,
    second !== undefined &&
      second.sessions !== clients &&
      `the proxy had ${second.sessions} sessions for ${clients} clients after it was started again`,
    sessions.atOnce !== clients && `the proxy had ${sessions.atOnce} sessions for ${clients} clients`,
    sessions.afterDeletes !== vanished &&
      `the proxy had ${sessions.afterDeletes} sessions after the DELETEs, not ${vanished}`,
    "issued" in upstream &&
      upstream.issued !== clients &&
      `the demo server issued ${upstream.issued} sessions for ${clients} clients`,
    "children" in upstream &&
      (upstream.children?.atOnce ?? clients) !== clients &&
      `there were ${upstream.children?.atOnce} child processes for ${clients} clients`,
    proxy.ending !== 0 && `the proxy's exit after SIGTERM: ${ended(proxy.ending)}`,
    sockets.left > 0 && `sockets left here: ${sockets.left}`,
    "issued" in upstream &&
      upstream.left !== vanished &&
      `sessions left at the demo server: ${upstream.left}, not the ${vanished} that are stored`,
    "children" in upstream &&
      (upstream.children?.left ?? 0) > 0 &&
      `child processes left: ${upstream.children?.left}`
  ].filter((line) => line !== false)
  return wrong.length === 0 ? undefined : wrong.join("; ")
}
