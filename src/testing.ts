/** Contract tests for implementations of `SessionStore`, `EventTracker` and `EventStorage`, with `@effect/vitest`. */
export { eventStorageContract } from "./testing/eventStorageContract.js"
export { eventTrackerContract } from "./testing/eventTrackerContract.js"
export { sessionStoreContract } from "./testing/sessionStoreContract.js"
