import { describe, expect, it } from "@effect/vitest"
import { Negotiated } from "../../src/UpstreamSession/Negotiated.js"
import { call } from "../fixtures/requests.js"

const makeNegotiated = (capabilities: object) =>
  new Negotiated("{}", "2025-11-25", JSON.stringify(capabilities))

describe("the declared capabilities", () => {
  const declared = {
    logging: {},
    tools: { listChanged: true, other: false },
    experimental: { x: { kinds: ["a", { b: 1 }] } }
  }

  it("are satisfied by the same or more capabilities", () => {
    const negotiated = makeNegotiated(declared)
    expect(negotiated.isSatisfiedBy(declared)).toBe(true)
    expect(negotiated.isSatisfiedBy({ ...declared, prompts: {} })).toBe(true)
    expect(negotiated.isSatisfiedBy({ ...declared, tools: { listChanged: true } })).toBe(true)
    for (const fewer of [
      { ...declared, logging: undefined },
      { ...declared, tools: {} },
      { ...declared, tools: { listChanged: false } },
      { ...declared, experimental: { x: { kinds: ["a"] } } },
      undefined
    ])
      expect(negotiated.isSatisfiedBy(fewer)).toBe(false)
  })

  it("are found by path", () => {
    const negotiated = makeNegotiated(declared)
    expect(negotiated.declares("logging")).toBe(true)
    expect(negotiated.declares("tools", "listChanged")).toBe(true)
    expect(negotiated.declares("tools", "other")).toBe(false)
    expect(negotiated.declares("resources", "subscribe")).toBe(false)
  })
})

describe("the settings of a client", () => {
  it("contain the latest valid log level", () => {
    const negotiated = makeNegotiated({})
    expect(negotiated.wantsWarnings).toBe(true)
    expect(negotiated.note(call(1, "logging/setLevel", { level: "error" }))).toBe(true)
    expect(negotiated.note(call(2, "logging/setLevel", { level: "error" }))).toBe(false)
    expect(negotiated.note(call(3, "logging/setLevel", { level: "loud" }))).toBe(false)
    expect(negotiated).toMatchObject({ logLevel: "error", wantsWarnings: false })
    negotiated.note(call(4, "logging/setLevel", { level: "warning" }))
    expect(negotiated.wantsWarnings).toBe(true)
  })

  it("contain its subscriptions, up to a limit", () => {
    const negotiated = makeNegotiated({})
    const subscribe = (uri: unknown) => negotiated.note(call(1, "resources/subscribe", { uri }))
    expect([subscribe("a"), subscribe("a"), subscribe(1), subscribe("x".repeat(3_000))]).toEqual([
      true,
      false,
      false,
      false
    ])
    for (let count = 0; count < 2_000; count++) subscribe(`resource ${count}`)
    expect(negotiated.subscriptions.length).toBe(1_000)
    expect(negotiated.note(call(1, "resources/unsubscribe", { uri: "a" }))).toBe(true)
    expect(negotiated.subscriptions).not.toContain("a")
  })
})
