/** One upstream, for the clients of a trusted machine: every client session has an upstream session of its own. */
import * as Duration from "effect/Duration"
import * as Layer from "effect/Layer"
import * as EventTracker from "./EventTracker.js"
import * as HttpFront from "./HttpFront.js"
import type { ListenError } from "./ProxyError.js"
import * as Sessions from "./Sessions.js"
import * as SessionStore from "./SessionStore.js"
import * as StdioFront from "./StdioFront.js"
import * as UpstreamPool from "./UpstreamPool.js"

/** The upstream, and what differs from the defaults, over stores of your own. */
export type HttpOptionsOver = UpstreamPool.Options &
  Partial<HttpFront.HttpFrontOptions & Sessions.SessionsOptions>

/** The upstream, and what differs from the defaults. */
export type HttpOptions = HttpOptionsOver & Partial<EventTracker.EventTrackerOptions>

/** The upstream, and what differs from the defaults. */
export type StdioOptions = UpstreamPool.Options &
  Partial<StdioFront.StdioFrontOptions> &
  Partial<Pick<Sessions.SessionsOptions, "maxExchanges" | "maxStateless" | "recover">>

/** What every forward proxy provides beside its front. */
export type Services =
  | EventTracker.EventTracker
  | Sessions.Sessions
  | UpstreamPool.UpstreamPool
  | SessionStore.SessionStore

/**
 * A forward proxy for clients of Streamable HTTP. To put a service of your own in the place of one of these, compose
 * the layers by hand, as this does.
 */
export const layerHttp = (options: HttpOptions): Layer.Layer<HttpFront.HttpFront | Services, ListenError> =>
  layerHttpOver(Layer.merge(EventTracker.layerMemory(options), SessionStore.layerMemory), options)

/** The same over stores of your own, such as those of `shadowcat/Sqlite`. */
export const layerHttpOver = <E>(
  stores: Layer.Layer<EventTracker.EventTracker | SessionStore.SessionStore, E>,
  options: HttpOptionsOver
): Layer.Layer<HttpFront.HttpFront | Services, ListenError | E> =>
  HttpFront.layer(options).pipe(
    Layer.provideMerge(Sessions.layer({ ...recovery(options), ...options })),
    Layer.provideMerge(UpstreamPool.layer(options)),
    Layer.provideMerge(stores)
  )

/** Unless told, sessions are recovered at a server: what a command held in memory is rarely made anew. */
const recovery = (upstream: UpstreamPool.Options) => ({ recover: "url" in upstream })

/** A forward proxy for the one client that has started this process. Its session lives as long as it does. */
export const layerStdio = (options: StdioOptions): Layer.Layer<StdioFront.StdioFront | Services> =>
  StdioFront.layer(options).pipe(
    Layer.provideMerge(
      Sessions.layer({
        ...recovery(options),
        ...options,
        multiSession: false,
        sessionTimeout: Duration.infinity
      })
    ),
    Layer.provideMerge(EventTracker.layerMemory()),
    Layer.provideMerge(UpstreamPool.layer(options)),
    Layer.provideMerge(SessionStore.layerMemory)
  )
