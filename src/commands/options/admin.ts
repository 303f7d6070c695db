/** The options of the admin API, and of the commands that use it. */
import * as parsers from "../parsers.js"
import { httpOnly, optional, required, toggle } from "./rows.js"

export const admin = {
  port: optional({
    name: "admin-port",
    group: "Admin API",
    schema: parsers.port,
    placeholder: "port",
    description: "Port of the admin API on 127.0.0.1, for metrics and sessions; no admin API if not set",
    commands: httpOnly
  })
}

export const client = {
  admin: required({
    name: "admin",
    group: "Admin API",
    schema: parsers.url,
    placeholder: "url",
    description: "URL of the admin API of a proxy that was started with --admin-port",
    commands: ["sessions list", "sessions show", "sessions close"]
  }),
  json: toggle({
    name: "json",
    group: "Admin API",
    default: false,
    description: "Print JSON instead of a table",
    commands: ["sessions list", "sessions show"]
  })
}
