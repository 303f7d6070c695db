/** What comes back to a client, whatever it speaks. */
import type { MutableHeaders } from "./internal/headers.js"
import type { ProxyError } from "./ProxyError.js"
import type { Flow, Sink } from "./Upstream.js"

/** What an answer is written to. Besides what an upstream may say, it can be told any error of the proxy. */
export interface ClientResponse extends Omit<Sink, "head" | "end" | "error"> {
  readonly head: (status: number, headers: MutableHeaders, flow: Flow) => void
  /** Nothing more is to come; `flushed` is told when all of it has gone out, which a client may never let happen. */
  readonly end: (flushed?: () => void) => void
  /** Ends the answer. Before the head it becomes a JSON-RPC error; after it, the answer is cut off. */
  readonly error: (error: ProxyError) => void
  /** Nothing of its request is held any more. Also when the client has gone; what is kept of a stream may still come. */
  readonly settled: () => void
}

/** An answer that nobody waits for. */
export const discard: ClientResponse = {
  head: () => {},
  data: () => {},
  end: () => {},
  error: () => {},
  settled: () => {}
}

/** Tells an answer, of which nothing else will come, what is wrong. */
export const refuse = (answer: ClientResponse, error: ProxyError): Disconnect => {
  answer.error(error)
  answer.settled()
  return () => {}
}

/** Tells an exchange that its client has gone: its connection is closed. */
export type Disconnect = () => void
