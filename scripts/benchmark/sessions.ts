import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Pool } from "undici"
import { callTool, initialized, initializeRequest, stream } from "../../test/fixtures/RawClient.js"
import { messageOf, ScriptError } from "../commandLine.js"
import { echo } from "./programs/answers.js"

/** How many clients open their sessions at the same time. */
export const parallel = 64

const version = { "MCP-Protocol-Version": "2025-11-25" }

export const postHeaders: Readonly<Record<string, string>> = {
  "Content-Type": "application/json",
  Accept: "application/json, text/event-stream",
  ...version
}

/** The MCP clients of one path, which share connections as many clients of one machine would. */
export interface SessionClients {
  /** Opens sessions and returns their ids. */
  readonly open: (count: number) => Effect.Effect<ReadonlyArray<string>, ScriptError>
  /** Opens the standalone stream of each session, and waits for the response headers of all. */
  readonly openStreams: (sessions: ReadonlyArray<string>) => Effect.Effect<void, unknown, Scope.Scope>
  /** Fails unless a call is answered correctly: a wrong answer may be a fast one. */
  readonly check: (session: string, tool: string) => Effect.Effect<void, ScriptError>
}

/** Makes clients, whose connections are closed with the scope. */
export const makeSessionClients = (url: string): Effect.Effect<SessionClients, never, Scope.Scope> =>
  Effect.gen(function* () {
    const { origin, pathname: path } = new URL(url)
    const pool = yield* Effect.acquireRelease(
      Effect.sync(() => new Pool(origin, { connections: parallel, pipelining: 1 })),
      (pool) => Effect.promise(() => pool.destroy())
    )

    const post = async (message: object, expected: number, session?: string) => {
      const headers = session === undefined ? postHeaders : { ...postHeaders, "Mcp-Session-Id": session }
      const request = pool.request({ path, method: "POST", headers, body: JSON.stringify(message) })
      const response = await request
      const body = await response.body.text()
      if (response.statusCode !== expected) {
        throw new Error(`expected status ${expected}, got ${response.statusCode}: ${body.slice(0, 300)}`)
      }
      return { body, session: String(response.headers["mcp-session-id"]) }
    }

    const openOne = async () => {
      const { session } = await post(initializeRequest(), 200)
      await post(initialized, 202, session)
      return session
    }

    // Opening is measured, so it takes no fiber for each session.
    const openAll = async (count: number) => {
      const sessions: Array<string> = []
      let started = 0
      const worker = async () => {
        while (started++ < count) sessions.push(await openOne())
      }
      await Promise.all(Array.from({ length: Math.min(parallel, count) }, worker))
      return sessions
    }

    const attempt = <A>(doing: string, run: () => Promise<A>) =>
      Effect.tryPromise({
        try: run,
        catch: (cause) => new ScriptError({ message: `${doing}: ${messageOf(cause)}` })
      })

    return {
      open: (count) => attempt("opening sessions", () => openAll(count)),
      openStreams: (sessions) =>
        Effect.forEach(
          sessions,
          (session) =>
            Effect.filterOrFail(
              Effect.timeout(
                stream(url, { headers: { ...version, "Mcp-Session-Id": session } }),
                "20 seconds"
              ),
              ({ status }) => status === 200,
              ({ status }) => new ScriptError({ message: `opening a stream: got status ${status}` })
            ),
          { concurrency: parallel, discard: true }
        ),
      check: (session, tool) =>
        Effect.filterOrFail(
          attempt(`calling ${tool}`, () => post(callTool(4711, tool, { message: echo }), 200, session)),
          ({ body }) => body.includes('"id":4711') && body.includes(echo),
          ({ body }) => new ScriptError({ message: `calling ${tool}: got ${body.slice(0, 300)}` })
        )
    }
  })
