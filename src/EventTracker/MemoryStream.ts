/** The events of one stream, in this process's memory. */
import { type Bagged, OUTSIDE } from "../internal/bag.js"
import { withId } from "../internal/events.js"
import type { RequestId } from "../Protocol.js"
import type { StreamLog } from "./SessionLog.js"
import { type Account, type Ledger, type Logged, OVERHEAD, type Retirement } from "./Ledger.js"

/** What a stream's log needs of its session's. */
export interface Owner {
  readonly ledger: Ledger
  readonly account: Account
  /** The id of the event with this number in this stream. */
  readonly idOf: (stream: number, sequence: number) => string
  /** The stream holds nothing more, and nobody misses any of it. */
  readonly forget: (stream: MemoryStream) => void
}

export class MemoryStream implements StreamLog, Bagged {
  slot = OUTSIDE
  private readonly events: Array<Logged> = []
  /** How many events at the beginning of the array are no longer kept. */
  private gone = 0
  /** The sequence number of the newest event; the first has 1, for 0 stands before it. */
  private newest = 0
  private written = 0
  private isEnded = false
  private retirement: Retirement | undefined

  constructor(
    readonly number: number,
    readonly requests: ReadonlyArray<RequestId>,
    private readonly owner: Owner
  ) {}

  get last(): number {
    return this.newest
  }

  get hasEnded(): boolean {
    return this.isEnded
  }

  idAt(sequence: number): string {
    return this.owner.idOf(this.number, sequence)
  }

  append(frame: Buffer, upstreamId: string | undefined): Logged {
    const sequence = ++this.newest
    const { account, ledger } = this.owner
    const bytes = withId(this.idAt(sequence), frame)
    this.written += bytes.length + OVERHEAD
    const event: Logged = {
      stream: this,
      sequence,
      frame: bytes,
      offset: this.written,
      upstreamId,
      isKept: true
    }
    if (ledger.keep(event, account)) this.events.push(event)
    else {
      this.clear()
      event.isKept = false
    }
    return event
  }

  after(sequence: number): Logged | undefined {
    const first = this.events[this.gone]
    return first === undefined || sequence + 1 < first.sequence
      ? undefined
      : this.events[this.gone + sequence + 1 - first.sequence]
  }

  bytesAfter(sequence: number): number {
    const next = this.after(sequence)
    return next === undefined ? 0 : this.written - next.offset + next.frame.length + OVERHEAD
  }

  skip(): void {
    this.newest++
    this.clear()
  }

  get beforeOldest(): number {
    return (this.events[this.gone]?.sequence ?? this.newest + 1) - 1
  }

  misses(sequence: number): boolean {
    return sequence < this.newest && this.after(sequence) === undefined
  }

  end(): void {
    this.isEnded = true
  }

  delivered(): void {
    this.retirement ??= this.owner.ledger.retire(this, this.owner.account)
  }

  undelivered(): void {
    if (this.retirement === undefined) return
    this.owner.ledger.cancel(this.retirement, this.owner.account)
    this.retirement = undefined
  }

  forget(): void {
    this.undelivered()
    this.clear()
    this.owner.forget(this)
  }

  /** Lets go of the oldest event. */
  evict(): void {
    const oldest = this.events[this.gone]
    if (oldest === undefined) return
    this.owner.ledger.drop(oldest, this.owner.account)
    this.gone++
    if (this.gone === this.events.length || this.gone >= TRIMMED) {
      this.events.splice(0, this.gone)
      this.gone = 0
    }
    if (this.events.length === 0 && this.retirement !== undefined) this.forget()
  }

  clear(): void {
    for (const event of this.events) this.owner.ledger.drop(event, this.owner.account)
    this.events.length = 0
    this.gone = 0
  }
}

/** So many events that are gone are cut off at once. */
const TRIMMED = 64
