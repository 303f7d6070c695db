/** The response to one client, which each front implements: over HTTP or stdio. */
import type { MutableHeaders } from "./internal/headers.js"
import type { ProxyError } from "./ProxyError.js"
import type { Flow } from "./Upstream.js"

export interface ClientResponse {
  readonly head: (status: number, headers: MutableHeaders, flow: Flow) => void
  readonly data: (chunk: Uint8Array) => void
  /** Ends the response. Calls `flushed` once everything is written to the socket: never if the client does not read. */
  readonly end: (flushed?: () => void) => void
  /** Fails the response: before its head with a JSON-RPC error, after it by cutting the connection. */
  readonly error: (error: ProxyError) => void
  /** Notes that the request is no longer held in memory. Called once, even if the client has disconnected. */
  readonly settled: () => void
}

/** Notes that the client has closed its connection. */
export type Disconnect = () => void

/** Fails a response before its request is sent. */
export const refuse = (response: ClientResponse, error: ProxyError): Disconnect => {
  response.error(error)
  response.settled()
  return () => {}
}

/** A response without a client. */
export const noClient: ClientResponse = {
  head: () => {},
  data: () => {},
  end: () => {},
  error: () => {},
  settled: () => {}
}

/** Replaces the response of a disconnected client. Writes nothing, and forwards only `settled`. */
export const disconnected = (response: ClientResponse): ClientResponse => ({
  ...noClient,
  settled: () => response.settled()
})
