/**
 * What the bench puts into every server that it starts: on SIGUSR2 it collects garbage and writes the memory
 * that is left, and it goes when the bench goes, even by SIGKILL.
 */
import { appendFileSync } from "node:fs"

const file = process.env.BENCH_MEMORY_FILE

process.on("SIGUSR2", () => {
  globalThis.gc?.()
  // What weak references held is free only after the callbacks of the first collection.
  setImmediate(() => {
    globalThis.gc?.()
    if (file !== undefined) appendFileSync(file, JSON.stringify(process.memoryUsage()) + "\n")
  })
})

process.stdin.on("end", () => process.kill(process.pid, "SIGKILL")).resume()
process.stdin.unref()
