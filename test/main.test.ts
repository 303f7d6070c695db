import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import { spawnSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { openDatabase } from "../src/Sqlite/database.js"
import * as SqliteFile from "../src/Sqlite/File.js"
import { type Cli, type CliRun, runCli, startCli } from "./fixtures/Cli.js"
import { makeBlackholeServer } from "./fixtures/BlackholeServer.js"
import { makeFolder } from "./fixtures/folder.js"
import { freePort } from "./fixtures/freePort.js"
import { makePlainServer, type PlainServer } from "./fixtures/PlainServer.js"
import { startProxy } from "./fixtures/Proxy.js"
import { runHere } from "./fixtures/runHere.js"
import {
  del,
  get,
  initialize,
  initialized,
  initializeRequest,
  post,
  request,
  stream
} from "./fixtures/RawClient.js"
import { connect, requestBytes } from "./fixtures/RawSocket.js"

const forward = ["forward", "http"]
const nowhere = ["--url", "http://127.0.0.1:1/mcp", "--port", "0"]
const list = request(7, "tools/list")
const modern = { "mcp-protocol-version": "2026-07-28" }

const decodeManifest = Schema.decodeUnknownSync(Schema.parseJson(Schema.Struct({ version: Schema.String })))
const decodeLimits = Schema.decodeUnknownSync(
  Schema.parseJson(Schema.Struct({ limits: Schema.Record({ key: Schema.String, value: Schema.Number }) }))
)

const variable = (option: string) => `SHADOWCAT_${option.toUpperCase().replaceAll("-", "_")}`

/** Every option of `forward http` that takes a value, with one that it does not take, and what it says then. */
const options: ReadonlyArray<readonly [name: string, wrong: string, hint: RegExp]> = [
  ["url", "http://user:secret@a/mcp", /--header/],
  ["host", "a b", /address/],
  ["port", "65536", /from 0 to 65535/],
  ["path", "/health", /path/],
  ["allow-host", "a b", /host/],
  ["allow-origin", "https://app.example/path", /origin/],
  ["header", "secret", /'Name: value'/],
  ["max-sessions", "0", /whole number/],
  ["max-per-client", "x", /whole number/],
  ["max-exchanges", "-1", /whole number/],
  ["max-stateless", "1e3", /whole number/],
  ["max-connections", "1.5", /whole number/],
  ["max-body", "5XiB", /size/],
  ["max-buffered", "0", /size/],
  ["session-timeout", "0", /duration/],
  ["cleanup-interval", "1y", /duration/],
  ["request-timeout", "-1", /duration/],
  ["connect-timeout", "x", /duration/],
  ["stall-timeout", "0s", /duration/],
  ["store", "redis:x", /sqlite:PATH, or memory/],
  ["store-sync", "half", /normal, full/],
  ["shutdown-timeout", "999h", /duration/],
  ["log-level", "loud", /one of .*debug/],
  ["log-format", "xml", /pretty.*json/]
]

/** One option of each kind, with a value that is wrong in another way. */
const kinds: ReadonlyArray<readonly [name: string, wrong: string]> = [
  ["url", "nowhere"],
  ["host", "a/b"],
  ["port", "-1"],
  ["path", "mcp"],
  ["allow-host", "a b"],
  ["allow-origin", "app.example"],
  ["header", "se cret: x"],
  ["header", "Mcp-Session-Id: secret"],
  ["max-sessions", "1000001"],
  ["max-body", "0"],
  ["session-timeout", "-1"],
  ["request-timeout", "5 apples"],
  ["store", "sqlite:"],
  ["log-level", "loud"],
  ["log-format", "xml"]
]

describe.concurrent("help, version and completions", () => {
  const expectText = (run: CliRun) => {
    expect(run).toMatchObject({ code: 0, stderr: "" })
    // No colours where nobody sees them.
    expect(run.stdout).not.toContain("\u001b")
    return run.stdout
  }

  for (const [args, run] of [
    [["--help"], runCli],
    [[], runHere],
    [["-h"], runHere],
    [["forward"], runHere],
    [["forward", "--help"], runHere]
  ] as const) {
    it.live(`shadowcat ${args.join(" ")} tells what there is`, () =>
      Effect.gen(function* () {
        expect(expectText(yield* run(args))).toMatch(/- (forward )?http /)
      })
    )
  }

  it.live("shadowcat forward http --help tells every option, its variable and its default", () =>
    Effect.gen(function* () {
      const help = expectText(yield* runHere([...forward, "--help"]))
      for (const name of ["multi-session", ...options.map(([name]) => name)]) {
        expect(help).toContain(`--${name}`)
        expect(help).toContain(`[${variable(name)}]`)
      }
      for (const value of [
        "127.0.0.1",
        "8080",
        "/mcp",
        "1000",
        "256",
        "10000",
        "4MiB",
        "30m",
        "60s",
        "300s",
        "10s"
      ]) {
        expect(help).toContain(`(default: ${value})`)
      }
    })
  )

  it.live("shadowcat --version tells that of the package", () =>
    Effect.gen(function* () {
      const { version } = decodeManifest(readFileSync("package.json", "utf8"))
      expect(expectText(yield* runCli(["--version"])).trim()).toBe(version)
    })
  )

  for (const [shell, run] of [
    ["bash", runCli],
    ["zsh", runHere],
    ["fish", runHere]
  ] as const) {
    it.live(`shadowcat --completions ${shell} is a script that knows the options`, () =>
      Effect.gen(function* () {
        const script = expectText(yield* run(["--completions", shell]))
        expect(script).toContain("forward")
        expect(script).toContain("max-sessions")
        const { error, stderr } = spawnSync(shell, ["-n"], { input: script, encoding: "utf8" })
        // Where the shell is there, it can read it.
        if (error === undefined) expect(stderr).toBe("")
      })
    )
  }
})

const expectFailure = (run: CliRun, code: number, hint: RegExp) => {
  expect(run).toMatchObject({ code, stdout: "" })
  const lines = run.stderr.split("\n")
  expect(lines).toHaveLength(1)
  expect(lines[0]).toMatch(/^shadowcat: /)
  expect(lines[0]).toMatch(hint)
  expect(lines[0]).not.toMatch(/ at .*:\d+|\.js:\d+|Error:/)
  expect(lines[0]).not.toContain("\u001b")
}

describe.concurrent("wrong use exits 2, with one line that says what to do", () => {
  /** A right use, but for this option. */
  const without = (name: string) => [
    ...forward,
    ...(name === "url" ? [] : ["--url", "http://127.0.0.1:1/mcp"]),
    ...(name === "port" ? [] : ["--port", "0"])
  ]

  interface Wrong {
    readonly name: string
    readonly args: ReadonlyArray<string>
    readonly env?: Readonly<Record<string, string>>
    readonly hint: RegExp
  }

  /** One of each kind, each told by a process. */
  const told: ReadonlyArray<Wrong> = [
    { name: "an unknown command", args: ["serve"], hint: /forward.*--help/ },
    { name: "an unknown option", args: [...forward, ...nowhere, "--bogus"], hint: /--bogus.*--help/ },
    { name: "questions without a terminal", args: [...forward, "--wizard"], hint: /terminal/ },
    { name: "no --url", args: forward, hint: /--url/ },
    { name: "completions for an unknown shell", args: ["--completions", "tcsh"], hint: /--help/ },
    {
      name: "SHADOWCAT_MULTI_SESSION that is neither true nor false",
      args: [...forward, ...nowhere],
      env: { SHADOWCAT_MULTI_SESSION: "maybe" },
      hint: /SHADOWCAT_MULTI_SESSION/
    },
    {
      name: "a value that may be secret",
      args: [...forward, ...nowhere, "--header", "secret"],
      hint: /--header/
    },
    {
      name: "a variable that is read before all options",
      args: [...forward, ...nowhere],
      env: { SHADOWCAT_LOG_LEVEL: "loud" },
      hint: /--log-level/
    }
  ]

  /** What else there is, told by the function that the process calls. */
  const others: ReadonlyArray<Wrong> = [
    { name: "an unknown command of forward", args: ["forward", "htp"], hint: /forward http.*--help/ },
    { name: "an unknown option in the place of a command", args: ["--bogus"], hint: /--help/ },
    {
      name: "an unknown option with a value",
      args: [...forward, ...nowhere, "--bogus=1"],
      hint: /--bogus.*--help/
    },
    {
      name: "an option that is misspelt",
      args: [...forward, ...nowhere, "--max-session", "5"],
      hint: /max-session/
    },
    {
      name: "an unknown option before all others",
      args: [...forward, "--bogus", ...nowhere],
      hint: /no option --bogus/
    },
    {
      name: "an option with no value before another",
      args: [...forward, "--path", ...nowhere],
      hint: /--path needs a value/
    },
    {
      name: "an option in capitals",
      args: [...forward, "--Path", "/x", ...nowhere],
      hint: /no option --Path/
    },
    { name: "an argument too many", args: [...forward, ...nowhere, "extra"], hint: /extra.*--help/ },
    { name: "an option without its value", args: [...forward, "--port", "0", "--url"], hint: /--url/ },
    {
      name: "the last option without its value",
      args: [...forward, ...nowhere, "--max-sessions"],
      hint: /--max-sessions/
    },
    {
      name: "an option given twice",
      args: [...forward, ...nowhere, "--path", "/a", "--path", "/b"],
      hint: /--path/
    },
    ...["recover", "recover-stdio"].map((name) => ({
      name: `${variable(name)} that is neither true nor false`,
      args: [...forward, ...nowhere],
      env: { [variable(name)]: "maybe" },
      hint: new RegExp(variable(name))
    })),
    ...kinds.map(([name, value]) => ({
      name: `--${name} ${value}`,
      args: [...without(name), `--${name}`, value],
      hint: new RegExp(`--${name}.*${variable(name)}`)
    })),
    ...options.map(([name, value, hint]) => ({
      name: `${variable(name)}=${value}`,
      args: without(name),
      env: { [variable(name)]: value },
      hint: new RegExp(`--${name}.*${variable(name)}.*${hint.source}`)
    }))
  ]

  const expectRefusal = (run: CliRun, { hint }: Wrong) => {
    expectFailure(run, 2, hint)
    expect(run.stderr).not.toContain("secret")
  }

  for (const wrong of told) {
    it.live(wrong.name, () =>
      Effect.map(runCli(wrong.args, { env: wrong.env ?? {} }), (run) => expectRefusal(run, wrong))
    )
  }

  for (const wrong of others) {
    it.live(wrong.name, () => Effect.map(runHere(wrong.args, wrong.env), (run) => expectRefusal(run, wrong)))
  }
})

describe.concurrent("a failure exits 1, with one line that says what to do", () => {
  it.scopedLive("a port that is taken", () =>
    Effect.gen(function* () {
      const { port } = yield* makePlainServer()
      const run = yield* runCli([...forward, ...nowhere.slice(0, 2), "--port", String(port)])
      expectFailure(run, 1, new RegExp(`127\\.0\\.0\\.1:${port}.*--port`))
    })
  )

  for (const host of ["no-such-host.invalid", "192.0.2.1"]) {
    it.live(`a host that this machine does not have: ${host}`, () =>
      Effect.gen(function* () {
        expectFailure(yield* runCli([...forward, ...nowhere, "--host", host]), 1, /--host/)
      })
    )
  }

  const expectRefused = (path: string, hint: RegExp) =>
    Effect.map(runCli([...forward, ...nowhere, "--store", `sqlite:${path}`]), (run) => {
      expectFailure(run, 1, hint)
      expect(run.stderr).toContain(path)
    })

  /** A file for sessions that a proxy has used and left. */
  const usedStore = Effect.gen(function* () {
    const path = join(yield* makeFolder("store"), "sessions.db")
    yield* Effect.scoped(SqliteFile.make({ path }))
    return path
  })

  it.scopedLive("a store that another proxy uses, which goes on", () =>
    Effect.gen(function* () {
      const path = yield* usedStore
      const server = yield* makePlainServer()
      const proxy = yield* startProxy(server, ["--store", `sqlite:${path}`])
      yield* expectRefused(path, /another process.*file of its own/)
      expect((yield* initialize(proxy.url)).answer.status).toBe(200)
    })
  )

  it.scopedLive("a store of a newer version", () =>
    Effect.gen(function* () {
      const path = yield* usedStore
      const database = yield* Effect.promise(() => openDatabase(path))
      database.exec("PRAGMA user_version = 99")
      database.close()
      yield* expectRefused(path, /newer version.*use that one, or another file/)
    })
  )

  it.scopedLive("a store that is no database", () =>
    Effect.gen(function* () {
      const path = join(yield* makeFolder("store"), "sessions.db")
      writeFileSync(path, "garbage ".repeat(2_000))
      yield* expectRefused(path, /no database.*restore it, or remove it/)
    })
  )

  it.scopedLive("a store in a folder that is missing", () =>
    Effect.gen(function* () {
      yield* expectRefused(join(yield* makeFolder("store"), "missing", "sessions.db"), /folder.*create/)
    })
  )
})

/** The line that tells what is served, and nothing else so far. */
const firstLine = (cli: Cli): string => {
  expect(cli.stdout()).toEqual([])
  expect(cli.stderr()).toHaveLength(1)
  return cli.stderr()[0] ?? ""
}

describe.concurrent("a proxy that runs", () => {
  it.scopedLive(
    "tells in one line where it really listens and what is upstream, without what may be secret",
    () =>
      Effect.gen(function* () {
        const { port } = yield* makePlainServer()
        const url = `http://127.0.0.1:${port}/mcp?key=secret#secret`
        const proxy = yield* startProxy({ url })
        expect(firstLine(proxy)).toMatch(
          new RegExp(
            `listening on http://127\\.0\\.0\\.1:${proxy.port}/mcp .*upstream http://127\\.0\\.0\\.1:${port}/mcp$`
          )
        )
        expect(proxy.port).toBeGreaterThan(0)
        expect((yield* initialize(proxy.url)).answer.status).toBe(200)
      })
  )

  it.scopedLive("listens on an IPv6 address, and tells it as one", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const cli = yield* startCli([...forward, "--url", server.url, "--port", "0", "--host", "::1"])
      expect(cli.url).toBe(`http://[::1]:${cli.port}/mcp`)
      expect((yield* initialize(cli.url)).answer.status).toBe(200)
    })
  )

  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    it.scopedLive(`exits 0 on ${signal}, idle`, () =>
      Effect.gen(function* () {
        const cli = yield* startCli([...forward, ...nowhere])
        yield* cli.signal(signal)
        expect(yield* cli.exit).toEqual({ code: 0, signal: null })
        firstLine(cli)
      })
    )

    it.scopedLive(`exits 0 on ${signal}, in the middle of its work: calls are answered, sessions ended`, () =>
      Effect.gen(function* () {
        const server = yield* makePlainServer({
          GET: ({ response }) => {
            response.writeHead(200, { "content-type": "text/event-stream" })
            response.flushHeaders()
          }
        })
        const proxy = yield* startProxy(server, ["--multi-session", "--shutdown-timeout", "100ms"])
        const { session } = yield* initialize(proxy.url)
        const listening = yield* stream(proxy.url, { headers: session })
        const calls = yield* Effect.forEach([session, modern], (headers, id) =>
          Effect.fork(post(proxy.url, request(id, "hang"), headers))
        )
        yield* server.until(() => server.held.length === 2)
        yield* proxy.signal(signal)
        for (const [id, call] of calls.entries()) {
          const { status, text } = yield* Fiber.join(call)
          expect({ status, body: JSON.parse(text) }).toMatchObject({
            status: 503,
            body: { id, error: { code: -32000 } }
          })
        }
        expect(yield* listening.end).toBe("ended")
        expect(yield* proxy.exit).toEqual({ code: 0, signal: null })
        expect(server.requests.at(-1)).toMatchObject({
          method: "DELETE",
          headers: { "mcp-session-id": "up-1" }
        })
        expect(proxy.stdout()).toEqual([])
        yield* server.until(() => server.connections() === 0)
      })
    )
  }

  it.scopedLive("ends at once on a second signal", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const proxy = yield* startProxy(server, ["--multi-session", "--shutdown-timeout", "1h"])
      const { session } = yield* initialize(proxy.url)
      const call = yield* Effect.fork(Effect.either(post(proxy.url, request(1, "hang"), session)))
      yield* server.until(() => server.held.length === 1)
      yield* proxy.signal("SIGTERM")
      yield* proxy.untilHealth(({ status }) => status === "draining")
      expect(proxy.exited()).toBeUndefined()
      yield* proxy.signal("SIGTERM")
      yield* proxy.exit
      yield* Fiber.join(call)
    })
  )

  it.scopedLive("exits 0 when its only session ends, without --multi-session", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const proxy = yield* startProxy(server, [])
      expect(firstLine(proxy)).toContain("one session")
      const { session } = yield* initialize(proxy.url)
      yield* post(proxy.url, list, session)
      const refused = yield* initialize(proxy.url)
      expect(refused.answer).toMatchObject({ status: 503, text: expect.stringContaining("--multi-session") })
      expect((yield* del(proxy.url, session)).status).toBe(200)
      expect(yield* proxy.exit).toEqual({ code: 0, signal: null })
    })
  )
})

