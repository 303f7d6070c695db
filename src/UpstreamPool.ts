/** The configured upstreams, by name. */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { LimitReached, UpstreamError } from "./ProxyError.js"
import type { Lease, LeaseOptions, Upstream } from "./Upstream.js"
import * as Http from "./Upstream/Http.js"
import * as Stdio from "./Upstream/Stdio.js"

/** One upstream, from which client sessions take leases. */
export interface PooledUpstream {
  /** The address or command, without secrets. Session records name the upstream by it. */
  readonly name: string
  /** True if upstream sessions can outlive this process: those of a server can, those of child processes cannot. */
  readonly keepsSessions: boolean
  /**
   * Leases the upstream for one client session, until the scope closes. The release ends the upstream session, unless
   * the exit of the scope is `suspended` or `lost`. It has a time limit and never fails.
   */
  readonly lease: (options: LeaseOptions) => Effect.Effect<Lease, UpstreamError | LimitReached, Scope.Scope>
  /** The upstream for requests without a session, of 2026-07-28 and later. */
  readonly stateless: Upstream
  /** The number of child processes and its limit; absent for a server. */
  readonly children?: ChildCount
}

export interface ChildCount {
  readonly size: () => number
  readonly bound: number
}

export class UpstreamPool extends Context.Tag("shadowcat/UpstreamPool")<
  UpstreamPool,
  {
    /** All upstreams, in the order of the configuration. */
    readonly upstreams: NonEmptyReadonlyArray<PooledUpstream>
    /** Returns the upstream with this name; `undefined` if it is not configured. */
    readonly get: (name: string) => PooledUpstream | undefined
    /** The child processes of all upstreams; absent if none is a command. */
    readonly children: ChildCount | undefined
  }
>() {}

/** Makes a pool of these upstreams. Two upstreams with one name are a defect. */
export const make = (upstreams: NonEmptyReadonlyArray<PooledUpstream>): UpstreamPool["Type"] => {
  const byName = new Map(upstreams.map((upstream) => [upstream.name, upstream]))
  if (byName.size < upstreams.length) throw new Error("two upstreams have the same name")
  return UpstreamPool.of({ upstreams, get: (name) => byName.get(name), children: sumOf(upstreams) })
}

const sumOf = (upstreams: ReadonlyArray<PooledUpstream>): ChildCount | undefined => {
  const counts = upstreams.flatMap(({ children }) => (children === undefined ? [] : [children]))
  if (counts.length === 0) return undefined
  const sum = (count: (one: ChildCount) => number) => counts.reduce((total, one) => total + count(one), 0)
  return { size: () => sum(({ size }) => size()), bound: sum(({ bound }) => bound) }
}

/** The options of `layerHttp`: the URL, and every option that differs from its default. */
export type HttpPoolOptions = Pick<Http.HttpUpstreamOptions, "url"> & Partial<Http.HttpUpstreamOptions>

/** Provides one upstream over Streamable HTTP. Its sessions share its keep-alive connections. */
export const layerHttp = (options: HttpPoolOptions): Layer.Layer<UpstreamPool> =>
  Layer.scoped(
    UpstreamPool,
    Effect.map(Http.make({ ...Http.defaults, ...options }), (upstream) =>
      make([
        {
          name: upstream.name,
          keepsSessions: true,
          lease: (options) => upstream.lease(options),
          stateless: upstream
        }
      ])
    )
  )

/** Provides `layerHttp` with options from a `Config`. */
export const layerHttpConfig = (
  options: Config.Config.Wrap<HttpPoolOptions>
): Layer.Layer<UpstreamPool, ConfigError> => Layer.unwrapEffect(Effect.map(Config.unwrap(options), layerHttp))

/** The options of `layerStdio`: the command, and every option that differs from its default. */
export type StdioPoolOptions = Pick<Stdio.StdioUpstreamOptions, "command"> &
  Partial<Stdio.StdioUpstreamOptions>

/** Provides a command that speaks MCP on its standard input and output. Each session has its own child process. */
export const layerStdio = (options: StdioPoolOptions): Layer.Layer<UpstreamPool> =>
  Layer.scoped(
    UpstreamPool,
    Effect.map(Stdio.make({ ...Stdio.defaults, ...options }), (upstream) =>
      make([
        {
          name: upstream.name,
          keepsSessions: false,
          lease: (options) => upstream.lease(options),
          stateless: upstream,
          children: { size: () => upstream.children, bound: upstream.options.maxChildren }
        }
      ])
    )
  )

/** Provides `layerStdio` with options from a `Config`. */
export const layerStdioConfig = (
  options: Config.Config.Wrap<StdioPoolOptions>
): Layer.Layer<UpstreamPool, ConfigError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layerStdio))

/** The options of an upstream, which is a URL or a command. */
export type UpstreamOptions = HttpPoolOptions | StdioPoolOptions

/** Provides the upstream that the options name. */
export const layer = (options: UpstreamOptions): Layer.Layer<UpstreamPool> =>
  "url" in options ? layerHttp(options) : layerStdio(options)
