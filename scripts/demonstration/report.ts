/** The findings of the demo, as a table and as a verdict. */
import { columns } from "../commandLine.js"

export interface Findings {
  readonly clients: number
  /** As the proxy counts them: while all clients are connected, and after the DELETEs. */
  readonly sessions: { readonly atOnce: number; readonly afterDeletes: number }
  /** The number of clients that left without a DELETE. */
  readonly vanished: number
  readonly seconds: number
  readonly calls: number
  readonly errors: number
  readonly firstError: string | undefined
  readonly p50: number | undefined
  readonly p99: number | undefined
  /** In MB; `undefined` where the system has no /proc. */
  readonly memory: number | undefined
  /** The exit code of the proxy, or the signal that killed it; `undefined` if it did not exit in time. */
  readonly proxy: { readonly ending: number | NodeJS.Signals | undefined; readonly ms: number }
  readonly sockets: { readonly left: number; readonly peak: number }
  /** The sessions of the demo server, or the child processes; `undefined` where the system has no /proc. */
  readonly upstream:
    | { readonly issued: number; readonly left: number }
    | { readonly children: { readonly atOnce: number; readonly left: number } | undefined }
  /** `undefined` where the demo server is a command. */
  readonly second: Failover | undefined
}

/** The restarts of the demo server and of the proxy. */
export interface Failover {
  /** The number of clients that made a call in their session afterwards. */
  readonly continued: number
  /** The first error of such a call. */
  readonly firstError: string | undefined
  /** As the proxy counts them afterwards. */
  readonly sessions: number
  /** The calls during the restarts, and how many of them failed. */
  readonly calls: number
  readonly interrupted: number
}

const count = (value: number): string => value.toLocaleString("en")

const milliseconds = (value: number | undefined): string =>
  value === undefined ? "–" : `${value.toFixed(value < 10 ? 1 : 0)} ms`

const endingText = (ending: Findings["proxy"]["ending"]): string =>
  ending === undefined ? "not in time" : typeof ending === "number" ? `code ${ending}` : ending

type TableRow = readonly [title: string, value: string, note: string]

const rowsOf = (found: Findings): ReadonlyArray<TableRow> => {
  const { clients, memory, proxy, second, sessions, sockets, upstream, vanished } = found
  const lines = `${Math.ceil(clients / 2)} of the line 1.x and ${Math.floor(clients / 2)} of 2.x`
  const rows: Array<TableRow> = [
    ["sessions", count(sessions.atOnce), `at once: official clients, ${lines}`],
    ["calls", count(found.calls), `in ${found.seconds} s, each answer checked to be the caller's own`],
    ["errors", count(found.errors), "calls that failed, or whose answer was another's"],
    ["p50", milliseconds(found.p50), "from call to answer, of echo and get-sum,"],
    ["p99", milliseconds(found.p99), "clients and servers on this one machine"]
  ]
  if (memory !== undefined) {
    rows.push(["memory", `${memory.toFixed(0)} MB`, "the most that the proxy has had (resident set)"])
  }
  if (second !== undefined) {
    const { calls, interrupted, continued } = second
    const kills = "after the demo server and then the proxy were killed (SIGKILL)"
    const failed = "in flight at a killing, or while there was no proxy"
    rows.push(["continued", count(continued), `clients, each in its session, ${kills}`])
    rows.push(["interrupted", count(interrupted), `of ${count(calls)} calls during the restarts: ${failed}`])
  }
  const exit = `from SIGTERM to the proxy's exit, ${endingText(proxy.ending)}`
  rows.push(["shutdown", milliseconds(proxy.ms), `${exit}, ${vanished} sessions still open`])
  const peak = `TCP connections of the clients' process, ${sockets.peak} at the peak`
  rows.push(["sockets left", count(sockets.left), peak])
  if ("issued" in upstream) {
    const issued = `at the demo server, of the ${upstream.issued} it issued`
    const kept = `the ${vanished} still open, for the proxy's next start`
    rows.push(["sessions left", count(upstream.left), `${issued}: ${kept}`])
  } else if (upstream.children !== undefined) {
    const { atOnce, left } = upstream.children
    rows.push(["children left", count(left), `of the ${atOnce} child processes that there were`])
  }
  return rows
}

export const table = (found: Findings): string => columns(rowsOf(found), (column) => column === 1)

/** Describes all unexpected findings in one line; `undefined` if the demo succeeded. */
export const verdict = (found: Findings): string | undefined => {
  const { calls, clients, errors, firstError, proxy, second, sessions, sockets, upstream, vanished } = found
  const { issued, left } = "issued" in upstream ? upstream : { issued: clients, left: vanished }
  const children = ("children" in upstream && upstream.children) || { atOnce: clients, left: 0 }
  const after = second ?? { continued: clients, sessions: clients, firstError: undefined }
  const lost = clients - after.continued
  const had = (sessions: number) => `the proxy had ${sessions} sessions`
  const wrong = [
    errors > 0 && `${count(errors)} of ${count(calls)} calls failed, the first: ${firstError}`,
    lost > 0 && `${lost} of ${clients} sessions did not continue, the first: ${after.firstError}`,
    after.sessions !== clients && `${had(after.sessions)} for ${clients} clients after it was started again`,
    sessions.atOnce !== clients && `${had(sessions.atOnce)} for ${clients} clients`,
    sessions.afterDeletes !== vanished && `${had(sessions.afterDeletes)} after the DELETEs, not ${vanished}`,
    issued !== clients && `the demo server issued ${issued} sessions for ${clients} clients`,
    children.atOnce !== clients && `there were ${children.atOnce} child processes for ${clients} clients`,
    proxy.ending !== 0 && `the proxy's exit after SIGTERM: ${endingText(proxy.ending)}`,
    sockets.left > 0 && `sockets left here: ${sockets.left}`,
    left !== vanished && `sessions left at the demo server: ${left}, not the ${vanished} that are stored`,
    children.left > 0 && `child processes left: ${children.left}`
  ].filter((line) => line !== false)
  return wrong.length === 0 ? undefined : wrong.join("; ")
}
