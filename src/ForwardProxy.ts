/** One upstream, for the clients of a trusted machine: every client session has an upstream session of its own. */
import * as Layer from "effect/Layer"
import * as HttpFront from "./HttpFront.js"
import type { ListenError } from "./ProxyError.js"
import * as Sessions from "./Sessions.js"
import * as SessionStore from "./SessionStore.js"
import * as UpstreamPool from "./UpstreamPool.js"

/** All options, of which only the upstream's `url` has no default. */
export type Options = UpstreamPool.HttpOptions & Partial<HttpFront.Options> & Partial<Sessions.Options>

/** What a forward proxy over HTTP provides. */
export type Services =
  | HttpFront.HttpFront
  | Sessions.Sessions
  | UpstreamPool.UpstreamPool
  | SessionStore.SessionStore

/**
 * A forward proxy from Streamable HTTP to Streamable HTTP. To put a service of your own in the place of one of
 * these, compose the layers by hand, as this does.
 */
export const layerHttp = (options: Options): Layer.Layer<Services, ListenError> =>
  HttpFront.layer(options).pipe(
    Layer.provideMerge(Sessions.layer(options)),
    Layer.provideMerge(UpstreamPool.layerHttp(options)),
    Layer.provideMerge(SessionStore.layerMemory)
  )
