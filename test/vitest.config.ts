import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

/** How long the file is at work, roughly: real clients and servers take their time, and few take most. */
const weight = ({ moduleId }: TestSpecification): number =>
  /(churn|leaks|soak)\.test/.test(moduleId)
    ? 2
    : /\/(e2e|HttpFront)\/|(main|package)\.test/.test(moduleId)
      ? 1
      : 0

/** Starts with what takes longest, so that no core waits for the other at the end. */
class LongestFirst extends BaseSequencer {
  override sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    return Promise.resolve(files.toSorted((one, other) => weight(other) - weight(one)))
  }
}

export default defineConfig({
  root: fileURLToPath(new URL("..", import.meta.url)),
  test: {
    include: ["test/**/*.test.ts"],
    setupFiles: ["test/fixtures/seed.ts", "test/fixtures/testers.ts"],
    sequence: { sequencer: LongestFirst },
    pool: "forks",
    // A process takes file after file: to load Effect and the SDKs anew would take longer than what most files do.
    isolate: false,
    poolOptions: { forks: { minForks: 1, maxForks: 2, execArgv: ["--expose-gc"] } },
    testTimeout: 30_000,
    hookTimeout: 30_000
  }
})
