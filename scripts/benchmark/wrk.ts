import { writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Children } from "./children.js"
import { postHeaders, toolsCall } from "./messages.js"

export interface Load {
  readonly url: string
  readonly sessions: ReadonlyArray<string>
  /** What the calls call, in turn. */
  readonly tools: ReadonlyArray<string>
  readonly connections: number
  readonly seconds: number
}

export interface Loaded {
  readonly requests: number
  readonly seconds: number
  readonly p50Micros: number
  readonly p99Micros: number
}

// Ids of JSON-RPC are unique among a session's calls in flight; 16 of them in turn are.
const idsInTurn = 16

// A JSON string of printable ASCII is a Lua string.
const lua = (text: string): string => JSON.stringify(text)

const bodies = (tools: ReadonlyArray<string>): Array<string> =>
  Array.from({ length: idsInTurn }, (_, id) => toolsCall(id + 1, tools[id % tools.length] ?? ""))

/**
 * wrk asks one Lua state for each request of all its connections and does not say which of them it is for.
 * So the sessions take turns: every one of them carries an equal share, whichever connection it rides on.
 */
const script = (load: Load): string => `
local sessions = {${load.sessions.map(lua).join(",")}}
local bodies = {${bodies(load.tools).map(lua).join(",")}}
local requests = {}
local turn = 0
function init()
  for _, body in ipairs(bodies) do
    for _, session in ipairs(sessions) do
      local headers = { ["Host"] = wrk.headers["Host"], ["Mcp-Session-Id"] = session }
${Object.entries(postHeaders)
  .map(([name, value]) => `      headers[${lua(name)}] = ${lua(value)}`)
  .join("\n")}
      requests[#requests + 1] = wrk.format("POST", nil, headers, body)
    end
  end
end
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("\\nbench %d %d %d %d %d %d %d %d %d.\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect, e.read, e.write, e.status, e.timeout))
end
`

/** Loads one path with wrk. Any error at all fails it: an error is answered faster than a call. */
export const runWrk = async (children: Children, folder: string, load: Load): Promise<Loaded> => {
  const file = join(folder, "load.lua")
  writeFileSync(file, script(load))
  const child = children.start("wrk", "wrk", [
    "-t1",
    `-c${load.connections}`,
    `-d${load.seconds}s`,
    "--timeout",
    "10s",
    "-s",
    file,
    load.url
  ])
  const line = await child.saying(/^bench ([\d ]+)\.$/m, (load.seconds + 20) * 1000)
  await child.exited
  const [requests = 0, micros = 0, p50Micros = 0, p99Micros = 0, ...errors] = line.split(" ").map(Number)
  if (requests === 0 || errors.some((count) => count > 0)) {
    const [connect, read, write, status, timeout] = errors
    throw new Error(
      `wrk got ${requests} answers; errors: connect ${connect}, read ${read}, write ${write}, ` +
        `status ${status}, timeout ${timeout}`
    )
  }
  return { requests, seconds: micros / 1e6, p50Micros, p99Micros }
}
