/** A client of the admin API, which prints the sessions of a running proxy. */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as HttpApiClient from "@effect/platform/HttpApiClient"
import * as Clock from "effect/Clock"
import * as Console from "effect/Console"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { AdminApi, type SessionInfo, type SessionPage, UnknownSession } from "../Admin/Api.js"

class AdminUnreachable extends Data.TaggedError("AdminUnreachable")<{ readonly admin: URL }> {
  override get message() {
    return `No admin API answers at ${this.admin.origin}: start the proxy with --admin-port and pass its URL as --admin`
  }
}

/** The maximum time of a request. It is long, because the close of a session waits for its upstream. */
const TIMEOUT = Duration.seconds(30)

/** The number of sessions in one response. */
const PAGE_SIZE = 1000

const connect = (admin: URL) => HttpApiClient.make(AdminApi, { baseUrl: admin })

type Client = Effect.Effect.Success<ReturnType<typeof connect>>

/** Sends a request to the API. Fails with `AdminUnreachable` for every error that is not a response of the API. */
const request = <A, E>(
  admin: URL,
  send: (client: Client) => Effect.Effect<A, E>
): Effect.Effect<A, AdminUnreachable | UnknownSession> =>
  connect(admin).pipe(
    Effect.flatMap(send),
    Effect.timeout(TIMEOUT),
    Effect.mapError((error) => (error instanceof UnknownSession ? error : new AdminUnreachable({ admin }))),
    Effect.provide(FetchHttpClient.layer)
  )

/** Prints all live sessions. */
export const list = (admin: URL, asJson: boolean) =>
  request(admin, (client) =>
    Effect.gen(function* () {
      const sessions: Array<SessionInfo> = []
      for (let offset: number | undefined = 0; offset !== undefined;) {
        const page: SessionPage = yield* client.sessions.list({ urlParams: { offset, limit: PAGE_SIZE } })
        sessions.push(...page.sessions)
        offset = page.next
      }
      return sessions
    })
  ).pipe(
    Effect.flatMap((sessions) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        Console.log(asJson ? JSON.stringify(sessions, undefined, 2) : table(sessions, now))
      )
    )
  )

/** Prints one session. */
export const show = (admin: URL, handle: string, asJson: boolean) =>
  request(admin, (client) => client.sessions.show({ path: { handle } })).pipe(
    Effect.flatMap((session) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        Console.log(asJson ? JSON.stringify(session, undefined, 2) : table([session], now))
      )
    )
  )

/** Closes a session. */
export const close = (admin: URL, handle: string) =>
  Effect.zipRight(
    request(admin, (client) => client.sessions.close({ path: { handle } })),
    Console.log(`closed ${handle}`)
  )

const columns: ReadonlyArray<readonly [title: string, cell: (session: SessionInfo, now: number) => string]> =
  [
    ["HANDLE", ({ handle }) => handle],
    ["CLIENT", ({ client }) => client],
    ["REVISION", ({ protocolVersion }) => protocolVersion],
    ["AGE", ({ createdAt }, now) => ago(createdAt, now)],
    ["ACTIVE", ({ lastActiveAt }, now) => `${ago(lastActiveAt, now)} ago`],
    ["CALLS", ({ exchanges, streams }) => String(exchanges - streams)],
    ["STREAMS", ({ streams }) => String(streams)],
    ["UPSTREAM", ({ upstream }) => upstream]
  ]

const table = (sessions: ReadonlyArray<SessionInfo>, now: number): string => {
  const rows = [
    columns.map(([title]) => title),
    ...sessions.map((session) => columns.map(([, cell]) => cell(session, now)))
  ]
  const widths = columns.map((_, index) => Math.max(...rows.map((row) => row[index]?.length ?? 0)))
  return rows
    .map((row) =>
      row
        .map((cell, index) => cell.padEnd(widths[index] ?? 0))
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}

const ago = (time: number, now: number): string =>
  Duration.format(Duration.seconds(Math.max(0, Math.round((now - time) / 1000))))
