/**
 * The public API, with one namespace for each module. The admin API, its metrics and the SQLite stores are separate
 * entry points, `shadowcat/Admin`, `shadowcat/Prometheus` and `shadowcat/Sqlite`, so that applications load them only if
 * they use them.
 */
export * as EventTracker from "./EventTracker.js"
export * as ForwardProxy from "./ForwardProxy.js"
export * as HttpFront from "./HttpFront.js"
export * as Interceptor from "./Interceptor.js"
export * as Protocol from "./Protocol.js"
export * as ProxyError from "./ProxyError.js"
export * as Sessions from "./Sessions.js"
export * as SessionStore from "./SessionStore.js"
export * as StdioFront from "./StdioFront.js"
export * as Telemetry from "./Telemetry.js"
export * as Upstream from "./Upstream.js"
export * as UpstreamPool from "./UpstreamPool.js"
