import * as Effect from "effect/Effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { spawnCommand } from "../../test/fixtures/Child.js"
import { callTool } from "../../test/fixtures/RawClient.js"
import { ScriptError } from "../commandLine.js"
import { echo } from "./programs/answers.js"
import { postHeaders } from "./sessions.js"

export interface Load {
  readonly url: string
  readonly sessions: ReadonlyArray<string>
  /** The tools that are called, in turn. */
  readonly tools: ReadonlyArray<string>
  readonly connections: number
  readonly seconds: number
}

export interface LoadResult {
  readonly requests: number
  readonly seconds: number
  readonly p50Micros: number
  readonly p99Micros: number
}

/** The number of JSON-RPC ids, which must be unique among the calls in flight of a session. */
const idsInTurn = 16

/** A JSON string of printable ASCII is a Lua string. */
const lua = (text: string): string => JSON.stringify(text)

const bodies = (tools: ReadonlyArray<string>): Array<string> =>
  Array.from({ length: idsInTurn }, (_, id) =>
    JSON.stringify(callTool(id + 1, tools[id % tools.length] ?? "", { message: echo }))
  )

/**
 * wrk takes the requests of all its connections from one Lua state, and does not tell the script which connection a
 * request is for. So the sessions take turns, and each gets an equal share of the requests.
 */
const script = ({ sessions, tools }: Load): string => `
local sessions = {${sessions.map(lua).join(",")}}
local bodies = {${bodies(tools).map(lua).join(",")}}
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

/** Puts load on one path. It fails if any request fails, because an error is answered faster than a call. */
export const runWrk = (folder: string, load: Load): Effect.Effect<LoadResult, ScriptError> =>
  Effect.gen(function* () {
    const file = join(folder, "load.lua")
    writeFileSync(file, script(load))
    const { connections, seconds, url } = load
    const options = ["-t1", `-c${connections}`, `-d${seconds}s`, "--timeout", "10s", "-s", file]
    const wrk = yield* spawnCommand("wrk", [...options, url], { detached: true })
    yield* Effect.timeout(wrk.exit, `${seconds + 20} seconds`)
    const line = wrk.stdout().find((line) => /^bench [\d ]+\.$/.test(line))
    const numbers = (line ?? "").match(/\d+/g)?.map(Number) ?? []
    const [requests = 0, micros = 0, p50Micros = 0, p99Micros = 0, ...errors] = numbers
    if (requests > 0 && errors.every((count) => count === 0)) {
      return { requests, seconds: micros / 1e6, p50Micros, p99Micros }
    }
    const names = ["connect", "read", "write", "status", "timeout"]
    const counts = names.map((name, index) => `${name} ${errors[index]}`).join(", ")
    return yield* new ScriptError({
      message: `wrk got ${requests} answers; errors: ${counts} ${wrk.stderr().join(" ")}`
    })
  }).pipe(
    Effect.scoped,
    Effect.catchTag("TimeoutException", ({ message }) => new ScriptError({ message: `wrk: ${message}` }))
  )
