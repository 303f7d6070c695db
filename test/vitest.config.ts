import { availableParallelism } from "node:os"
import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

/** The run times of the longest files on two idle cores, in seconds. The others take less than three seconds. */
const seconds: Readonly<Record<string, number>> = {
  "e2e/conformance": 40,
  package: 39,
  "e2e/forwardStdio": 38,
  "e2e/isolation": 37,
  "e2e/restart": 36,
  demo: 35,
  "e2e/resuming": 34,
  "e2e/messages": 33,
  "e2e/lifecycle": 32,
  "e2e/churn": 30,
  "Sessions/cleanUp": 29,
  "e2e/leaks": 28,
  "e2e/children": 27,
  "e2e/recovery": 26,
  "e2e/soak": 25,
  "Sqlite/EventStorage": 24,
  Sqlite: 22,
  "HttpFront/slowClients": 20,
  "commands/environment": 18,
  "e2e/clients": 17,
  "e2e/badInput": 16,
  "Sqlite/SessionStore": 15,
  "e2e/stdioUpstream": 14,
  "e2e/upstreams": 13,
  scripts: 12,
  Admin: 11,
  "e2e/eventIds": 10,
  "e2e/brokenUpstreams": 9,
  "e2e/slowClients": 8,
  "HttpFront/limits": 7,
  "e2e/failures": 6,
  Sessions: 5,
  Exchange: 5,
  Streams: 4,
  EventTracker: 4
}

const secondsOf = ({ moduleId }: TestSpecification): number =>
  seconds[/\/test\/(.*)\.test\.ts$/.exec(moduleId)?.[1] ?? ""] ?? 0

/** Starts with the longest files, so that both workers finish at about the same time. */
class LongestFirst extends BaseSequencer {
  override sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    return Promise.resolve(files.toSorted((one, other) => secondsOf(other) - secondsOf(one)))
  }
}

export default defineConfig({
  root: fileURLToPath(new URL("..", import.meta.url)),
  test: {
    include: ["test/**/*.test.ts"],
    setupFiles: ["test/fixtures/seed.ts", "test/fixtures/testers.ts"],
    sequence: { sequencer: LongestFirst },
    pool: "forks",
    // A worker runs many files, because loading Effect and the SDKs takes longer than most files.
    isolate: false,
    poolOptions: {
      // One worker more than cores, because tests often wait for timers. With a large young generation, V8 collects
      // garbage less often.
      forks: {
        minForks: 1,
        maxForks: availableParallelism() + 1,
        execArgv: ["--expose-gc", "--max-semi-space-size=64"]
      }
    },
    // Only a safety net: most tests wait for events with shorter limits of their own, and a busy machine is slow.
    testTimeout: 90_000,
    hookTimeout: 90_000
  }
})
