import { describe, expect, it } from "@effect/vitest"
import { Negotiated } from "../../src/UpstreamSession/Negotiated.js"
import { call } from "../fixtures/requests.js"

const make = (capabilities: object) => new Negotiated("{}", "2025-11-25", JSON.stringify(capabilities))

describe("what a server declares", () => {
  const told = {
    logging: {},
    tools: { listChanged: true, other: false },
    experimental: { x: { kinds: ["a", { b: 1 }] } }
  }

  it("holds as long as nothing of it is missing", () => {
    const agreement = make(told)
    expect(agreement.isSatisfiedBy(told)).toBe(true)
    expect(agreement.isSatisfiedBy({ ...told, prompts: {} })).toBe(true)
    expect(agreement.isSatisfiedBy({ ...told, tools: { listChanged: true } })).toBe(true)
    for (const fewer of [
      { ...told, logging: undefined },
      { ...told, tools: {} },
      { ...told, tools: { listChanged: false } },
      { ...told, experimental: { x: { kinds: ["a"] } } },
      undefined
    ])
      expect(agreement.isSatisfiedBy(fewer)).toBe(false)
  })

  it("is found by its path", () => {
    const agreement = make(told)
    expect(agreement.declares("logging")).toBe(true)
    expect(agreement.declares("tools", "listChanged")).toBe(true)
    expect(agreement.declares("tools", "other")).toBe(false)
    expect(agreement.declares("resources", "subscribe")).toBe(false)
  })
})

describe("what a client settles", () => {
  it("is the latest level, of those that there are", () => {
    const agreement = make({})
    expect(agreement.wantsWarnings).toBe(true)
    expect(agreement.note(call(1, "logging/setLevel", { level: "error" }))).toBe(true)
    expect(agreement.note(call(2, "logging/setLevel", { level: "error" }))).toBe(false)
    expect(agreement.note(call(3, "logging/setLevel", { level: "loud" }))).toBe(false)
    expect(agreement).toMatchObject({ logLevel: "error", wantsWarnings: false })
    agreement.note(call(4, "logging/setLevel", { level: "warning" }))
    expect(agreement.wantsWarnings).toBe(true)
  })

  it("is what it has subscribed to, within bounds", () => {
    const agreement = make({})
    const subscribe = (uri: unknown) => agreement.note(call(1, "resources/subscribe", { uri }))
    expect([subscribe("a"), subscribe("a"), subscribe(1), subscribe("x".repeat(3_000))]).toEqual([
      true,
      false,
      false,
      false
    ])
    for (let count = 0; count < 2_000; count++) subscribe(`resource ${count}`)
    expect(agreement.subscriptions.length).toBe(1_000)
    expect(agreement.note(call(1, "resources/unsubscribe", { uri: "a" }))).toBe(true)
    expect(agreement.subscriptions).not.toContain("a")
  })
})
