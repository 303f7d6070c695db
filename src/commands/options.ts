/**
 * The table of all options, nested like the options of `ForwardProxy`. Each option is declared once: its flag, its
 * environment variable, `--help` and the tables in README come from its row. After a change, run `scripts/options`.
 */
import * as Schema from "effect/Schema"
import { admin, client } from "./options/admin.js"
import { events } from "./options/events.js"
import { front } from "./options/front.js"
import { logging } from "./options/logging.js"
import { sessions } from "./options/sessions.js"
import { store } from "./options/store.js"
import { upstream } from "./options/upstream.js"

/** The options of the forward proxies. */
export const forwardTable = { upstream, front, sessions, events, store, admin, logging }

/** Decodes the options of the forward proxies. */
export const ForwardOptions = Schema.Struct({
  upstream: Schema.Struct(upstream),
  front: Schema.Struct(front),
  sessions: Schema.Struct(sessions),
  events: Schema.Struct(events),
  store: Schema.Struct(store),
  admin: Schema.Struct(admin),
  logging: Schema.Struct(logging)
})

export type ForwardOptions = typeof ForwardOptions.Type

/** The options of `shadowcat sessions`. */
export const clientTable = { client }

/** Decodes the options of `shadowcat sessions`. */
export const ClientOptions = Schema.Struct({ client: Schema.Struct(client) })
