/** What client sessions lease: the configured upstream and its connections. */
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { LimitReached, UpstreamError } from "./ProxyError.js"
import type { Lease, Upstream } from "./Upstream.js"
import * as Http from "./Upstream/Http.js"
import * as Stdio from "./Upstream/Stdio.js"

export class UpstreamPool extends Context.Tag("shadowcat/UpstreamPool")<
  UpstreamPool,
  {
    /** The upstream's address or command, without anything secret. */
    readonly name: string
    /** Whether a session there can outlive this process: one of a server can, one of a child process ends with it. */
    readonly keepsSessions: boolean
    /**
     * Leases the upstream for one client session, until the scope closes. The release ends the session at the
     * upstream within a bounded time, unless it is suspended, and never fails.
     */
    readonly lease: Effect.Effect<Lease, UpstreamError | LimitReached, Scope.Scope>
    /** Takes the requests that belong to no session, those of 2026-07-28 and later. */
    readonly stateless: Upstream
    /** The child processes there are, and how many there may be; absent for what is no command. */
    readonly children?: { readonly size: () => number; readonly bound: number }
  }
>() {}

/** The options of `layerHttp`: the URL, and of the others what differs from the defaults. */
export type HttpOptions = Pick<Http.HttpUpstreamOptions, "url"> & Partial<Http.HttpUpstreamOptions>

/** One upstream over Streamable HTTP, with keep-alive connections that all sessions share. */
export const layerHttp = (options: HttpOptions): Layer.Layer<UpstreamPool> =>
  Layer.scoped(
    UpstreamPool,
    Effect.map(Http.make({ ...Http.defaults, ...options }), (upstream) =>
      UpstreamPool.of({
        name: upstream.name,
        keepsSessions: true,
        lease: upstream.lease(),
        stateless: upstream
      })
    )
  )

/** The same, with its options read from a `Config`. */
export const layerHttpConfig = (
  options: Config.Config.Wrap<HttpOptions>
): Layer.Layer<UpstreamPool, ConfigError> => Layer.unwrapEffect(Effect.map(Config.unwrap(options), layerHttp))

/** The options of `layerStdio`: the command, and of the others what differs from the defaults. */
export type StdioOptions = Pick<Stdio.StdioUpstreamOptions, "command"> & Partial<Stdio.StdioUpstreamOptions>

/** A command that speaks MCP on its standard input and output; each session has a child process of its own. */
export const layerStdio = (options: StdioOptions): Layer.Layer<UpstreamPool> =>
  Layer.scoped(
    UpstreamPool,
    Effect.map(Stdio.make({ ...Stdio.defaults, ...options }), (upstream) =>
      UpstreamPool.of({
        name: upstream.name,
        keepsSessions: false,
        lease: upstream.lease(),
        stateless: upstream,
        children: { size: () => upstream.children, bound: upstream.options.maxChildren }
      })
    )
  )

/** The same, with its options read from a `Config`. */
export const layerStdioConfig = (
  options: Config.Config.Wrap<StdioOptions>
): Layer.Layer<UpstreamPool, ConfigError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layerStdio))

/** What an upstream may be: a URL or a command. */
export type Options = HttpOptions | StdioOptions

/** The upstream that the options name. */
export const layer = (options: Options): Layer.Layer<UpstreamPool> =>
  "url" in options ? layerHttp(options) : layerStdio(options)
