import { expect, it } from "@effect/vitest"
import { SessionRecord, layerMemory } from "../src/SessionStore.js"
import { sessionStoreContract } from "../src/testing.js"

sessionStoreContract("SessionStore.layerMemory", layerMemory)

it("a record expires at its last activity plus its time to live", () => {
  const record = new SessionRecord({
    id: "a",
    upstream: "http://upstream.test/mcp",
    protocolVersion: "2025-11-25",
    initialize: "{}",
    capabilities: "{}",
    subscriptions: [],
    client: "client",
    createdAt: 1,
    lastActiveAt: 5,
    timeToLive: 10
  })
  expect(record.expiresAt).toBe(15)
})
