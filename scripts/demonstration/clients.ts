/** The official clients, of both lines, made alike. */
import { Client as Client2, StreamableHTTPClientTransport as Transport2 } from "@modelcontextprotocol/client"
import { Client as Client1 } from "@modelcontextprotocol/sdk/client/index.js"
import { StreamableHTTPClientTransport as Transport1 } from "@modelcontextprotocol/sdk/client/streamableHttp.js"
import { CallToolResultSchema, CreateMessageRequestSchema } from "@modelcontextprotocol/sdk/types.js"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { messageOf } from "./failure.js"

/** What one client met, with the name of the client. */
export class ClientFailure extends Data.TaggedError("ClientFailure")<{ readonly message: string }> {}

export interface Call {
  readonly tool: string
  readonly args: Record<string, unknown>
  readonly onProgress?: (progress: number) => void
}

export interface Client {
  /** Its number among all clients, and the name that goes with it. */
  readonly number: number
  readonly name: string
  /** Calls a tool and gives the text of its answer. */
  readonly call: (call: Call) => Effect.Effect<string, ClientFailure>
  /** Ends the session with a DELETE. */
  readonly endSession: Effect.Effect<void, ClientFailure>
  /** Drops all connections. */
  readonly close: Effect.Effect<void>
}

/** What differs from one line of the client to the other. */
interface Driver {
  readonly connect: (signal: AbortSignal) => Promise<void>
  readonly call: (call: Call, signal: AbortSignal) => Promise<{ readonly [key: string]: unknown }>
  readonly endSession: () => Promise<void>
  readonly close: () => Promise<void>
}

/** Long for a busy machine, and short enough for the demo to end in time. */
const timeout = 8_000

/** What a client answers when the server asks it to sample: it names itself, so that an answer tells who gave it. */
export const sampled = (name: string, prompt: string): string => `${name} was asked ${prompt}`

const samplingResult = (name: string, content: unknown) => ({
  model: "demo",
  role: "assistant" as const,
  content: { type: "text" as const, text: sampled(name, textOf(content)) }
})

const line1 = (url: string, name: string): Driver => {
  const transport = new Transport1(new URL(url))
  const client = new Client1({ name, version: "1.0.0" }, { capabilities: { sampling: {} } })
  client.setRequestHandler(CreateMessageRequestSchema, ({ params }) =>
    samplingResult(name, params.messages[0]?.content)
  )
  return {
    connect: (signal) => client.connect(transport, { signal, timeout }),
    call: ({ args, onProgress, tool }, signal) =>
      client.callTool({ name: tool, arguments: args }, CallToolResultSchema, {
        signal,
        timeout,
        ...(onProgress && { onprogress: ({ progress }) => onProgress(progress) })
      }),
    endSession: () => transport.terminateSession(),
    close: () => client.close()
  }
}

const line2 = (url: string, name: string): Driver => {
  const transport = new Transport2(new URL(url))
  const client = new Client2({ name, version: "1.0.0" }, { capabilities: { sampling: {} } })
  client.setRequestHandler("sampling/createMessage", ({ params }) =>
    samplingResult(name, params.messages[0]?.content)
  )
  return {
    connect: (signal) => client.connect(transport, { signal, timeout }),
    call: ({ args, onProgress, tool }, signal) =>
      client.callTool(
        { name: tool, arguments: args },
        { signal, timeout, ...(onProgress && { onprogress: ({ progress }) => onProgress(progress) }) }
      ),
    endSession: () => transport.terminateSession(),
    close: () => client.close()
  }
}

/** Opens a session as the client of this number: even ones are of the line 1.x, odd ones of 2.x. */
export const connect = (url: string, number: number): Effect.Effect<Client, ClientFailure, Scope.Scope> =>
  Effect.gen(function* () {
    const [line, make] = number % 2 === 0 ? (["1.x", line1] as const) : (["2.x", line2] as const)
    const name = `client ${number} (${line})`
    const attempt = <A>(what: string, run: (signal: AbortSignal) => Promise<A>) =>
      Effect.tryPromise({
        try: run,
        catch: (cause) => new ClientFailure({ message: `${name}, ${what}: ${messageOf(cause)}` })
      })
    const close = (driver: Driver) =>
      Effect.promise(() => driver.close()).pipe(Effect.timeout("1 second"), Effect.ignore)

    const driver = yield* Effect.acquireRelease(
      Effect.sync(() => make(url, name)),
      close
    )
    yield* attempt("connecting", driver.connect)
    return {
      number,
      name,
      call: (call) =>
        Effect.flatMap(
          attempt(call.tool, (signal) => driver.call(call, signal)),
          ({ content, isError }) =>
            isError === true
              ? Effect.fail(new ClientFailure({ message: `${name}, ${call.tool}: ${textOf(content)}` }))
              : Effect.succeed(textOf(content))
        ),
      endSession: attempt("DELETE", () => driver.endSession()),
      close: close(driver)
    }
  })

const textOf = (content: unknown): string => {
  const parts: ReadonlyArray<unknown> = Array.isArray(content) ? content : [content]
  return parts
    .map((part) => (typeof part === "object" && part !== null ? String(Reflect.get(part, "text")) : ""))
    .join("")
}
