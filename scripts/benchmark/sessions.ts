import { connect, type Socket } from "node:net"
import { Pool } from "undici"
import { initialize, initialized, postHeaders, toolsCall } from "./messages.js"

/** How many clients open their sessions at the same time. */
export const parallel = 64

const inParallel = async <A>(count: number, run: (index: number) => Promise<A>): Promise<Array<A>> => {
  const results: Array<A> = []
  let next = 0
  const worker = async () => {
    while (next < count) {
      const index = next++
      results[index] = await run(index)
    }
  }
  await Promise.all(Array.from({ length: Math.min(parallel, count) }, worker))
  return results
}

/** The MCP clients of one path: they share connections as many clients on one machine would. */
export class Clients {
  readonly #pool: Pool
  readonly #url: URL
  readonly #streams = new Set<Socket>()

  constructor(url: string) {
    this.#url = new URL(url)
    this.#pool = new Pool(this.#url.origin, { connections: parallel, pipelining: 1 })
  }

  open(count: number): Promise<Array<string>> {
    return inParallel(count, () => this.#open())
  }

  /** Opens the standalone stream of each session, and returns when all have their heads. */
  async stream(sessions: ReadonlyArray<string>): Promise<void> {
    await inParallel(sessions.length, (index) => this.#stream(sessions[index] ?? ""))
  }

  /** Makes one call and reads its answer, so that no path is measured by how fast it gives wrong answers. */
  async check(session: string, tool: string): Promise<void> {
    const { status, body } = await this.#post(toolsCall(4711, tool), session)
    if (status !== 200 || !body.includes('"id":4711') || !body.includes("x".repeat(64))) {
      throw new Error(`a call of ${tool} was answered with ${status}: ${body.slice(0, 300)}`)
    }
  }

  async end(): Promise<void> {
    for (const socket of this.#streams) socket.destroy()
    await this.#pool.destroy()
  }

  async #open(): Promise<string> {
    const { status, session, body } = await this.#post(initialize)
    if (status !== 200 || session === undefined) {
      throw new Error(`initialize was answered with ${status}: ${body.slice(0, 300)}`)
    }
    const notified = await this.#post(initialized, session)
    if (notified.status !== 202) {
      throw new Error(`initialized was answered with ${notified.status}: ${notified.body.slice(0, 300)}`)
    }
    return session
  }

  async #post(message: string, session?: string) {
    const response = await this.#pool.request({
      path: this.#url.pathname,
      method: "POST",
      headers: session === undefined ? postHeaders : { ...postHeaders, "Mcp-Session-Id": session },
      body: message
    })
    const issued = response.headers["mcp-session-id"]
    return {
      status: response.statusCode,
      session: typeof issued === "string" ? issued : undefined,
      body: await response.body.text()
    }
  }

  // Thousands of these stay open: a bare socket costs the bench least.
  #stream(session: string): Promise<void> {
    const { hostname, port, pathname } = this.#url
    return new Promise((resolve, reject) => {
      const socket = connect({ host: hostname, port: Number(port) })
      this.#streams.add(socket)
      let head = ""
      socket.on("data", (chunk) => {
        if (head.includes("\r\n\r\n")) return
        head += chunk.toString("latin1")
        if (!head.includes("\r\n\r\n")) return
        if (head.startsWith("HTTP/1.1 200 ")) resolve()
        else reject(new Error(`a stream was answered with ${head.slice(0, 300)}`))
      })
      socket.on("error", reject)
      socket.on("close", () => {
        this.#streams.delete(socket)
        reject(new Error("a stream was closed before it began"))
      })
      socket.setTimeout(20_000, () => {
        if (!head.includes("\r\n\r\n")) socket.destroy(new Error("a stream got no head within 20 s"))
      })
      socket.write(
        `GET ${pathname} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nAccept: text/event-stream\r\n` +
          `MCP-Protocol-Version: ${postHeaders["MCP-Protocol-Version"]}\r\nMcp-Session-Id: ${session}\r\n\r\n`
      )
    })
  }
}
