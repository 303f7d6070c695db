import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { existsSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { parseOptions } from "../scripts/demonstration/options.js"
import { type Findings, table, verdict } from "../scripts/demonstration/report.js"
import { officialClients } from "./fixtures/Clients.js"
import { runCommand, type RunningCommand } from "./fixtures/RunningCommand.js"

const script = fileURLToPath(new URL("../scripts/demo", import.meta.url))

interface Demo extends RunningCommand {
  /** Returns the ids of the child processes of the script. */
  readonly children: () => ReadonlyArray<number>
  readonly exitCode: Effect.Effect<number | null>
}

const startDemo = (args: ReadonlyArray<string>): Effect.Effect<Demo, never, Scope.Scope> =>
  Effect.map(runCommand(script, args), (command) => ({
    ...command,
    children: () => {
      const { pid } = command.child
      return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").map(Number)
    },
    exitCode: Effect.map(command.exit, ({ code }) => code)
  }))

const isThere = (pid: number) => existsSync(`/proc/${pid}`)

describe.concurrent("scripts/demo", { timeout: 90_000 }, () => {
  it.scopedLive("prints the results of the clients' calls, and that no socket and no session is left", () =>
    Effect.gen(function* () {
      const demo = yield* startDemo(["--seconds", "1", "--clients", "20"])
      expect({ code: yield* demo.exitCode, stderr: demo.stderr() }).toMatchObject({ code: 0 })
      const rows = demo.stdout().trimEnd().split("\n")
      const cell = (title: string) =>
        rows
          .find((row) => row.startsWith(`${title} `))
          ?.slice(title.length)
          .trim() ?? ""
      expect(cell("sessions")).toMatch(/^20 .*10 of the line 1\.x and 10 of 2\.x/)
      expect(Number.parseInt(cell("calls"), 10)).toBeGreaterThan(20)
      expect(cell("errors")).toMatch(/^0 /)
      for (const title of ["p50", "p99"]) expect(cell(title)).toMatch(/^\d+(\.\d)? ms /)
      expect(cell("continued")).toMatch(/^20 /)
      expect(cell("interrupted")).toMatch(/^\d+ +of \d+ calls during the restarts/)
      expect(cell("memory")).toMatch(/^\d+ MB /)
      expect(cell("shutdown")).toMatch(/ code 0, 4 sessions still open$/)
      expect(cell("sockets left")).toMatch(/^0 /)
      // The sockets were counted: each client has at least the socket of its stream.
      expect(Number(/(\d+) at the peak/.exec(cell("sockets left"))?.[1])).toBeGreaterThanOrEqual(20)
      expect(cell("sessions left")).toMatch(/^4 .* of the 20 it issued: the 4 still open/)
      // Stderr is not a terminal, so no line is rewritten.
      for (const control of ["\r", "\u001b"]) expect(demo.stderr()).not.toContain(control)
    })
  )

  it.scopedLive("starts a child process for each client with --stdio, and prints that none is left", () =>
    Effect.gen(function* () {
      const demo = yield* startDemo(["--stdio", "--seconds", "1", "--clients", "6"])
      expect({ code: yield* demo.exitCode, stderr: demo.stderr() }).toMatchObject({ code: 0 })
      expect(demo.stdout()).toMatch(/^sessions +6 /m)
      expect(demo.stdout()).toMatch(/^errors +0 /m)
      expect(demo.stdout()).toMatch(/^children left +0 +of the 6 child processes/m)
      expect(demo.stdout()).not.toContain("sessions left")
    })
  )

  it.scopedLive("exits with 130 on Ctrl-C and leaves no child process", () =>
    Effect.gen(function* () {
      const demo = yield* startDemo(["--clients", "4"])
      yield* demo.until(() => demo.stderr().includes("clients calling"))
      const children = demo.children()
      expect(children).toHaveLength(2)
      yield* demo.signal("SIGINT")
      expect(yield* demo.exitCode).toBe(130)
      expect(demo.stdout()).toBe("")
      expect(demo.stderr()).not.toContain("demo: ")
      expect(children.filter(isThere)).toEqual([])
    })
  )

  it.scopedLive("keeps running with --serve, prints the proxy's URL, and exits 0 on SIGTERM", () =>
    Effect.gen(function* () {
      const demo = yield* startDemo(["--serve"])
      yield* demo.until(() => demo.stdout().includes("Ctrl-C"))
      const url = /--server-url (http:\S+)/.exec(demo.stdout())?.[1] ?? ""
      const children = demo.children()
      expect(children).toHaveLength(2)
      for (const [line, connect] of officialClients) {
        const client = yield* connect(url, { terminate: false })
        expect(yield* client.call("echo", { message: line })).toBe(`Echo: ${line}`)
      }
      yield* demo.signal("SIGTERM")
      expect(yield* demo.exitCode).toBe(0)
      expect(demo.stderr()).toBe("")
      expect(children.filter(isThere)).toEqual([])
    })
  )

  it.scopedLive("exits 1 with one line when the proxy dies, and leaves no child process", () =>
    Effect.gen(function* () {
      const demo = yield* startDemo(["--serve"])
      yield* demo.until(() => demo.stdout().includes("Ctrl-C"))
      const children = demo.children()
      const proxy = children.find((pid) => readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("forward"))
      expect(proxy).toBeDefined()
      if (proxy !== undefined) process.kill(proxy, "SIGKILL")
      expect(yield* demo.exitCode).toBe(1)
      expect(demo.stderr()).toMatch(/^demo: the proxy ended by itself \(SIGKILL\).*\n$/)
      expect(children.filter(isThere)).toEqual([])
    })
  )

  it.scopedLive("prints its usage, and rejects an unknown option with one line", () =>
    Effect.gen(function* () {
      const help = yield* startDemo(["--help"])
      expect(yield* help.exitCode).toBe(0)
      expect(help.stdout()).toContain("usage: scripts/demo")
      const wrong = yield* startDemo(["--unknown"])
      expect({ code: yield* wrong.exitCode, stdout: wrong.stdout() }).toEqual({ code: 2, stdout: "" })
      expect(wrong.stderr()).toMatch(/^demo: .*--unknown.*\n$/)
    })
  )
})

describe("the options of scripts/demo", () => {
  it("have defaults and limits", () => {
    expect(parseOptions([])).toEqual({ serve: false, stdio: false, clients: 100, seconds: 8 })
    expect(parseOptions(["--stdio"])).toMatchObject({ stdio: true, clients: 30 })
    expect(parseOptions(["--clients", "5", "--seconds=2"])).toMatchObject({ clients: 5, seconds: 2 })
    for (const args of [
      ["--clients", "0"],
      ["--clients", "501"],
      ["--stdio", "--clients", "101"],
      ["--seconds", "a"],
      ["--seconds"],
      ["more"]
    ]) {
      expect(() => parseOptions(args), args.join(" ")).toThrow()
    }
  })
})

describe("the verdict of scripts/demo", () => {
  const findings: Findings = {
    clients: 10,
    sessions: { atOnce: 10, afterDeletes: 2 },
    vanished: 2,
    seconds: 1,
    calls: 50,
    errors: 0,
    firstError: undefined,
    p50: 1,
    p99: 2,
    memory: undefined,
    proxy: { ending: 0, ms: 10 },
    sockets: { left: 0, peak: 30 },
    upstream: { issued: 10, left: 2 },
    second: { continued: 10, firstError: undefined, sessions: 10, interrupted: 3, calls: 20 }
  }

  it("is undefined when all findings are as expected", () => {
    expect(verdict(findings)).toBeUndefined()
    expect(table(findings)).not.toContain("memory")
    const uncounted: Findings = { ...findings, upstream: { children: undefined } }
    expect(verdict(uncounted)).toBeUndefined()
    expect(table(uncounted)).not.toContain("left at")
    expect(table(uncounted)).not.toContain("children")
  })

  const wrong: ReadonlyArray<readonly [changes: Partial<Findings>, line: string]> = [
    [{ errors: 1, firstError: "oh" }, "1 of 50 calls failed, the first: oh"],
    [{ sessions: { atOnce: 9, afterDeletes: 2 } }, "the proxy had 9 sessions for 10 clients"],
    [{ sessions: { atOnce: 10, afterDeletes: 3 } }, "the proxy had 3 sessions after the DELETEs, not 2"],
    [{ proxy: { ending: 1, ms: 10 } }, "the proxy's exit after SIGTERM: code 1"],
    [{ proxy: { ending: undefined, ms: 10 } }, "the proxy's exit after SIGTERM: not in time"],
    [{ sockets: { left: 1, peak: 30 } }, "sockets left here: 1"],
    [{ upstream: { issued: 11, left: 2 } }, "the demo server issued 11 sessions for 10 clients"],
    [{ upstream: { issued: 10, left: 3 } }, "sessions left at the demo server: 3, not the 2 that are stored"],
    [
      { second: { continued: 9, firstError: "oh", sessions: 10, interrupted: 0, calls: 0 } },
      "1 of 10 sessions did not continue, the first: oh"
    ],
    [
      { second: { continued: 10, firstError: undefined, sessions: 9, interrupted: 0, calls: 0 } },
      "the proxy had 9 sessions for 10 clients after it was started again"
    ],
    [{ upstream: { children: { atOnce: 9, left: 0 } } }, "there were 9 child processes for 10 clients"],
    [{ upstream: { children: { atOnce: 10, left: 1 } } }, "child processes left: 1"]
  ]
  for (const [changes, line] of wrong) {
    it(line, () => expect(verdict({ ...findings, ...changes })).toBe(line))
  }
})
