/**
 * The bare relay. It forwards bytes with `node:http` and undici and reads no message, so its cost is the lower limit
 * for shadowcat. Its argument is the URL of the upstream.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import { Client, type Dispatcher, Pool } from "undici"
import { announce } from "./answers.js"

const upstream = new URL(process.argv[2] ?? "")
const options = { bodyTimeout: 0, headersTimeout: 0, pipelining: 1 }
const pool = new Pool(upstream.origin, { ...options, connections: null })

const hopByHop = new Set("connection keep-alive transfer-encoding upgrade te trailer host".split(" "))

const forwardable = (request: IncomingMessage): Array<string> => {
  const raw = request.rawHeaders
  const kept: Array<string> = []
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i] ?? ""
    if (!hopByHop.has(name.toLowerCase())) kept.push(name, raw[i + 1] ?? "")
  }
  return kept
}

const relayTo = (
  dispatcher: Dispatcher,
  request: IncomingMessage,
  response: ServerResponse,
  body: Buffer | null,
  released: () => void
) => {
  let upstreamCall: Dispatcher.DispatchController | undefined
  let clientGone = false
  response.on("close", () => {
    clientGone = true
    if (!response.writableFinished) upstreamCall?.abort(new Error("the client left"))
    released()
  })
  response.on("drain", () => upstreamCall?.resume())
  dispatcher.dispatch(
    {
      path: request.url ?? "/",
      method: request.method === "POST" ? "POST" : request.method === "DELETE" ? "DELETE" : "GET",
      headers: forwardable(request),
      body
    },
    {
      onRequestStart(controller) {
        upstreamCall = controller
        // A queued request has no controller yet, so a client that left during that time is noticed here.
        if (clientGone) controller.abort(new Error("the client left"))
      },
      onResponseStart(_controller, status, headers) {
        for (const name of hopByHop) delete headers[name]
        response.writeHead(status, headers)
        if (dispatcher !== pool) response.flushHeaders()
      },
      onResponseData(controller, chunk) {
        if (!response.write(chunk)) controller.pause()
      },
      onResponseEnd() {
        response.end()
      },
      onResponseError() {
        if (response.headersSent) response.destroy()
        else response.writeHead(502).end()
      }
    }
  )
}

const server = createServer((request, response) => {
  if (request.method === "GET") {
    // Each stream has a connection of its own, because a pool keeps its descriptors after streams have closed.
    const client = new Client(upstream.origin, options)
    relayTo(client, request, response, null, () => void client.destroy())
    return
  }
  const chunks: Array<Buffer> = []
  request.on("data", (chunk: Buffer) => chunks.push(chunk))
  request.on("end", () => {
    const [first] = chunks
    const body = chunks.length === 1 && first !== undefined ? first : Buffer.concat(chunks)
    relayTo(pool, request, response, body, () => {})
  })
})

announce(server)
