/**
 * The server behind every path: a minimal legacy MCP server over Streamable HTTP, without an SDK, because it runs on
 * the same cores as the proxies that are measured.
 */
import { randomBytes } from "node:crypto"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import { announce, answerCall, answerInitialize, isCall, isInitialize, sseTool } from "./answers.js"

const sessions = new Set<string>()
/** The DELETEs of known sessions so far, and the streams that are open. */
const counts = { deleted: 0, streams: 0 }

const json = (response: ServerResponse, body: string, session?: string) => {
  const head = ["Content-Type", "application/json", "Content-Length", String(Buffer.byteLength(body))]
  if (session !== undefined) head.push("Mcp-Session-Id", session)
  response.writeHead(200, head)
  response.end(body)
}

const empty = (response: ServerResponse, status: number) => {
  response.writeHead(status, ["Content-Length", "0"])
  response.end()
}

const sseHead = ["Content-Type", "text/event-stream", "Cache-Control", "no-cache"]

const answerPost = (body: string, response: ServerResponse) => {
  if (isCall(body)) {
    const result = answerCall(body)
    if (!body.includes(`"${sseTool}"`)) return json(response, result)
    response.writeHead(200, sseHead)
    return response.end(`event: message\ndata: ${result}\n\n`)
  }
  if (isInitialize(body)) {
    const session = randomBytes(16).toString("hex")
    sessions.add(session)
    return json(response, answerInitialize(body), session)
  }
  return empty(response, 202)
}

const handlePost = (request: IncomingMessage, response: ServerResponse) => {
  let body = ""
  request.on("data", (chunk: Buffer) => (body += chunk.toString("latin1")))
  request.on("end", () => answerPost(body, response))
}

const handleGet = (request: IncomingMessage, response: ServerResponse) => {
  if (request.url === "/stats") return json(response, JSON.stringify(counts))
  counts.streams++
  response.on("close", () => counts.streams--)
  response.writeHead(200, sseHead)
  response.flushHeaders()
}

const handleDelete = (request: IncomingMessage, response: ServerResponse) => {
  const known = sessions.delete(String(request.headers["mcp-session-id"]))
  if (known) counts.deleted++
  empty(response, known ? 200 : 404)
}

const server = createServer((request, response) => {
  response.sendDate = false
  switch (request.method) {
    case "POST":
      return handlePost(request, response)
    case "GET":
      return handleGet(request, response)
    case "DELETE":
      return handleDelete(request, response)
    default:
      return empty(response, 405)
  }
})

// A connection idles while other paths are measured, and must not be closed just before its next request.
server.keepAliveTimeout = 0
announce(server)
