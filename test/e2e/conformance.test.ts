import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { fileURLToPath } from "node:url"
import { bundle } from "../fixtures/bundle.js"
import { differences, checksWithStatus } from "../fixtures/conformance/differences.js"
import { stdioDifferences } from "../fixtures/conformance/stdioDifferences.js"
import { makeProxyFactory } from "../fixtures/conformance/proxyFactory.js"
import {
  makeClient,
  type Revision,
  type Scenario,
  testClient,
  testServer
} from "../fixtures/conformance/suite.js"
import { trackedStreamDifferences } from "../fixtures/conformance/trackedStreamDifferences.js"
import { makeConformanceServer } from "../fixtures/ConformanceServer.js"
import { startProxy } from "../fixtures/Proxy.js"

/** Only a safety net: a run takes seconds of CPU time, and more on a busy machine. In milliseconds. */
const timeout = 300_000

const conformanceScript = fileURLToPath(new URL("../fixtures/stdio/conformance.ts", import.meta.url))

interface Expected {
  readonly scenarios: number
  readonly passed: number
}

const servers: ReadonlyArray<readonly [Revision, Expected]> = [
  ["2025-11-25", { scenarios: 33, passed: 84 }],
  ["2026-07-28", { scenarios: 50, passed: 164 }]
]

const clients: ReadonlyArray<readonly [Revision, Expected]> = [
  ["2025-11-25", { scenarios: 5, passed: 20 }],
  ["2026-07-28", { scenarios: 8, passed: 64 }]
]

/** Tests the server without a proxy, once for all comparisons. */
const testDirectly = (revision: Revision) =>
  Effect.runSync(
    Effect.cached(
      Effect.scoped(Effect.flatMap(makeConformanceServer, ({ url }) => testServer(url, revision)))
    )
  )
const directly = { "2025-11-25": testDirectly("2025-11-25"), "2026-07-28": testDirectly("2026-07-28") }

/** Returns the lines without a known reason. */
const unexpected = (
  lines: ReadonlyArray<string>,
  expected: typeof trackedStreamDifferences
): ReadonlyArray<string> =>
  lines.filter((line) => !expected.some(([beginning]) => line.startsWith(beginning)))

describe("the official conformance suite", () => {
  for (const [revision, expected] of servers) {
    it.scopedLive(
      `finds no difference in a server of ${revision} behind the proxy`,
      () =>
        Effect.gen(function* () {
          const proxy = yield* startProxy(yield* makeConformanceServer)
          const [direct, proxied] = yield* Effect.all([directly[revision], testServer(proxy.url, revision)], {
            concurrency: "unbounded"
          })
          // The official server does not implement tasks, an extension that no revision requires.
          const failed = checksWithStatus(direct, "FAILURE").filter((line) => !line.startsWith("tasks-"))
          expect([...failed, ...checksWithStatus(direct, "WARNING")].join("\n")).toBe("")
          expect(direct.size).toBeGreaterThanOrEqual(expected.scenarios)
          expect(checksWithStatus(direct, "SUCCESS").length).toBeGreaterThanOrEqual(expected.passed)
          expect(unexpected(differences(direct, proxied), trackedStreamDifferences)).toEqual([])
        }),
      timeout
    )
  }

  it.scopedLive(
    "finds no difference in a command behind the proxy, except features that only HTTP has",
    () =>
      Effect.gen(function* () {
        const script = yield* bundle(conformanceScript)
        const proxy = yield* startProxy({ command: [process.execPath, script] })
        const [direct, proxied] = yield* Effect.all(
          [directly["2025-11-25"], testServer(proxy.url, "2025-11-25")],
          { concurrency: "unbounded" }
        )
        const failed = checksWithStatus(proxied, "FAILURE").filter((line) => !line.startsWith("tasks-"))
        expect([...failed, ...checksWithStatus(proxied, "WARNING")].join("\n")).toBe("")
        expect(checksWithStatus(proxied, "SUCCESS").length).toBeGreaterThanOrEqual(80)
        expect(unexpected(differences(direct, proxied), stdioDifferences)).toEqual([])
      }),
    timeout
  )

  for (const [revision, expected] of clients) {
    it.scopedLive(
      `finds no difference in a client of ${revision} behind the proxy`,
      () =>
        Effect.gen(function* () {
          const client = yield* makeClient
          const proxies = yield* makeProxyFactory
          const [direct, proxied] = yield* Effect.all(
            [testClient(client, revision), testClient(client, revision, proxies)],
            { concurrency: "unbounded" }
          )
          const outputs = [...direct].map(([scenario, { output }]) => [scenario, output])
          expect(outputs).toEqual(outputs.map(([scenario]) => [scenario, "done"]))
          const bad = [...checksWithStatus(direct, "FAILURE"), ...checksWithStatus(direct, "WARNING")]
          expect(bad.join("\n")).toBe("")
          expect(direct.size).toBeGreaterThanOrEqual(expected.scenarios)
          expect(checksWithStatus(direct, "SUCCESS").length).toBeGreaterThanOrEqual(expected.passed)
          expect(unexpected(differences(direct, proxied), trackedStreamDifferences)).toEqual([])
        }),
      timeout
    )
  }

  it("reports each difference with its reason", () => {
    const scenario = (...statuses: ReadonlyArray<"SUCCESS" | "FAILURE">): Scenario => ({
      output: "",
      checks: statuses.map((status) => ({
        id: "check",
        description: "Is so",
        status,
        ...(status === "FAILURE" ? { errorMessage: "It is not" } : {})
      }))
    })
    const direct = new Map([["a", scenario("SUCCESS", "SUCCESS")]])
    expect(differences(direct, direct)).toEqual([])
    expect(differences(direct, new Map([["a", scenario("FAILURE", "SUCCESS")]]))).toEqual([
      "a: FAILURE check: Is so through the proxy (It is not)",
      "a: SUCCESS check: Is so directly"
    ])
    expect(differences(direct, new Map())).toHaveLength(3)
  })
})
