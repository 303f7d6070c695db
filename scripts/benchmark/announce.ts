import type { Server } from "node:http"

/** Takes a free port and says so in the words of `shadowcat forward`, so that one reader serves all. */
export const announce = (server: Server): void => {
  server.listen(0, "127.0.0.1", 4096, () => {
    const address = server.address()
    if (address === null || typeof address === "string") throw new Error("expected a TCP port")
    process.stderr.write(`listening on http://127.0.0.1:${address.port}/mcp\n`)
  })
  process.on("SIGTERM", () => process.exit(0))
}
