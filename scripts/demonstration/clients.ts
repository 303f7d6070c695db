/** The official clients and their calls. Each call has unique arguments, so that its answer is unique too. */
import * as Effect from "effect/Effect"
import { type CallOptions, connect1, connect2, type officialClients } from "../../test/fixtures/Clients.js"
import { ScriptError } from "../commandLine.js"

export type DemoClient = Effect.Effect.Success<ReturnType<typeof connect>>

/** The timeout of a request, in milliseconds: enough for a busy machine, and short enough for the demo's own limit. */
const timeout = 8_000

/**
 * The client's answer to `sampling/createMessage`. It contains the client's name, so that a wrong answer is detected.
 */
const sampled = (name: string, prompt: string): string => `${name} was asked ${prompt}`

const failed = (name: string, doing: string) => (error: { readonly message: string }) =>
  new ScriptError({ message: `${name}, ${doing}: ${error.message}` })

/** Opens a session with an official client: of line 1.x for an even number, of 2.x for an odd one. */
export const connect = (url: string, number: number) => {
  const [line, open]: (typeof officialClients)[number] =
    number % 2 === 0 ? ["1.x", connect1] : ["2.x", connect2]
  const name = `client ${number} (${line})`
  return open(url, { sample: (prompt) => sampled(name, prompt), terminate: false }).pipe(
    Effect.timeout(timeout),
    Effect.mapError(failed(name, "connecting")),
    Effect.map((connection) => ({
      number,
      name,
      connection,
      /** Ends the session with a DELETE. */
      endSession: Effect.mapError(connection.terminate, failed(name, "DELETE")),
      close: connection.close.pipe(Effect.timeout("1 second"), Effect.ignore)
    }))
  )
}

/** Makes a call with a number. Fails unless the answer belongs to this call. */
type CheckedCall = (client: DemoClient, number: number) => Effect.Effect<void, ScriptError>

const callTool = (
  { connection, name }: DemoClient,
  tool: string,
  args: Record<string, unknown>,
  expected: string,
  options: CallOptions & { readonly isExpected?: (answer: string) => boolean } = {}
): Effect.Effect<void, ScriptError> => {
  const { isExpected = (answer) => answer === expected, ...callOptions } = options
  return connection.call(tool, args, { timeout, ...callOptions }).pipe(
    Effect.filterOrFail(isExpected, (answer) => ({ message: `expected "${expected}", got "${answer}"` })),
    Effect.mapError(failed(name, tool))
  )
}

export const echo: CheckedCall = (client, number) => {
  const message = `call ${number} of ${client.name}`
  return callTool(client, "echo", { message }, `Echo: ${message}`)
}

const sum: CheckedCall = (client, b) => {
  const a = (client.number + 1) * 1_000_000
  return callTool(client, "get-sum", { a, b }, `The sum of ${a} and ${b} is ${a + b}.`)
}

/** The server sends a sampling request to the client during the call, and returns the client's answer. */
const sampling: CheckedCall = (client, number) => {
  const tool = "trigger-sampling-request"
  const prompt = `in call ${number} of ${client.name}`
  const expected = sampled(client.name, `Resource ${tool} context: ${prompt}`)
  const isExpected = (answer: string) => answer.includes(`"${expected}"`)
  return callTool(client, tool, { prompt }, expected, { isExpected })
}

/** An operation of about this many seconds, which reports progress. */
const longOperation =
  (seconds: number): CheckedCall =>
  (client) => {
    const tool = "trigger-long-running-operation"
    // The answer repeats the duration, so each client has its own.
    const duration = seconds + client.number / 1000
    const expected = `Long running operation completed. Duration: ${duration} seconds, Steps: 4.`
    const seen: Array<number> = []
    const onProgress = ({ progress }: { readonly progress: number }) => seen.push(progress)
    return Effect.filterOrFail(
      callTool(client, tool, { duration, steps: 4 }, expected, { onProgress }),
      () => seen.join(" ") === "1 2 3 4",
      () => failed(client.name, tool)({ message: `expected progress 1 2 3 4, got ${seen.join(" ")}` })
    )
  }

/** Counts calls, and keeps the time that the timed ones took. */
export class Tally {
  calls = 0
  errors = 0
  firstError: string | undefined
  readonly #milliseconds: Array<number> = []

  /** Makes a call and counts it. */
  count(call: CheckedCall, client: DemoClient, number: number, isTimed = false): Effect.Effect<void> {
    return Effect.suspend(() => {
      const started = performance.now()
      this.calls++
      return Effect.match(call(client, number), {
        onFailure: ({ message }) => {
          this.errors++
          this.firstError ??= message
        },
        onSuccess: () => {
          if (isTimed) this.#milliseconds.push(performance.now() - started)
        }
      })
    })
  }

  /** Returns the time within which this share of the timed calls was answered. */
  percentile(share: number): number | undefined {
    const sorted = this.#milliseconds.toSorted((a, b) => a - b)
    return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)]
  }
}

const shortCalls = [echo, sum, sampling, echo, sum]

/**
 * The longest pause of a client before a short call, in milliseconds. Without pauses, a hundred clients in one process
 * would measure how long they wait for each other. In a short demo too, every client makes a call.
 */
const longestPause = (seconds: number): number => Math.min(1_000, seconds * 125)

/**
 * Makes short calls from all clients for some seconds, one at a time from each, and also long calls if `hasLongCalls`.
 */
export const load = (
  clients: ReadonlyArray<DemoClient>,
  seconds: number,
  tally: Tally,
  hasLongCalls = true
): Effect.Effect<void> =>
  Effect.suspend(() => {
    const end = performance.now() + seconds * 1000
    const repeat = (body: () => Effect.Effect<void>) =>
      Effect.whileLoop({ while: () => performance.now() < end, body, step: () => {} })
    const longCall = longOperation(Math.min(2, seconds / 2))
    const loops = clients.flatMap((client) => {
      let number = 0
      const short = repeat(() => {
        const call = shortCalls[number % shortCalls.length] ?? echo
        const counted = tally.count(call, client, ++number, call !== sampling)
        return Effect.delay(counted, Math.random() * longestPause(seconds))
      })
      return hasLongCalls ? [short, repeat(() => tally.count(longCall, client, 0))] : [short]
    })
    return Effect.all(loops, { concurrency: "unbounded", discard: true })
  })
