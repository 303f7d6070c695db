import type { Server } from "node:http"

/** Listens on a free port of loopback, and prints the URL as `shadowcat forward` does. */
export const announce = (server: Server): void => {
  server.listen(0, "127.0.0.1", 4096, () => {
    const address = server.address()
    if (address === null || typeof address === "string") throw new Error("expected a TCP port")
    process.stderr.write(`listening on http://127.0.0.1:${address.port}/mcp\n`)
  })
}
