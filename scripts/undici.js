// The bundle uses this module in place of undici's entry, which also loads fetch, WebSocket and caches. Without these
// the command line listens a quarter sooner. The names are those of the public entry.
export { default as buildConnector } from "../node_modules/undici/lib/core/connect.js"
export { default as Client } from "../node_modules/undici/lib/dispatcher/client.js"
export { default as Pool } from "../node_modules/undici/lib/dispatcher/pool.js"
// @effect/platform-node exports the whole entry for a client that the command line does not use.
export default {}
