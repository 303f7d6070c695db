import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

/** The approximate run time of a file: tests with real clients and servers take longer, and a few take longest. */
const weight = ({ moduleId }: TestSpecification): number =>
  /e2e\/(churn|conformance|leaks|soak)|package\.test/.test(moduleId)
    ? 2
    : /\/(commands|e2e|HttpFront)\/|(demo|scripts)\.test/.test(moduleId)
      ? 1
      : 0

/** Starts with the longest files, so that both workers finish at about the same time. */
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
    // A worker runs many files, because loading Effect and the SDKs takes longer than most files.
    isolate: false,
    poolOptions: { forks: { minForks: 1, maxForks: 2, execArgv: ["--expose-gc"] } },
    // Only a safety net: most tests wait for events with shorter limits of their own, and a busy machine is slow.
    testTimeout: 90_000,
    hookTimeout: 90_000
  }
})
