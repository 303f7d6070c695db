import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import { PassThrough } from "node:stream"
import * as ForwardProxy from "../src/ForwardProxy.js"
import type * as UpstreamPool from "../src/UpstreamPool.js"
import { Changes } from "./fixtures/Changes.js"
import { hybridInitialize, meta, script } from "./fixtures/hybrid.js"
import { makePlainServer } from "./fixtures/PlainServer.js"
import { initialized, request } from "./fixtures/RawClient.js"

/** A proxy in this process, and the client's side of its input and output. */
const startStdioFront = (upstream: UpstreamPool.UpstreamOptions) =>
  Effect.gen(function* () {
    const input = new PassThrough()
    const output = new PassThrough()
    const lines: Array<unknown> = []
    const changes = new Changes()
    let rest = ""
    output.setEncoding("utf8").on("data", (text: string) => {
      const parts = (rest + text).split("\n")
      rest = parts.pop() ?? ""
      lines.push(...parts.map((line): unknown => JSON.parse(line)))
      changes.notify()
    })
    yield* Layer.build(
      ForwardProxy.layerStdio({ upstream, front: { input, output, shutdownTimeout: 0 } })
    ).pipe(Logger.withMinimumLogLevel(LogLevel.None))
    return {
      lines,
      send: (...messages: ReadonlyArray<object>) => {
        for (const message of messages) input.write(`${JSON.stringify(message)}\n`)
      },
      until: (count: number) =>
        changes.until(
          () => lines.length >= count,
          () => JSON.stringify(lines)
        )
    }
  })

describe("a legacy client that sends modern keys in _meta", () => {
  it.scopedLive("gets a session at a URL, and its calls stay in it", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startStdioFront({ url: new URL(server.url) })
      front.send(hybridInitialize, { ...initialized, params: meta }, request(7, "tools/list", meta))
      yield* front.until(2)
      expect(front.lines).toMatchObject([
        { id: 0, result: { protocolVersion: "2025-11-25" } },
        { id: 7, result: {} }
      ])
      const posts = server.requests.filter(({ method }) => method === "POST")
      expect(posts.map(({ headers }) => headers["mcp-session-id"])).toEqual([undefined, "up-1", "up-1"])
    })
  )

  it.scopedLive("gets a session at a command, and its calls stay in it", () =>
    Effect.gen(function* () {
      const front = yield* startStdioFront({ command: "sh", args: ["-c", script] })
      front.send(hybridInitialize, { ...initialized, params: meta }, request(7, "tools/list", meta))
      yield* front.until(2)
      expect(front.lines).toMatchObject([
        { id: 0, result: { protocolVersion: "2025-11-25" } },
        { id: 7, result: {} }
      ])
    })
  )
})

describe("a modern request", () => {
  it.scopedLive("is relayed without a session before initialize", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startStdioFront({ url: new URL(server.url) })
      front.send(request(7, "server/discover", meta))
      yield* front.until(1)
      expect(front.lines).toEqual([{ jsonrpc: "2.0", id: 7, result: {} }])
      expect(server.requests).toMatchObject([
        { headers: { "mcp-protocol-version": "2026-07-28", "mcp-method": "server/discover" } }
      ])
      expect(server.requests[0]?.headers).not.toHaveProperty("mcp-session-id")
    })
  )
})
