/** The base class of sinks that wrap another sink. */
import type { Headers } from "../internal/headers.js"
import type { UpstreamError } from "../ProxyError.js"
import type { Flow, Sink, StreamPart } from "../Upstream.js"

/** Forwards every call to the next sink. A subclass overrides some methods, and may replace `next`. */
export class SinkDecorator implements Sink {
  constructor(protected next: Sink) {}

  head(status: number, headers: Headers, flow: Flow): void {
    this.next.head(status, headers, flow)
  }

  data(chunk: Uint8Array, part?: StreamPart): void {
    this.next.data(chunk, part)
  }

  end(): void {
    this.next.end()
  }

  error(error: UpstreamError): void {
    this.next.error(error)
  }
}
