/**
 * The public API, one namespace a module. The admin API and its metrics are apart, as `shadowcat/Admin` and
 * `shadowcat/Prometheus`: they load what an application may never need.
 */
export * as EventTracker from "./EventTracker.js"
export * as ForwardProxy from "./ForwardProxy.js"
export * as HttpFront from "./HttpFront.js"
export * as Protocol from "./Protocol.js"
export * as ProxyError from "./ProxyError.js"
export * as Sessions from "./Sessions.js"
export * as SessionStore from "./SessionStore.js"
export * as StdioFront from "./StdioFront.js"
export * as Telemetry from "./Telemetry.js"
export * as Upstream from "./Upstream.js"
export * as UpstreamPool from "./UpstreamPool.js"
