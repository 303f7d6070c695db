/**
 * What every store and every tracker must hold to, as tests for `@effect/vitest`: an application runs them on its own.
 */
export { eventTrackerContract } from "./testing/eventTrackerContract.js"
export { sessionStoreContract } from "./testing/sessionStoreContract.js"