describe.concurrent("what is logged", () => {
  const marks = [
    "option-header",
    "url-query",
    "authorization",
    "cookie",
    "payload",
    "result",
    "upstream-id",
    "upstream-error",
    "html",
    "not-json",
    "unknown-id",
    "path",
    "query",
    "origin",
    "garbage"
  ]
  const mark = (name: string) => `${name}-mark-4f1d`

  /** All that a proxy relays, refuses and fails at, each with something that nobody may read in its log. */
  const traffic = (proxy: Cli, server: PlainServer) =>
    Effect.gen(function* () {
      const secret = { authorization: `Bearer ${mark("authorization")}`, cookie: mark("cookie") }
      const said = (id: number, method: string) => request(id, method, { text: mark("payload") })
      const { session, sessionId } = yield* initialize(proxy.url, { headers: secret })
      const inSession = { ...session, ...secret }
      yield* post(proxy.url, initialized, inSession)
      yield* post(proxy.url, said(1, "tools/list"), inSession)
      yield* post(proxy.url, said(2, "fail"), inSession)
      yield* post(proxy.url, said(3, "crash"), inSession)
      yield* post(proxy.url, said(4, "tools/list"), { ...modern, ...secret })
      yield* get(proxy.url, inSession)
      yield* initialize(proxy.url, { id: "html", headers: secret, clientInfo: { name: mark("payload") } })
      yield* initialize(proxy.url, { id: "refuse", headers: secret })
      yield* initialize(proxy.url, { id: "crash", headers: secret })
      yield* initialize(proxy.url, { id: "redirect", headers: secret })
      yield* post(proxy.url, mark("not-json"), inSession)
      yield* post(proxy.url, `{"jsonrpc":"${mark("payload")}"}`, inSession)
      yield* post(proxy.url, list, { "mcp-session-id": mark("unknown-id") })
      yield* post(`${proxy.url}/${mark("path")}?${mark("query")}`, list, secret)
      yield* post(proxy.url, list, { origin: `http://${mark("origin")}` })
      const socket = yield* connect(proxy.port)
      yield* socket.write(`${mark("garbage")}\0\r\n\r\n`)
      yield* socket.closed()
      const large = yield* connect(proxy.port)
      yield* large.write(
        requestBytes("POST", { ...inSession, "content-length": "999999999" }) + mark("payload")
      )
      yield* large.answer(0)
      yield* large.destroy
      const gone = yield* connect(proxy.port)
      yield* gone.write(requestBytes("POST", inSession, said(5, "hang")))
      yield* server.until(() => server.held.length === 1)
      yield* gone.destroy
      const other = yield* initialize(proxy.url, { headers: secret })
      yield* del(proxy.url, { ...other.session, ...secret })
      return [sessionId ?? "none", other.sessionId ?? "none"]
    })

  for (const format of ["pretty", "json"]) {
    it.scopedLive(`never holds a payload, a token or a session id: ${format}, at the level trace`, () =>
      Effect.gen(function* () {
        let sessions = 0
        const server = yield* makePlainServer({
          initialize: ({ answer, id, request, result }) => {
            if (id === "html") return answer(200, { "content-type": "text/html" }, mark("html"))
            if (id === "refuse")
              return answer(401, { "www-authenticate": mark("upstream-error") }, mark("upstream-error"))
            if (id === "redirect")
              return answer(307, { location: `http://127.0.0.1:1/mcp?${mark("upstream-error")}` })
            if (id === "crash") return request.socket.destroy()
            const upstreamId = `${mark("upstream-id")}-${++sessions}`
            result(
              { protocolVersion: "2025-11-25", instructions: mark("result") },
              { "mcp-session-id": upstreamId }
            )
          },
          "tools/list": ({ result }) => result({ text: mark("result") }),
          fail: ({ answer }) => answer(500, {}, mark("upstream-error")),
          crash: ({ request }) => request.socket.destroy()
        })
        const proxy = yield* startProxy({ url: `${server.url}?key=${mark("url-query")}` }, [
          "--multi-session",
          "--header",
          `X-Secret: ${mark("option-header")}`,
          "--log-level",
          "trace",
          "--log-format",
          format,
          "--shutdown-timeout",
          "0"
        ])
        const ids = yield* traffic(proxy, server)
        yield* proxy.signal("SIGTERM")
        expect(yield* proxy.exit).toEqual({ code: 0, signal: null })
        const output = [...proxy.stdout(), ...proxy.stderr()].join("\n")
        expect([...marks.map(mark), ...ids].filter((secret) => output.includes(secret))).toEqual([])
        // All of it was sent: what the upstream got has what the log has not.
        const sent = JSON.stringify(server.requests.map(({ body, headers, path }) => [path, headers, body]))
        for (const name of [
          "option-header",
          "url-query",
          "authorization",
          "cookie",
          "payload",
          "upstream-id"
        ]) {
          expect(sent).toContain(mark(name))
        }
        // And there was something to log.
        expect(output).toContain("session closed")
        expect(output).toContain("no session opened")
      })
    )
  }

  it.scopedLive("with --log-format json is one JSON object a line on stderr, and nothing on stdout", () =>
    Effect.gen(function* () {
      const server = yield* makePlainServer()
      const proxy = yield* startProxy(server, [
        "--multi-session",
        "--log-format",
        "json",
        "--log-level",
        "trace"
      ])
      yield* Effect.ignore(traffic(proxy, server))
      // Nor does Node say anything of its own, as it does of many listeners.
      const socket = yield* connect(proxy.port)
      yield* socket.write(requestBytes("GET", {}, undefined, "/health").repeat(50))
      yield* socket.answer(49)
      yield* proxy.signal("SIGTERM")
      expect(yield* proxy.exit).toEqual({ code: 0, signal: null })
      expect(proxy.stdout()).toEqual([])
      expect(proxy.stderr().length).toBeGreaterThan(1)
      for (const line of proxy.stderr()) {
        const entry: unknown = JSON.parse(line)
        expect(entry).toMatchObject({ logLevel: expect.any(String), message: expect.anything() })
      }
    })
  )
})

