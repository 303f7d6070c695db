/** The JSON-RPC messages and headers that every client of the bench sends. */
export const protocolVersion = "2025-11-25"

export const jsonTool = "echo"
export const sseTool = "echo-sse"

export const postHeaders = {
  "Content-Type": "application/json",
  Accept: "application/json, text/event-stream",
  "MCP-Protocol-Version": protocolVersion
}

export const initialize = JSON.stringify({
  jsonrpc: "2.0",
  id: 0,
  method: "initialize",
  params: { protocolVersion, capabilities: {}, clientInfo: { name: "bench", version: "0" } }
})

export const initialized = JSON.stringify({ jsonrpc: "2.0", method: "notifications/initialized" })

/** A call with an argument of 64 bytes. */
export const toolsCall = (id: number, tool: string): string =>
  JSON.stringify({
    jsonrpc: "2.0",
    id,
    method: "tools/call",
    params: { name: tool, arguments: { message: "x".repeat(64) } }
  })
