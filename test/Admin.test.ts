import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import { SessionInfo, SessionPage } from "../src/Admin/Api.js"
import { runCli, startCli } from "./fixtures/Cli.js"
import { makePlainServer, type PlainServer } from "./fixtures/PlainServer.js"
import { del, get, initialize, post, request, stream } from "./fixtures/RawClient.js"

/** A proxy with its admin API, in front of a server. */
const start = (server: PlainServer, args: ReadonlyArray<string> = []) =>
  Effect.gen(function* () {
    const options = ["--port", "0", "--multi-session", "--url", server.url, "--admin-port", "0"]
    const cli = yield* startCli(["forward", "http", ...options, ...args])
    const admin = cli
      .stderr()
      .map((line) => /admin: listening: (http:\/\/\S+)/.exec(line)?.[1])
      .find((url) => url !== undefined)
    if (admin === undefined) return yield* Effect.dieMessage("no admin API")
    const metrics = Effect.map(get(`${admin}/metrics`), ({ text }) => read(text))
    return { ...cli, admin, metrics }
  })

/** Metrics by name and labels. */
const read = (text: string): ReadonlyMap<string, number> =>
  new Map(
    Array.from(text.matchAll(/^(\w+(?:\{[^}]*\})?) (\S+)$/gm), ([, name = "", value]) => [
      name,
      Number(value)
    ])
  )

const pageOf = Schema.decodeUnknownSync(Schema.parseJson(SessionPage))
const sessionsOf = Schema.decodeUnknownSync(Schema.parseJson(Schema.Array(SessionInfo)))

const list = request(1, "tools/list")

describe("/metrics", () => {
  it.scopedLive("counts sessions, exchanges, errors and bytes, and has a limit for each limited gauge", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer({
        GET: ({ response }) => response.writeHead(200, { "content-type": "text/event-stream" }).flushHeaders()
      })
      const proxy = yield* start(server, ["--max-sessions", "2", "--max-per-client", "2"])
      const one = yield* initialize(proxy.url)
      const two = yield* initialize(proxy.url)
      expect((yield* post(proxy.url, request(0, "initialize"))).status).toBe(503)
      yield* post(proxy.url, list, one.session)
      yield* post(proxy.url, request(2, "made/up"), one.session)
      yield* post(proxy.url, "{", one.session)
      expect((yield* stream(proxy.url, { headers: two.session })).status).toBe(200)
      const hanging = yield* Effect.fork(post(proxy.url, request(3, "hang"), two.session))
      yield* server.until(() => server.held.length === 1)

      const during = yield* proxy.metrics
      expect(Object.fromEntries(during)).toMatchObject({
        shadowcat_sessions: 2,
        shadowcat_sessions_limit: 2,
        shadowcat_client_sessions_max: 2,
        shadowcat_client_sessions_max_limit: 2,
        shadowcat_session_exchanges_max: 2,
        shadowcat_session_exchanges_max_limit: 256,
        shadowcat_stateless_exchanges: 0,
        shadowcat_stateless_exchanges_limit: 1000,
        shadowcat_connections_limit: 10_000,
        shadowcat_buffered_bytes_limit: 268_435_456,
        shadowcat_body_bytes_limit: 4_194_304,
        shadowcat_streams: 1,
        shadowcat_sessions_opened_total: 2,
        'shadowcat_errors_total{reason="max-sessions"}': 1,
        'shadowcat_errors_total{reason="NotJson"}': 1,
        'shadowcat_exchanges_total{method="initialize",outcome="answered"}': 2,
        'shadowcat_exchanges_total{method="tools/list",outcome="answered"}': 1,
        'shadowcat_exchange_duration_seconds_count{method="tools/list"}': 1
      })
      // Clients choose methods, but must not add labels.
      expect(Array.from(during.keys()).join()).not.toContain("made/up")
      expect(during.get('shadowcat_exchanges_total{method="other",outcome="answered"}')).toBe(1)
      expect(during.get("shadowcat_connections")).toBeGreaterThanOrEqual(2)
      expect(during.get("shadowcat_buffered_bytes")).toBe(JSON.stringify(request(3, "hang")).length)
      expect(during.get("shadowcat_received_bytes_total")).toBeGreaterThan(200)
      expect(during.get("shadowcat_sent_bytes_total")).toBeGreaterThan(200)

      yield* Fiber.interrupt(hanging)
      server.held[0]?.result()
      yield* del(proxy.url, one.session)
      yield* del(proxy.url, two.session)
      expect(Object.fromEntries(yield* proxy.metrics)).toMatchObject({
        shadowcat_sessions: 0,
        shadowcat_streams: 0,
        shadowcat_buffered_bytes: 0,
        'shadowcat_sessions_closed_total{reason="deleted"}': 2
      })
    })
  )
})

