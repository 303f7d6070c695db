/** The options of the front, to which clients connect. */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import * as HttpFront from "../../HttpFront.js"
import * as parsers from "../parsers.js"
import { httpOnly, forwards, repeated, withDefault } from "./rows.js"

export const front = {
  host: withDefault({
    name: "host",
    group: "Listening",
    schema: parsers.address,
    default: HttpFront.defaults.host,
    placeholder: "address",
    description: "Address to listen on",
    commands: httpOnly
  }),
  port: withDefault({
    name: "port",
    group: "Listening",
    schema: parsers.port,
    default: HttpFront.defaults.port,
    placeholder: "port",
    description: "Port to listen on; 0 for any free port",
    commands: httpOnly
  }),
  path: withDefault({
    name: "path",
    group: "Listening",
    schema: parsers.path,
    default: HttpFront.defaults.path,
    placeholder: "path",
    description: "Path of the MCP endpoint",
    commands: httpOnly
  }),
  allowHosts: repeated({
    name: "allow-host",
    group: "Security",
    schema: Schema.Array(parsers.host),
    default: HttpFront.defaults.allowHosts,
    separator: ",",
    placeholder: "host",
    description: "Additional value to accept in the Host header; * for all",
    commands: httpOnly
  }),
  allowOrigins: repeated({
    name: "allow-origin",
    group: "Security",
    schema: Schema.Array(parsers.origin),
    default: HttpFront.defaults.allowOrigins,
    separator: ",",
    placeholder: "origin",
    description: "Additional value to accept in the Origin header; * for all",
    commands: httpOnly
  }),
  maxConnections: withDefault({
    name: "max-connections",
    group: "Limits",
    schema: parsers.count,
    default: HttpFront.defaults.maxConnections,
    placeholder: "count",
    description: "Maximum number of client connections",
    commands: httpOnly
  }),
  maxBody: withDefault({
    name: "max-body",
    group: "Limits",
    schema: parsers.size,
    default: HttpFront.defaults.maxBody,
    placeholder: "size",
    description: "Maximum size of a request body, or of a client message on standard input",
    commands: forwards
  }),
  maxBuffered: withDefault({
    name: "max-buffered",
    group: "Limits",
    schema: parsers.size,
    default: HttpFront.defaults.maxBuffered,
    placeholder: "size",
    description:
      "Maximum size of all buffered request bodies; one eighth is reserved for bodies of at most 64 KiB",
    commands: httpOnly
  }),
  stallTimeout: withDefault({
    name: "stall-timeout",
    group: "Limits",
    schema: parsers.positiveDuration,
    default: Duration.decode(HttpFront.defaults.stallTimeout),
    placeholder: "duration",
    description: "Maximum pause of a client that sends a request or reads a response",
    commands: httpOnly
  }),
  shutdownTimeout: withDefault({
    name: "shutdown-timeout",
    group: "Listening",
    schema: parsers.duration,
    default: Duration.decode(HttpFront.defaults.shutdownTimeout),
    placeholder: "duration",
    description: "Maximum time that a shutdown waits for requests in flight",
    commands: forwards
  })
}
