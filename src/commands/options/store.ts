/** The options of the storage of sessions and events. */
import * as Sqlite from "../../Sqlite/options.js"
import * as parsers from "../parsers.js"
import { httpOnly, withDefault } from "./rows.js"

export const store = {
  location: withDefault({
    name: "store",
    group: "Storage",
    schema: parsers.storeLocation,
    default: { type: "memory" },
    placeholder: "store",
    description:
      "Storage of sessions: memory, or sqlite:PATH for sessions that survive a restart of the proxy",
    commands: httpOnly
  }),
  sync: withDefault({
    name: "store-sync",
    group: "Storage",
    schema: parsers.oneOf({ normal: "normal", full: "full" } as const),
    default: Sqlite.defaults.sync,
    placeholder: "level",
    description: "Durability of stored sessions: normal survives SIGKILL, full also survives a power failure",
    commands: httpOnly
  })
}
