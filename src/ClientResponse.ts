/** The seam between the sessions and the fronts: the response to one client, over HTTP or stdio. */
import type { MutableHeaders } from "./internal/headers.js"
import type { ProxyError } from "./ProxyError.js"
import type { Flow } from "./Upstream.js"

export interface ClientResponse {
  readonly head: (status: number, headers: MutableHeaders, flow: Flow) => void
  readonly data: (chunk: Uint8Array) => void
  /** Ends the response. Calls `flushed` once everything is written to the socket; a client that does not read prevents that. */
  readonly end: (flushed?: () => void) => void
  /** Fails the response: before its head with a JSON-RPC error, after it by cutting the connection. */
  readonly error: (error: ProxyError) => void
  /** The request is no longer held in memory. Called once, also if the client has disconnected. */
  readonly settled: () => void
}

/** Notes that the client has closed its connection. */
export type Disconnect = () => void

/** Fails a response at once. */
export const refuse = (response: ClientResponse, error: ProxyError): Disconnect => {
  response.error(error)
  response.settled()
  return () => {}
}

/** A response that nobody waits for. */
export const noClient: ClientResponse = {
  head: () => {},
  data: () => {},
  end: () => {},
  error: () => {},
  settled: () => {}
}

/** The rest of a response whose client has disconnected: nothing is written any more. */
export const disconnected = (response: ClientResponse): ClientResponse => ({
  ...noClient,
  settled: () => response.settled()
})
