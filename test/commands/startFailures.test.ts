import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { openDatabase } from "../../src/Sqlite/database.js"
import * as SqliteFile from "../../src/Sqlite/File.js"
import { runCli } from "../fixtures/Cli.js"
import { expectFailure, forward, nowhere } from "../fixtures/commandLine.js"
import { makeFolder } from "../fixtures/folder.js"
import { makePlainServer } from "../fixtures/PlainServer.js"
import { startProxy } from "../fixtures/Proxy.js"
import { initialize } from "../fixtures/RawClient.js"

describe.concurrent("a start that fails exits 1 with one line that says what to do", () => {
  it.scopedLive("a port that is in use", () =>
    Effect.gen(function* () {
      const { port } = yield* makePlainServer()
      const run = yield* runCli([...forward, ...nowhere.slice(0, 2), "--port", String(port)])
      expectFailure(run, 1, new RegExp(`127\\.0\\.0\\.1:${port}.*--port`))
    })
  )

  for (const host of ["no-such-host.invalid", "192.0.2.1"]) {
    it.live(`a host that is not an address of this machine: ${host}`, () =>
      Effect.gen(function* () {
        expectFailure(yield* runCli([...forward, ...nowhere, "--host", host]), 1, /--host/)
      })
    )
  }

  const expectStoreError = (path: string, hint: RegExp) =>
    Effect.map(runCli([...forward, ...nowhere, "--store", `sqlite:${path}`]), (run) => {
      expectFailure(run, 1, hint)
      expect(run.stderr).toContain(path)
    })

  /** Creates the store file of a proxy that has exited. */
  const makeStoreFile = Effect.gen(function* () {
    const path = join(yield* makeFolder("store"), "sessions.db")
    yield* Effect.scoped(SqliteFile.make({ path }))
    return path
  })

  it.scopedLive("a store that another proxy uses, which continues to work", () =>
    Effect.gen(function* () {
      const path = yield* makeStoreFile
      const server = yield* makePlainServer()
      const proxy = yield* startProxy(server, ["--store", `sqlite:${path}`])
      yield* expectStoreError(path, /another process.*its own file/)
      expect((yield* initialize(proxy.url)).answer.status).toBe(200)
    })
  )

  it.scopedLive("a store of a newer version", () =>
    Effect.gen(function* () {
      const path = yield* makeStoreFile
      const database = yield* Effect.promise(() => openDatabase(path))
      database.exec("PRAGMA user_version = 99")
      database.close()
      yield* expectStoreError(path, /newer version.*use that version or another file/)
    })
  )

  it.scopedLive("a store file that is not a database", () =>
    Effect.gen(function* () {
      const path = join(yield* makeFolder("store"), "sessions.db")
      writeFileSync(path, "garbage ".repeat(2_000))
      yield* expectStoreError(path, /not a database.*restore it, or remove it/)
    })
  )

  it.scopedLive("a store in a folder that does not exist", () =>
    Effect.gen(function* () {
      yield* expectStoreError(join(yield* makeFolder("store"), "missing", "sessions.db"), /folder.*create/)
    })
  )
})
