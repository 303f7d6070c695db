/** What can be asked of a running proxy by those who operate it: an HTTP API, and its OpenAPI document. */
import * as HttpApi from "@effect/platform/HttpApi"
import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import * as OpenApi from "@effect/platform/OpenApi"
import * as Schema from "effect/Schema"
import { version } from "../internal/version.js"

/** A live session, named by a handle that opens nothing. Times are milliseconds since 1970. */
export class SessionInfo extends Schema.Class<SessionInfo>("SessionInfo")({
  /** Twelve hexadecimal digits, the same as in the logs. */
  handle: Schema.String,
  /** The address of the client that opened it. */
  client: Schema.String,
  /** The upstream's address, without anything secret. */
  upstream: Schema.String,
  /** The revision that `initialize` settled. */
  protocolVersion: Schema.String,
  createdAt: Schema.Number,
  lastActiveAt: Schema.Number,
  /** How many exchanges are in flight, streams among them. */
  exchanges: Schema.Number,
  /** How many streams the client holds open. */
  streams: Schema.Number
}) {}

/** A part of the list of all sessions, oldest first. */
export class SessionPage extends Schema.Class<SessionPage>("SessionPage")({
  sessions: Schema.Array(SessionInfo),
  /** How many sessions there are in all. */
  total: Schema.Number,
  /** The `offset` of the next part; absent from the last one. */
  next: Schema.optional(Schema.Number)
}) {}

/** No live session has this handle. */
export class UnknownSession extends Schema.TaggedError<UnknownSession>()(
  "UnknownSession",
  { handle: Schema.String },
  HttpApiSchema.annotations({ status: 404 })
) {
  override get message() {
    return `There is no session ${this.handle}: \`shadowcat sessions list\` shows those there are`
  }
}

const handle = HttpApiSchema.param("handle", Schema.String)

const atMost = (most: number) => Schema.NumberFromString.pipe(Schema.int(), Schema.between(0, most))

const sessions = HttpApiGroup.make("sessions")
  .add(
    HttpApiEndpoint.get("list", "/sessions")
      .setUrlParams(
        Schema.Struct({
          /** How many sessions to leave out. Default: 0. */
          offset: Schema.optionalWith(atMost(Number.MAX_SAFE_INTEGER), { default: () => 0 }),
          /** How many sessions to tell. Default: 100, and at most 1000. */
          limit: Schema.optionalWith(atMost(1000), { default: () => 100 })
        })
      )
      .addSuccess(SessionPage)
      .annotate(OpenApi.Description, "Lists the live sessions, oldest first.")
  )
  .add(
    HttpApiEndpoint.get("show")`/sessions/${handle}`
      .addSuccess(SessionInfo)
      .addError(UnknownSession)
      .annotate(OpenApi.Description, "Tells about one live session.")
  )
  .add(
    HttpApiEndpoint.del("close")`/sessions/${handle}`
      .addSuccess(HttpApiSchema.NoContent)
      .addError(UnknownSession)
      .annotate(OpenApi.Description, "Closes a session, and answers when everything it held is released.")
  )

const metrics = HttpApiGroup.make("metrics").add(
  HttpApiEndpoint.get("text", "/metrics")
    .addSuccess(
      Schema.String.pipe(
        HttpApiSchema.withEncoding({ kind: "Text", contentType: "text/plain; version=0.0.4; charset=utf-8" })
      )
    )
    .annotate(OpenApi.Description, "Everything that is measured, in the text format of Prometheus.")
)

/** The OpenAPI document is at `/openapi.json`. */
export class AdminApi extends HttpApi.make("shadowcat")
  .add(sessions)
  .add(metrics)
  .annotate(OpenApi.Title, "shadowcat")
  .annotate(OpenApi.Version, version) {}
