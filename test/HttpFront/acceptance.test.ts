import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { type FrontOptions, startFront } from "../fixtures/Front.js"
import { makePlainServer } from "../fixtures/PlainServer.js"
import { type Headers, initialize, messages, post, request } from "../fixtures/RawClient.js"

const list = request(7, "tools/list")

describe("accepts", () => {
  const accepted: ReadonlyArray<{
    readonly name: string
    readonly options?: FrontOptions
    readonly headers: Headers
  }> = [
    ...[
      "application/json",
      "application/json; charset=utf-8",
      "Application/JSON;charset=UTF-8",
      "application/json ; a=b"
    ].map((type) => ({ name: `a body of the type ${type}`, headers: { "content-type": type } })),
    ...["identity", undefined].map((coding) => ({
      name: `the content coding ${String(coding)}`,
      headers: { "content-encoding": coding }
    })),
    ...[
      "*/*",
      "application/json",
      "text/event-stream",
      "application/*",
      "text/*;q=0.1",
      "text/html, application/json;q=0.5",
      undefined
    ].map((accept) => ({ name: `the Accept ${String(accept)}`, headers: { accept } })),
    ...["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:1"].map((host) => ({
      name: `the host ${host}`,
      headers: { host }
    })),
    ...["any.example", "any.example:1", "exact.example:81", "ANY.example"].map((host) => ({
      name: `the host ${host} with --allow-host`,
      options: { front: { allowHosts: ["any.example", "exact.example:81"] } },
      headers: { host }
    })),
    {
      name: "any host with --allow-host *",
      options: { front: { allowHosts: ["*"] } },
      headers: { host: "a.b" }
    },
    ...["http://localhost:3000", "https://127.0.0.1", "http://[::1]:80", undefined].map((origin) => ({
      name: `the origin ${String(origin)}`,
      headers: { origin }
    })),
    ...["https://app.example", "https://APP.example"].map((origin) => ({
      name: `the origin ${origin} with --allow-origin`,
      options: { front: { allowOrigins: ["https://app.example"] } },
      headers: { origin }
    })),
    {
      name: "any origin with --allow-origin *",
      options: { front: { allowOrigins: ["*"] } },
      headers: { origin: "https://a.b" }
    }
  ]

  for (const { headers, name, options } of accepted) {
    it.scopedLive(name, () =>
      Effect.gen(function* () {
        const server = yield* makePlainServer()
        const front = yield* startFront(server, options)
        const { answer, session } = yield* initialize(front.url, { headers })
        expect(answer.status).toBe(200)
        expect(messages(yield* post(front.url, list, { ...session, ...headers }))).toEqual([
          { jsonrpc: "2.0", id: 7, result: {} }
        ])
      })
    )
  }

  it.scopedLive("a body of exactly --max-body bytes", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { front: { maxBody: 1000 } })
      const { session } = yield* initialize(front.url)
      const body = (length: number) => {
        const shortest = JSON.stringify(request(7, "x", { pad: "" }))
        return JSON.stringify(request(7, "x", { pad: "y".repeat(length - shortest.length) }))
      }
      for (const headers of [session, { ...session, "transfer-encoding": "chunked" }]) {
        expect((yield* post(front.url, body(1000), headers)).status).toBe(200)
        expect((yield* post(front.url, body(1001), headers)).status).toBe(413)
      }
    })
  )

  it.scopedLive("only the path of --path", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const front = yield* startFront(server, { front: { path: "/deep/er" } })
      expect(new URL(front.url).pathname).toBe("/deep/er")
      expect((yield* initialize(front.url)).answer.status).toBe(200)
      expect((yield* initialize(new URL("/mcp", front.url).href)).answer.status).toBe(404)
    })
  )
})
