/** The clients of the benchmark: sessions that are opened and stay idle, and wrk, which puts load on them. */
import * as Effect from "effect/Effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { Pool } from "undici"
import { spawnCommand } from "../../test/fixtures/Child.js"
import { callTool, initialized, initializeRequest, stream } from "../../test/fixtures/RawClient.js"
import { messageOf, ScriptError } from "../commandLine.js"
import { echo } from "./programs/answers.js"

/** The number of clients that open their sessions at the same time. */
export const parallel = 64

const version = { "MCP-Protocol-Version": "2025-11-25" }

const postHeaders = {
  "Content-Type": "application/json",
  Accept: "application/json, text/event-stream",
  ...version
}

/** The MCP clients of one path, which share connections as many clients of one machine would. */
export type SessionClients = Effect.Effect.Success<ReturnType<typeof makeSessionClients>>

/** Makes clients, whose connections are closed with the scope. */
export const makeSessionClients = (url: string) =>
  Effect.gen(function* () {
    const { origin, pathname: path } = new URL(url)
    const pool = yield* Effect.acquireRelease(
      Effect.sync(() => new Pool(origin, { connections: parallel, pipelining: 1 })),
      (pool) => Effect.promise(() => pool.destroy())
    )

    const post = async (message: object, expected: number, session?: string) => {
      const headers = session === undefined ? postHeaders : { ...postHeaders, "Mcp-Session-Id": session }
      const response = await pool.request({ path, method: "POST", headers, body: JSON.stringify(message) })
      const body = await response.body.text()
      if (response.statusCode === expected) return { body, session: response.headers["mcp-session-id"] }
      throw new Error(`expected status ${expected}, got ${response.statusCode}: ${body.slice(0, 300)}`)
    }

    // The opening is measured, so it runs without a fiber for each session.
    const openAll = async (count: number) => {
      const sessions: Array<string> = []
      let started = 0
      const client = async () => {
        while (started++ < count) {
          const session = String((await post(initializeRequest(), 200)).session)
          await post(initialized, 202, session)
          sessions.push(session)
        }
      }
      await Promise.all(Array.from({ length: Math.min(parallel, count) }, client))
      return sessions
    }

    const attempt = <A>(doing: string, run: () => Promise<A>) =>
      Effect.tryPromise({
        try: run,
        catch: (cause) => new ScriptError({ message: `${doing}: ${messageOf(cause)}` })
      })

    const openStream = (session: string) =>
      stream(url, { headers: { ...version, "Mcp-Session-Id": session } }).pipe(
        Effect.timeout("20 seconds"),
        Effect.filterOrFail(
          ({ status }) => status === 200,
          ({ status }) => new ScriptError({ message: `opening a stream: got status ${status}` })
        )
      )

    return {
      /** Opens sessions and returns their ids. */
      open: (count: number) => attempt("opening sessions", () => openAll(count)),
      /** Opens the standalone stream of each session, and waits for the response headers of all. */
      openStreams: (sessions: ReadonlyArray<string>) =>
        Effect.forEach(sessions, openStream, { concurrency: parallel, discard: true }),
      /** Fails unless a call is answered correctly, because a wrong answer may be faster. */
      check: (session: string, tool: string) =>
        Effect.filterOrFail(
          attempt(`calling ${tool}`, () => post(callTool(4711, tool, { message: echo }), 200, session)),
          ({ body }) => body.includes('"id":4711') && body.includes(echo),
          ({ body }) => new ScriptError({ message: `calling ${tool}: got ${body.slice(0, 300)}` })
        )
    }
  })

export interface Load {
  readonly url: string
  readonly sessions: ReadonlyArray<string>
  /** The tools that are called, in turn. */
  readonly tools: ReadonlyArray<string>
  readonly connections: number
  readonly seconds: number
}

/** Calls with 16 ids in turn, because an id must be unique among the calls in flight of a session. */
const bodies = (tools: ReadonlyArray<string>): ReadonlyArray<string> =>
  Array.from({ length: 16 }, (_, id) =>
    JSON.stringify(callTool(id + 1, tools[id % tools.length] ?? "", { message: echo }))
  )

/** A JSON string of printable ASCII is a Lua string. */
const lua = (texts: ReadonlyArray<string>): string => texts.map((text) => JSON.stringify(text)).join(",")

const luaHeaders = Object.entries(postHeaders).map(([name, value]) => `["${name}"] = "${value}"`)

/**
 * The Lua script of wrk. wrk takes the requests of all connections from one Lua state, and the script does not know the
 * connection of a request. The sessions therefore take turns, with an equal share of the requests for each.
 */
const script = ({ sessions, tools }: Load): string => `
local requests = {}
local turn = 0
function init()
  for _, body in ipairs({${lua(bodies(tools))}}) do
    for _, session in ipairs({${lua(sessions)}}) do
      local headers = { ["Host"] = wrk.headers["Host"], ["Mcp-Session-Id"] = session, ${luaHeaders.join(", ")} }
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

/** Puts load on one path. Fails if any request fails, because an error is answered faster than a call. */
export const runWrk = (folder: string, load: Load) =>
  Effect.gen(function* () {
    const file = join(folder, "load.lua")
    writeFileSync(file, script(load))
    const { connections, seconds, url } = load
    const options = ["-t1", `-c${connections}`, `-d${seconds}s`, "--timeout", "10s", "-s", file]
    const wrk = yield* spawnCommand("wrk", [...options, url], { detached: true })
    yield* Effect.timeout(wrk.exit, `${seconds + 20} seconds`)
    const line = wrk.stdout().find((line) => /^bench [\d ]+\.$/.test(line)) ?? ""
    const numbers = line.match(/\d+/g)?.map(Number) ?? []
    const [requests = 0, micros = 0, p50 = 0, p99 = 0, ...errors] = numbers
    // Latencies are in microseconds.
    if (requests > 0 && errors.every((count) => count === 0))
      return { requests, seconds: micros / 1e6, p50, p99 }
    const names = ["connect", "read", "write", "status", "timeout"]
    const counts = names.map((name, index) => `${name} ${errors[index]}`).join(", ")
    const output = wrk.stderr().join(" ")
    return yield* new ScriptError({ message: `wrk got ${requests} answers; errors: ${counts} ${output}` })
  }).pipe(Effect.scoped)
