import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import { type Cli, startCli } from "../fixtures/Cli.js"
import { commandLine, environment, firstLine, forward, nowhere } from "../fixtures/commandLine.js"
import { makeBlackholeServer } from "../fixtures/BlackholeServer.js"
import { freePort } from "../fixtures/freePort.js"
import { makePlainServer, type PlainServer } from "../fixtures/PlainServer.js"
import { startProxy } from "../fixtures/Proxy.js"
import { del, get, initialize, initializeRequest, post, request } from "../fixtures/RawClient.js"
import { connect, requestBytes } from "../fixtures/RawSocket.js"

const modern = { "mcp-protocol-version": "2026-07-28" }

const decodeLimits = Schema.decodeUnknownSync(
  Schema.parseJson(Schema.Struct({ limits: Schema.Record({ key: Schema.String, value: Schema.Number }) }))
)

/** A different value for each option that limits a number or a size. */
const limits = {
  "max-sessions": "11",
  "max-per-client": "12",
  "max-exchanges": "13",
  "max-stateless": "14",
  "max-connections": "15",
  "max-body": "16KiB",
  "max-buffered": "17MB",
  "max-events": "18",
  "max-event-bytes": "19KB",
  "max-total-event-bytes": "20MB"
}

describe.concurrent("an option can be set in the environment, and the command line overrides it", () => {
  /** Observes the options of a proxy from outside. */
  const observe = (cli: Cli, hosts: ReadonlyArray<string>, origins: ReadonlyArray<string>) =>
    Effect.gen(function* () {
      const health = new URL("/health", cli.url).href
      const { limits } = decodeLimits((yield* get(health)).text)
      const allowed = (field: string, values: ReadonlyArray<string>) =>
        Effect.filter(values, (value) =>
          Effect.map(get(health, { [field]: value }), ({ status }) => status === 200)
        )
      return {
        line: firstLine(cli).replace(/^.*listening/, "listening"),
        limits,
        hosts: yield* allowed("host", hosts),
        origins: yield* allowed("origin", origins)
      }
    })

  const hosts = ["one.example", "two.example", "three.example"]
  const origins = hosts.map((host) => `https://${host}`)

  it.scopedLive("address, path, allowed hosts and origins, headers and limits", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const other = yield* makePlainServer()
      const [port, otherPort] = [yield* freePort, yield* freePort]
      const env = {
        ...limits,
        url: server.url,
        "multi-session": "true",
        host: "127.0.0.2",
        port: String(port),
        path: "/from/env",
        "allow-host": "one.example,  two.example",
        "allow-origin": "https://one.example, https://two.example",
        header: "X-One: 1, and more\nX-Two: 2"
      }
      yield* Effect.scoped(
        Effect.gen(function* () {
          const cli = yield* startCli(forward, { env: environment(env) })
          expect(yield* observe(cli, hosts, origins)).toEqual({
            line: `listening on http://127.0.0.2:${port}/from/env for many sessions, upstream ${server.url}`,
            limits: {
              maxSessions: 11,
              maxPerClient: 12,
              maxExchanges: 13,
              maxStateless: 14,
              maxConnections: 15,
              maxBody: 16_384,
              maxBuffered: 17_000_000,
              maxEvents: 18,
              maxEventBytes: 19_000,
              maxTotalEventBytes: 20_000_000
            },
            hosts: hosts.slice(0, 2),
            origins: origins.slice(0, 2)
          })
          yield* initialize(cli.url)
          expect((yield* server.request(0)).headers).toMatchObject({ "x-one": "1, and more", "x-two": "2" })
        })
      )

      const args = [
        ...commandLine({
          "max-sessions": "21",
          "max-per-client": "22",
          "max-exchanges": "23",
          "max-stateless": "24",
          "max-connections": "25",
          "max-body": "26",
          "max-buffered": "27KB",
          "max-events": "28",
          "max-event-bytes": "29KB",
          "max-total-event-bytes": "30MB",
          url: other.url,
          host: "127.0.0.1",
          port: String(otherPort),
          path: "/from/args",
          "allow-host": "three.example",
          "allow-origin": "https://three.example",
          header: "X-Three: 3"
        }),
        "--multi-session"
      ]
      const cli = yield* startCli([...forward, ...args], {
        env: environment({ ...env, "multi-session": "false" })
      })
      expect(yield* observe(cli, hosts, origins)).toEqual({
        line: `listening on http://127.0.0.1:${otherPort}/from/args for many sessions, upstream ${other.url}`,
        limits: {
          maxSessions: 21,
          maxPerClient: 22,
          maxExchanges: 23,
          maxStateless: 24,
          maxConnections: 25,
          maxBody: 26,
          maxBuffered: 27_000,
          maxEvents: 28,
          maxEventBytes: 29_000,
          maxTotalEventBytes: 30_000_000
        },
        hosts: hosts.slice(2),
        origins: origins.slice(2)
      })
      yield* post(cli.url, "[]".padEnd(26), { ...modern })
      const { headers } = yield* other.request(0)
      expect(headers["x-three"]).toBe("3")
      expect(headers).not.toHaveProperty("x-one")
      expect(server.requests).toHaveLength(1)
    })
  )

  it.scopedLive("--multi-session, which is off by default", () =>
    Effect.gen(function* () {
      for (const [env, served] of [
        [{}, "one session"],
        [{ SHADOWCAT_MULTI_SESSION: "false" }, "one session"],
        [{ SHADOWCAT_MULTI_SESSION: "true" }, "many sessions"]
      ] as const) {
        expect(firstLine(yield* startCli([...forward, ...nowhere], { env }))).toContain(served)
      }
    })
  )

  /** The options with an effect on time limits, the log or the shutdown, and a check that observes the effect. */
  const effects: ReadonlyArray<{
    readonly options: Readonly<Record<string, string>>
    /** Values without the effect. */
    readonly others: Readonly<Record<string, string>>
    readonly check: (cli: Cli, server: PlainServer) => Effect.Effect<unknown, unknown>
  }> = [
    {
      options: { "session-timeout": "300ms", "cleanup-interval": "0.2s" },
      others: { "session-timeout": "1h", "cleanup-interval": "60m" },
      check: (cli, server) =>
        Effect.zipRight(
          initialize(cli.url),
          server.until(() => server.count("DELETE") === 1)
        )
    },
    {
      options: { "request-timeout": "1" },
      others: { "request-timeout": "0" },
      check: (cli) =>
        Effect.map(post(cli.url, request(1, "hang"), modern), ({ status }) => expect(status).toBe(504))
    },
    {
      options: { "stall-timeout": "1s" },
      others: { "stall-timeout": "1h" },
      check: (cli) =>
        Effect.scoped(
          Effect.gen(function* () {
            const socket = yield* connect(cli.port)
            yield* socket.write(requestBytes("POST", { "content-length": "100" }))
            expect((yield* socket.answer(0)).status).toBe(408)
          })
        )
    },
    {
      options: { "shutdown-timeout": "100ms" },
      others: { "shutdown-timeout": "1h" },
      check: (cli, server) =>
        Effect.gen(function* () {
          const call = yield* Effect.fork(post(cli.url, request(1, "hang"), modern))
          yield* server.until(() => server.held.length > 0)
          yield* cli.signal("SIGTERM")
          expect((yield* Fiber.join(call)).status).toBe(503)
          expect((yield* cli.exit).code).toBe(0)
        })
    },
    ...(
      [
        ["none", "trace", false],
        ["Warning", "info", false],
        ["info", "none", true]
      ] as const
    ).map(([level, other, isLogged]) => ({
      options: { "log-level": level },
      others: { "log-level": other },
      check: (cli: Cli) =>
        Effect.gen(function* () {
          const { session } = yield* initialize(cli.url)
          yield* del(cli.url, session)
          yield* cli.signal("SIGTERM")
          yield* cli.exit
          expect(cli.stderr().some((line) => line.includes("session: closed"))).toBe(isLogged)
        })
    })),
    ...(
      [
        ["json", "pretty", true],
        ["pretty", "json", false]
      ] as const
    ).map(([format, other, isJson]) => ({
      options: { "log-format": format },
      others: { "log-format": other },
      check: (cli: Cli) => Effect.sync(() => expect(firstLine(cli).startsWith("{")).toBe(isJson))
    }))
  ]

  for (const { options, others, check } of effects) {
    it.scopedLive(`${commandLine(options).join(" ")}`, () =>
      Effect.gen(function* () {
        for (const [args, env] of [
          [[], environment(options)],
          [commandLine(options), environment(others)]
        ] as const) {
          const server = yield* makePlainServer()
          const cli = yield* startProxy(server, ["--multi-session", ...args], { env })
          yield* check(cli, server)
        }
      })
    )
  }

  it.scopedLive("--connect-timeout 1s", () =>
    Effect.gen(function* () {
      const deaf = yield* makeBlackholeServer
      for (const [args, env] of [
        [[], { SHADOWCAT_CONNECT_TIMEOUT: "1s" }],
        [["--connect-timeout", "1s"], { SHADOWCAT_CONNECT_TIMEOUT: "1h" }]
      ] as const) {
        const { url } = yield* startProxy(deaf, ["--multi-session", ...args], { env })
        const { status, text } = yield* post(url, initializeRequest())
        expect({ status, text }).toMatchObject({
          status: 504,
          text: expect.stringContaining("--connect-timeout")
        })
      }
    })
  )
})