/** An environment in which every option that is only a number has a value of its own. */
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

const environment = (values: Readonly<Record<string, string>>) =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [variable(name), value]))

const commandLine = (values: Readonly<Record<string, string>>) =>
  Object.entries(values).flatMap(([name, value]) => [`--${name}`, value])

describe.concurrent("every option can be set in the environment, and the command line wins over it", () => {
  /** What can be seen from outside of what a proxy was told. */
  const look = (cli: Cli, hosts: ReadonlyArray<string>, origins: ReadonlyArray<string>) =>
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

  it.scopedLive("what is served where, to whom, and its limits", () =>
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
          expect(yield* look(cli, hosts, origins)).toEqual({
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
      expect(yield* look(cli, hosts, origins)).toEqual({
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

  it.scopedLive("--multi-session, which is off where nothing says otherwise", () =>
    Effect.gen(function* () {
      for (const [env, told] of [
        [{}, "one session"],
        [{ SHADOWCAT_MULTI_SESSION: "false" }, "one session"],
        [{ SHADOWCAT_MULTI_SESSION: "true" }, "many sessions"]
      ] as const) {
        expect(firstLine(yield* startCli([...forward, ...nowhere], { env }))).toContain(told)
      }
    })
  )

  /** What takes effect in time, in the log, or at the end: whether it does, seen from outside. */
  const effects: ReadonlyArray<{
    readonly options: Readonly<Record<string, string>>
    /** Values under which it would not be seen. */
    readonly others: Readonly<Record<string, string>>
    readonly seen: (cli: Cli, server: PlainServer) => Effect.Effect<unknown, unknown>
  }> = [
    {
      options: { "session-timeout": "300ms", "cleanup-interval": "0.2s" },
      others: { "session-timeout": "1h", "cleanup-interval": "60m" },
      seen: (cli, server) =>
        Effect.zipRight(
          initialize(cli.url),
          server.until(() => server.count("DELETE") === 1)
        )
    },
    {
      options: { "request-timeout": "1" },
      others: { "request-timeout": "0" },
      seen: (cli) =>
        Effect.map(post(cli.url, request(1, "hang"), modern), ({ status }) => expect(status).toBe(504))
    },
    {
      options: { "stall-timeout": "1s" },
      others: { "stall-timeout": "1h" },
      seen: (cli) =>
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
      seen: (cli, server) =>
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
      seen: (cli: Cli) =>
        Effect.gen(function* () {
          const { session } = yield* initialize(cli.url)
          yield* del(cli.url, session)
          yield* cli.signal("SIGTERM")
          yield* cli.exit
          expect(cli.stderr().some((line) => line.includes("session closed"))).toBe(isLogged)
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
      seen: (cli: Cli) => Effect.sync(() => expect(firstLine(cli).startsWith("{")).toBe(isJson))
    }))
  ]

  for (const { options, others, seen } of effects) {
    it.scopedLive(`${commandLine(options).join(" ")}`, () =>
      Effect.gen(function* () {
        for (const [args, env] of [
          [[], environment(options)],
          [commandLine(options), environment(others)]
        ] as const) {
          const server = yield* makePlainServer()
          const cli = yield* startProxy(server, ["--multi-session", ...args], { env })
          yield* seen(cli, server)
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
