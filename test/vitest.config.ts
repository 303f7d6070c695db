import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

export default defineConfig({
  root: fileURLToPath(new URL("..", import.meta.url)),
  test: {
    include: ["test/**/*.test.ts"],
    setupFiles: ["test/fixtures/seed.ts"],
    pool: "forks",
    poolOptions: { forks: { minForks: 1, maxForks: 2, execArgv: ["--expose-gc"] } },
    testTimeout: 30_000,
    hookTimeout: 30_000
  }
})
