/** The admin API for operators of a running proxy, with its OpenAPI document. */
import * as HttpApi from "@effect/platform/HttpApi"
import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import * as OpenApi from "@effect/platform/OpenApi"
import * as Schema from "effect/Schema"
import { version } from "../internal/version.js"

/** A live session. Its handle gives no access to it. Times are in milliseconds since 1970. */
export class SessionInfo extends Schema.Class<SessionInfo>("SessionInfo")({
  /** Twelve hexadecimal digits, as in the logs. */
  handle: Schema.String,
  /** The address of the client that opened the session. */
  client: Schema.String,
  /** The upstream's address, without secrets. */
  upstream: Schema.String,
  /** The revision that `initialize` negotiated. */
  protocolVersion: Schema.String,
  createdAt: Schema.Number,
  lastActiveAt: Schema.Number,
  /** The number of exchanges in flight, including streams. */
  exchanges: Schema.Number,
  /** The number of streams that the client has open. */
  streams: Schema.Number
}) {}

/** A page of the list of sessions, oldest first. */
export class SessionPage extends Schema.Class<SessionPage>("SessionPage")({
  sessions: Schema.Array(SessionInfo),
  /** The number of all sessions. */
  total: Schema.Number,
  /** The `offset` of the next page; absent on the last one. */
  next: Schema.optional(Schema.Number)
}) {}

/** The error for a handle without a live session. */
export class UnknownSession extends Schema.TaggedError<UnknownSession>()(
  "UnknownSession",
  { handle: Schema.String },
  HttpApiSchema.annotations({ status: 404 })
) {
  override get message() {
    return `There is no session ${this.handle}: \`shadowcat sessions list\` shows the live ones`
  }
}

const handle = HttpApiSchema.param("handle", Schema.String)

const atMost = (most: number) => Schema.NumberFromString.pipe(Schema.int(), Schema.between(0, most))

const sessions = HttpApiGroup.make("sessions")
  .add(
    HttpApiEndpoint.get("list", "/sessions")
      .setUrlParams(
        Schema.Struct({
          /** The number of sessions to skip. Default: 0. */
          offset: Schema.optionalWith(atMost(Number.MAX_SAFE_INTEGER), { default: () => 0 }),
          /** The maximum number of sessions to return. Default: 100; at most 1000. */
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
      .annotate(OpenApi.Description, "Returns one live session.")
  )
  .add(
    HttpApiEndpoint.del("close")`/sessions/${handle}`
      .addSuccess(HttpApiSchema.NoContent)
      .addError(UnknownSession)
      .annotate(OpenApi.Description, "Closes a session. Responds when its resources are released.")
  )

const metrics = HttpApiGroup.make("metrics").add(
  HttpApiEndpoint.get("text", "/metrics")
    .addSuccess(
      Schema.String.pipe(
        HttpApiSchema.withEncoding({ kind: "Text", contentType: "text/plain; version=0.0.4; charset=utf-8" })
      )
    )
    .annotate(OpenApi.Description, "Returns all metrics in the Prometheus text format.")
)

/** The admin API. Its OpenAPI document is at `/openapi.json`. */
export class AdminApi extends HttpApi.make("shadowcat")
  .add(sessions)
  .add(metrics)
  .annotate(OpenApi.Title, "shadowcat")
  .annotate(OpenApi.Version, version) {}
