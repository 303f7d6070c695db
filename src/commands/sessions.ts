/** `shadowcat sessions`: what a running proxy tells of its sessions, and how one of them is closed. */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Effect from "effect/Effect"
import { required } from "./options.js"
import * as values from "./parsers.js"

const admin = required("admin", {
  description: "The admin API of a proxy that was started with --admin-port",
  value: "url",
  read: values.url
})

const json = Options.boolean("json").pipe(Options.withDescription("Print JSON instead of a table"))

const handle = Args.text({ name: "handle" }).pipe(Args.withDescription("The session, as the list names it"))

/** The client of the API takes longer to load than everything else. */
const client = Effect.promise(() => import("./sessionsClient.js"))

export const list = Command.make("list", { admin, json }, ({ admin, json }) =>
  Effect.flatMap(client, ({ list }) => list(admin, json))
).pipe(Command.withDescription("List the live sessions, oldest first"))

export const show = Command.make("show", { admin, json, handle }, ({ admin, handle, json }) =>
  Effect.flatMap(client, ({ show }) => show(admin, handle, json))
).pipe(Command.withDescription("Tell about one session"))

export const close = Command.make("close", { admin, handle }, ({ admin, handle }) =>
  Effect.flatMap(client, ({ close }) => close(admin, handle))
).pipe(Command.withDescription("Close a session, and wait until all that it held is released"))

export const sessions = Command.make("sessions").pipe(
  Command.withDescription("Look at the sessions of a running proxy"),
  Command.withSubcommands([list, show, close])
)
