/** The options of the upstream, a URL or a command. */
import * as Duration from "effect/Duration"
import * as Http from "../../Upstream/Http.js"
import * as Stdio from "../../Upstream/Stdio.js"
import * as parsers from "../parsers.js"
import { httpOnly, forwards, optional, repeated, toggle, withDefault } from "./rows.js"

export const upstream = {
  url: optional({
    name: "url",
    group: "Upstream",
    schema: parsers.url,
    placeholder: "url",
    description: "URL of the upstream MCP endpoint; to use a command instead, put it last, after --",
    commands: forwards
  }),
  headers: repeated({
    name: "header",
    group: "Upstream",
    schema: parsers.recordOf(parsers.header),
    default: Http.defaults.headers,
    separator: "\n",
    placeholder: "header",
    description: "Header to add to every upstream request, 'Name: value'",
    commands: forwards
  }),
  requestTimeout: withDefault({
    name: "request-timeout",
    group: "Upstream",
    schema: parsers.duration,
    default: Duration.decode(Http.defaults.requestTimeout),
    placeholder: "duration",
    description: "Maximum time until the upstream starts its response; 0 for no limit",
    commands: forwards
  }),
  connectTimeout: withDefault({
    name: "connect-timeout",
    group: "Upstream",
    schema: parsers.positiveDuration,
    default: Duration.decode(Http.defaults.connectTimeout),
    placeholder: "duration",
    description: "Maximum time to connect to the upstream",
    commands: forwards
  }),
  env: repeated({
    name: "env",
    group: "Upstream",
    schema: parsers.recordOf(parsers.variable),
    default: Stdio.defaults.env,
    separator: "\n",
    placeholder: "variable",
    description: "Environment variable for the command, NAME=value",
    commands: forwards
  }),
  inheritEnv: toggle({
    name: "inherit-env",
    group: "Upstream",
    default: Stdio.defaults.inheritEnv,
    description: "Pass all environment variables of the proxy to the command",
    commands: forwards
  }),
  cwd: optional({
    name: "cwd",
    group: "Upstream",
    schema: parsers.folder,
    placeholder: "folder",
    description: "Working directory of the command; the proxy's own if not set",
    commands: forwards
  }),
  startTimeout: withDefault({
    name: "start-timeout",
    group: "Upstream",
    schema: parsers.positiveDuration,
    default: Duration.decode(Stdio.defaults.startTimeout),
    placeholder: "duration",
    description: "Maximum time until the command responds to `initialize`",
    commands: forwards
  }),
  killTimeout: withDefault({
    name: "kill-timeout",
    group: "Upstream",
    schema: parsers.duration,
    default: Duration.decode(Stdio.defaults.killTimeout),
    placeholder: "duration",
    description: "Maximum time until the command exits after its input ends, and again after SIGTERM",
    commands: forwards
  }),
  maxMessage: withDefault({
    name: "max-message",
    group: "Limits",
    schema: parsers.size,
    default: Stdio.defaults.maxMessage,
    placeholder: "size",
    description:
      "Maximum size of a message from the command, and of messages that wait for it to read; a larger message ends its session",
    commands: forwards
  }),
  stderr: withDefault({
    name: "stderr",
    group: "Upstream",
    schema: parsers.oneOf({ inherit: "inherit", log: "log", ignore: "ignore" } as const),
    default: Stdio.defaults.stderr,
    placeholder: "mode",
    description: "Handling of the command's standard error: inherit, log (at level debug) or ignore",
    commands: forwards
  }),
  maxChildren: withDefault({
    name: "max-children",
    group: "Limits",
    schema: parsers.count,
    default: Stdio.defaults.maxChildren,
    placeholder: "count",
    description: "Maximum number of child processes, if the upstream is a command",
    commands: httpOnly
  })
}
