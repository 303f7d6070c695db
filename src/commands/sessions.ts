/** `shadowcat sessions`: lists, shows and closes the sessions of a running proxy. */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import { flags } from "./flags.js"
import { ClientOptions, clientTable } from "./options.js"
import type { CommandName } from "./options/rows.js"

const optionsOf = (command: CommandName) => flags(command, clientTable, ClientOptions)

const handle = Args.text({ name: "handle" }).pipe(
  Args.withDescription("Handle of the session, from the list")
)

/** The client of the admin API. It is loaded on demand, because it takes longer to load than all other modules. */
const client = Effect.promise(() => import("./sessionsClient.js"))

const list = Command.make("list", { options: optionsOf("sessions list") }, ({ options }) =>
  Effect.flatMap(client, ({ list }) => list(options.client.admin, options.client.json))
).pipe(Command.withDescription("List the live sessions, oldest first"))

const show = Command.make("show", { options: optionsOf("sessions show"), handle }, ({ handle, options }) =>
  Effect.flatMap(client, ({ show }) => show(options.client.admin, handle, options.client.json))
).pipe(Command.withDescription("Show one session"))

const close = Command.make("close", { options: optionsOf("sessions close"), handle }, ({ handle, options }) =>
  Effect.flatMap(client, ({ close }) => close(options.client.admin, handle))
).pipe(Command.withDescription("Close a session and wait until it has released everything"))

export const sessions = Command.make("sessions").pipe(
  Command.withDescription("Inspect and close the sessions of a running proxy"),
  Command.withSubcommands([list, show, close])
)
