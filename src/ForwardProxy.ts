/** A proxy of one upstream for the clients of a trusted machine. Every client session has its own upstream session. */
import * as Duration from "effect/Duration"
import * as Layer from "effect/Layer"
import * as EventTracker from "./EventTracker.js"
import * as HttpFront from "./HttpFront.js"
import type { ListenError } from "./ProxyError.js"
import * as Sessions from "./Sessions.js"
import * as SessionStore from "./SessionStore.js"
import * as StdioFront from "./StdioFront.js"
import * as UpstreamPool from "./UpstreamPool.js"

/** The options of `layerHttpOver`, by service. Omitted options have the defaults of their service. */
export interface HttpProxyOptionsOver {
  /** The upstream, a URL or a command. */
  readonly upstream: UpstreamPool.UpstreamOptions
  readonly front?: Partial<HttpFront.HttpFrontOptions>
  /** The default of `recover` is in `recoverByDefault`. */
  readonly sessions?: Partial<Sessions.SessionsOptions>
}

/** The options of `layerHttp`, by service. Omitted options have the defaults of their service. */
export interface HttpProxyOptions extends HttpProxyOptionsOver {
  readonly events?: Partial<EventTracker.EventTrackerOptions>
}

/** The options of `layerStdio`, by service. Omitted options have the defaults of their service. */
export interface StdioProxyOptions {
  /** The upstream, a URL or a command. */
  readonly upstream: UpstreamPool.UpstreamOptions
  readonly front?: Partial<StdioFront.StdioFrontOptions>
  /** The default of `recover` is in `recoverByDefault`. */
  readonly sessions?: Partial<Pick<Sessions.SessionsOptions, "maxExchanges" | "maxStateless" | "recover">>
}

/** The services of every forward proxy, except its front. */
export type ForwardProxyServices =
  | EventTracker.EventTracker
  | Sessions.Sessions
  | UpstreamPool.UpstreamPool
  | SessionStore.SessionStore

/**
 * The default of `recover`, by kind of upstream. It is false for a command, because a new child process rarely has the
 * state of the old one.
 */
export const recoverByDefault = { url: Sessions.defaults.recover, command: false }

const recovers = (upstream: UpstreamPool.UpstreamOptions): boolean =>
  "url" in upstream ? recoverByDefault.url : recoverByDefault.command

/** Provides a forward proxy over Streamable HTTP. To replace one of its services, compose the layers directly. */
export const layerHttp = ({
  events,
  ...options
}: HttpProxyOptions): Layer.Layer<HttpFront.HttpFront | ForwardProxyServices, ListenError> =>
  layerHttpOver(Layer.merge(EventTracker.layerMemory(events), SessionStore.layerMemory), options)

/** Provides a forward proxy over Streamable HTTP with other stores, such as those of `shadowcat/Sqlite`. */
export const layerHttpOver = <E>(
  stores: Layer.Layer<EventTracker.EventTracker | SessionStore.SessionStore, E>,
  { front, sessions, upstream }: HttpProxyOptionsOver
): Layer.Layer<HttpFront.HttpFront | ForwardProxyServices, ListenError | E> =>
  HttpFront.layer(front).pipe(
    Layer.provideMerge(Sessions.layer({ recover: recovers(upstream), ...sessions })),
    Layer.provideMerge(UpstreamPool.layer(upstream)),
    Layer.provideMerge(stores)
  )

/** Provides a forward proxy for the one client that started this process. The session lasts as long as the process. */
export const layerStdio = ({
  front,
  sessions,
  upstream
}: StdioProxyOptions): Layer.Layer<StdioFront.StdioFront | ForwardProxyServices> =>
  StdioFront.layer(front).pipe(
    Layer.provideMerge(
      Sessions.layer({
        recover: recovers(upstream),
        ...sessions,
        multiSession: false,
        sessionTimeout: Duration.infinity
      })
    ),
    Layer.provideMerge(EventTracker.layerMemory()),
    Layer.provideMerge(UpstreamPool.layer(upstream)),
    Layer.provideMerge(SessionStore.layerMemory)
  )
