/** The upstream of a forward proxy: a URL, or the command after `--`. */
import type * as ValidationError from "@effect/cli/ValidationError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as UpstreamPool from "../UpstreamPool.js"
import { usageError } from "./flags.js"
import type { ForwardOptions } from "./options.js"

/** The part of the command line after `--`: a command and its arguments. */
export class ServerCommand extends Context.Reference<ServerCommand>()("shadowcat/ServerCommand", {
  defaultValue: (): ReadonlyArray<string> => []
}) {}

/** The upstream that a command line names. `recover` is true if its lost sessions are replaced. */
export interface Target {
  readonly upstream: UpstreamPool.UpstreamOptions
  readonly recover: boolean
}

/** Reads the upstream. Fails if the command line names none or two, or has an option of the other kind. */
export const targetOf = ({
  sessions: { recover, recoverStdio },
  upstream: { connectTimeout, headers, requestTimeout, url, ...stdio }
}: ForwardOptions): Effect.Effect<Target, ValidationError.ValidationError> =>
  Effect.gen(function* () {
    const [command, ...args] = yield* ServerCommand
    if (url !== undefined && command !== undefined) {
      return yield* usageError("Give --url or a command after --, not both")
    }
    if (url !== undefined) {
      if (Object.keys(stdio.env).length > 0) {
        return yield* usageError("--env is only for a command: the server at --url has its own environment")
      }
      return { upstream: { url, headers, requestTimeout, connectTimeout }, recover }
    }
    if (command === undefined) {
      return yield* usageError("There is no upstream: give --url, or a command after --")
    }
    if (Object.keys(headers).length > 0) {
      return yield* usageError("--header is only for a server at --url: a command takes no headers")
    }
    return { upstream: { ...stdio, command, args }, recover: recoverStdio }
  })
