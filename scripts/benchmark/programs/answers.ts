import type { Server } from "node:http"

// To save time, the servers of the benchmark do not parse messages.

/** The tool that is answered with JSON, and the one that is answered with an event stream. */
export const jsonTool = "echo"
export const sseTool = "echo-sse"

/** The argument of `tools/call`, and the text of its result. */
export const echo = "x".repeat(64)

// An answer carries the id of its request, because a proxy may look at it.
const idOf = (message: string): string => /"id":\s*("[^"]*"|-?\d+)/.exec(message)?.[1] ?? "null"

export const isCall = (message: string): boolean => message.includes('"tools/call"')
export const isInitialize = (message: string): boolean => message.includes('"initialize"')

export const answerCall = (message: string): string =>
  `{"jsonrpc":"2.0","id":${idOf(message)},"result":{"content":[{"type":"text","text":"${echo}"}]}}`

export const answerInitialize = (message: string): string => {
  const version = /"protocolVersion":\s*("[^"]*")/.exec(message)?.[1] ?? '"2025-11-25"'
  const result = `{"protocolVersion":${version},"capabilities":{"tools":{}},"serverInfo":{"name":"bench","version":"0"}}`
  return `{"jsonrpc":"2.0","id":${idOf(message)},"result":${result}}`
}

/** Listens on a free port of loopback, and prints the URL as `shadowcat forward` does. */
export const announce = (server: Server): void => {
  server.listen(0, "127.0.0.1", 4096, () => {
    const address = server.address()
    if (address === null || typeof address === "string") throw new Error("expected a TCP port")
    process.stderr.write(`listening on http://127.0.0.1:${address.port}/mcp\n`)
  })
}
