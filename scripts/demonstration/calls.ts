/** What the clients call, each with arguments that nobody else uses, so that each can tell its own answer. */
import * as Effect from "effect/Effect"
import { type Client, ClientFailure, sampled } from "./clients.js"

/** Makes the call of this number and checks the answer. */
export type CheckedCall = (client: Client, call: number) => Effect.Effect<void, ClientFailure>

const wrong = (client: Client, tool: string, answer: string, expected: string) =>
  new ClientFailure({ message: `${client.name}, ${tool}: answered "${answer}" in place of "${expected}"` })

const same = (client: Client, tool: string, expected: string) => (answer: string) =>
  answer === expected ? Effect.void : Effect.fail(wrong(client, tool, answer, expected))

export const echo: CheckedCall = (client, call) => {
  const message = `call ${call} of ${client.name}`
  return Effect.flatMap(
    client.call({ tool: "echo", args: { message } }),
    same(client, "echo", `Echo: ${message}`)
  )
}

export const sum: CheckedCall = (client, call) => {
  const a = (client.number + 1) * 1_000_000
  return Effect.flatMap(
    client.call({ tool: "get-sum", args: { a, b: call } }),
    same(client, "get-sum", `The sum of ${a} and ${call} is ${a + call}.`)
  )
}

/** The server asks the client to sample while it works on the call, and answers with what it got. */
export const sampling: CheckedCall = (client, call) => {
  const tool = "trigger-sampling-request"
  const prompt = `in call ${call} of ${client.name}`
  const expected = sampled(client.name, `Resource ${tool} context: ${prompt}`)
  return Effect.flatMap(client.call({ tool, args: { prompt } }), (answer) =>
    answer.includes(`"${expected}"`) ? Effect.void : Effect.fail(wrong(client, tool, answer, expected))
  )
}

/** An operation of about so many seconds, which tells of its progress. */
export const longOperation =
  (seconds: number): CheckedCall =>
  (client) => {
    const tool = "trigger-long-running-operation"
    const steps = 4
    // Each client's own to the millisecond, for the answer repeats it.
    const duration = seconds + client.number / 1000
    const seen: Array<number> = []
    return Effect.gen(function* () {
      const answer = yield* client.call({
        tool,
        args: { duration, steps },
        onProgress: (progress) => seen.push(progress)
      })
      const told = `Long running operation completed. Duration: ${duration} seconds, Steps: ${steps}.`
      yield* same(client, tool, told)(answer)
      yield* same(client, `progress of ${tool}`, "1 2 3 4")(seen.join(" "))
    })
  }