describe("/sessions", () => {
  it.scopedLive("lists sessions in pages, shows one and closes it, by handles that give no access", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const proxy = yield* start(server)
      const opened = yield* Effect.replicateEffect(initialize(proxy.url), 3)
      const first: unknown = JSON.parse((yield* get(`${proxy.admin}/sessions?limit=2`)).text)
      expect(first).toMatchObject({ sessions: [{}, {}], total: 3, next: 2 })
      const answer = yield* get(`${proxy.admin}/sessions?offset=1`)
      const rest = pageOf(answer.text)
      expect(JSON.parse(answer.text)).toEqual({
        sessions: [1, 2].map(() => ({
          handle: expect.stringMatching(/^[0-9a-f]{12}$/),
          client: "127.0.0.1",
          upstream: server.url,
          protocolVersion: "2025-11-25",
          createdAt: expect.any(Number),
          lastActiveAt: expect.any(Number),
          exchanges: 0,
          streams: 0
        })),
        total: 3
      })
      for (const { sessionId } of opened) expect(answer.text).not.toContain(sessionId)

      const [one] = rest.sessions
      const url = `${proxy.admin}/sessions/${one?.handle}`
      expect(JSON.parse((yield* get(url)).text)).toEqual({ ...one })
      expect((yield* del(url)).status).toBe(204)
      expect((yield* get(url)).status).toBe(404)
      expect((yield* del(url)).status).toBe(404)
      expect((yield* post(proxy.url, list, opened[1]?.session)).status).toBe(404)
      expect((yield* post(proxy.url, list, opened[0]?.session)).status).toBe(200)
      expect(server.count("DELETE")).toBe(1)
    })
  )

  it.scopedLive("rejects foreign hosts and origins", () =>
    Effect.gen(function* () {
      const proxy = yield* start(yield* makePlainServer())
      for (const headers of [{ host: "evil.example" }, { origin: "https://evil.example" }]) {
        expect((yield* get(`${proxy.admin}/sessions`, headers)).status).toBe(403)
      }
      const { text } = yield* get(`${proxy.admin}/openapi.json`)
      expect(JSON.parse(text)).toMatchObject({
        openapi: "3.1.0",
        paths: {
          "/sessions": { get: {} },
          "/sessions/{handle}": { get: {}, delete: {} },
          "/metrics": { get: {} }
        }
      })
    })
  )
})

describe("shadowcat sessions", () => {
  it.scopedLive("lists, shows and closes", () =>
    Effect.gen(function* () {
      const proxy = yield* start(yield* makePlainServer())
      const { session } = yield* initialize(proxy.url)
      const to = ["--admin", proxy.admin]
      const json = yield* runCli(["sessions", "list", "--json", ...to])
      const handle = sessionsOf(json.stdout)[0]?.handle ?? ""
      const table = (yield* runCli(["sessions", "list", ...to])).stdout.trim().split("\n")
      expect(table).toEqual([expect.stringMatching(/^HANDLE +CLIENT/), expect.stringContaining(handle)])
      expect((yield* runCli(["sessions", "show", ...to, handle])).stdout).toContain("127.0.0.1")
      expect(yield* runCli(["sessions", "close", ...to, handle])).toMatchObject({ code: 0 })
      expect((yield* post(proxy.url, list, session)).status).toBe(404)
      expect(yield* runCli(["sessions", "close", ...to, handle])).toMatchObject({
        code: 1,
        stderr: expect.stringMatching(/^shadowcat: There is no session [0-9a-f]{12}.*sessions list/)
      })
    })
  )

  it.scopedLive("reports in one line that no admin API answers", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      for (const admin of ["http://127.0.0.1:1", server.url]) {
        expect(yield* runCli(["sessions", "list", "--admin", admin])).toMatchObject({
          code: 1,
          stdout: "",
          stderr: expect.stringMatching(/^shadowcat: No admin API answers at .*--admin-port.*\n?$/)
        })
      }
      expect(yield* runCli(["sessions", "list"])).toMatchObject({
        code: 2,
        stderr: expect.stringContaining("--admin")
      })
    })
  )

  it.scopedLive("fails on a port in use, and names the option", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const options = ["--port", "0", "--url", server.url, "--admin-port", new URL(server.url).port]
      expect(yield* runCli(["forward", "http", ...options])).toMatchObject({
        code: 1,
        stderr: expect.stringContaining("choose another with --admin-port")
      })
    })
  )
})
