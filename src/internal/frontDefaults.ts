/** The defaults that both fronts share. */
import * as Duration from "effect/Duration"

/** In bytes. */
export const MAX_BODY = 4 * 1024 * 1024

export const SHUTDOWN_TIMEOUT = Duration.seconds(10)
