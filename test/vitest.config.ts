import { availableParallelism } from "node:os"
import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

/** The files that run longest, longest first. The others take less than three seconds. */
const longest: ReadonlyArray<string> = [
  "e2e/conformance",
  "package",
  "e2e/forwardStdio",
  "e2e/isolation",
  "e2e/restart",
  "demo",
  "e2e/resuming",
  "e2e/messages",
  "e2e/lifecycle",
  "e2e/churn",
  "Sessions/cleanUp",
  "e2e/leaks",
  "e2e/children",
  "e2e/recovery",
  "e2e/soak",
  "Sqlite/EventStorage",
  "Sqlite",
  "HttpFront/slowClients",
  "commands/environment",
  "e2e/clients",
  "e2e/badInput",
  "Sqlite/SessionStore",
  "e2e/stdioUpstream",
  "e2e/upstreams",
  "scripts",
  "Admin",
  "e2e/eventIds",
  "e2e/brokenUpstreams",
  "e2e/slowClients",
  "HttpFront/limits",
  "e2e/failures",
  "Sessions",
  "Exchange",
  "Streams",
  "EventTracker"
]

/** The place of a file in that order. */
const place = ({ moduleId }: TestSpecification): number => {
  const index = longest.indexOf(/\/test\/(.*)\.test\.ts$/.exec(moduleId)?.[1] ?? "")
  return index === -1 ? longest.length : index
}

/** Starts with the longest files, so that both workers finish at about the same time. */
class LongestFirst extends BaseSequencer {
  override sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    return Promise.resolve(files.toSorted((one, other) => place(one) - place(other)))
  }
}

/**
 * One worker more than cores, because tests often wait for timers. All workers run until the end: if vitest stops an idle
 * one while others work, it can fail with "Terminating worker thread".
 */
const workers = availableParallelism() + 1

export default defineConfig({
  root: fileURLToPath(new URL("..", import.meta.url)),
  test: {
    include: ["test/**/*.test.ts"],
    setupFiles: ["test/fixtures/seed.ts", "test/fixtures/testers.ts"],
    sequence: { sequencer: LongestFirst },
    pool: "forks",
    // A worker runs many files, because loading Effect and the SDKs takes longer than most files.
    isolate: false,
    // With a large young generation, V8 collects garbage less often.
    poolOptions: {
      forks: { minForks: workers, maxForks: workers, execArgv: ["--expose-gc", "--max-semi-space-size=64"] }
    },
    // Only a safety net: most tests wait for events with shorter limits of their own, and a busy machine is slow.
    testTimeout: 90_000,
    hookTimeout: 90_000
  }
})
