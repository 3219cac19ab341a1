/**
 * ReadAhead: how much of a large content to fetch for its readers. Each stream of reads that go on where the last one
 * ended gets a window that doubles while it is used (as Linux's ondemand_readahead, mm/readahead.c, does), so that the
 * head of a file costs little and a film runs at the speed of the line. Reads at equal distances are foreseen as well;
 * all others get what they ask for and a little more.
 */

/** The first window of a stream, and what a random reader gets at least, bytes. */
export const FIRST_WINDOW = 128 * 1024;
/** How far ahead of a stream bytes are fetched at most. */
export const MAX_WINDOW = 16 * 1024 * 1024;
/** Streams of one content that are told apart. */
const STREAMS = 16;
/** Reads so far apart from where they were expected still belong to the stream: the kernel sends several at once. */
const SLACK = 1024 * 1024;
/** Equal distances in a row before the next ones are foreseen, and how many are fetched then. */
const STRIDES_SEEN = 2;
const STRIDES_AHEAD = 4;

interface Stream {
  /** The furthest byte read. */
  next: number;
  /** Everything up to here was asked for. */
  asked: number;
  window: number;
}
interface Range {
  readonly start: number;
  readonly end: number;
}
/** What a read that finds nothing here should fetch before it is answered, and what may come after it. */
export interface ReadPlan {
  readonly now: Range;
  readonly ahead: readonly Range[];
}

export class ReadAhead {
  readonly #size: number;
  /** The one used last is last. */
  readonly #streams: Stream[] = [];
  #lastStart = -1;
  #stride = 0;
  #strides = 0;
  #foreseen = -1;

  /** `size`: bytes of the content. */
  constructor(size: number) {
    this.#size = size;
  }

  /** A read of [offset, offset + length), which lies inside the content. */
  read(offset: number, length: number): ReadPlan {
    const end = Math.min(this.#size, offset + length);
    const stream = this.#find(offset, end);
    if (stream !== null) {
      this.#strides = 0;
      return this.#goOn(stream, offset, end);
    }
    const fresh = offset === 0 ? FIRST_WINDOW : Math.max(FIRST_WINDOW, length);
    const now = { start: offset, end: Math.min(this.#size, Math.max(end, offset + fresh)) };
    this.#streams.push({ next: end, asked: now.end, window: fresh });
    if (this.#streams.length > STREAMS) this.#streams.shift();
    return { now, ahead: this.#byStride(offset, length) };
  }

  #find(offset: number, end: number): Stream | null {
    const at = this.#streams.findLastIndex((stream) =>
      offset <= stream.next + SLACK && offset <= stream.asked && end > stream.next - SLACK
    );
    const [stream] = at < 0 ? [] : this.#streams.splice(at, 1);
    if (stream === undefined) return null;
    this.#streams.push(stream);
    return stream;
  }

  #goOn(stream: Stream, offset: number, end: number): ReadPlan {
    stream.next = Math.max(stream.next, end);
    const ahead: Range[] = [];
    const now = { start: offset, end };
    // More is asked for when half of what was is used up.
    if (stream.asked - stream.next <= stream.window / 2 && stream.asked < this.#size) {
      stream.window = Math.min(MAX_WINDOW, stream.window * 2);
      const until = Math.min(this.#size, Math.max(stream.next, stream.asked) + stream.window);
      ahead.push({ start: stream.asked, end: until });
      stream.asked = until;
    }
    return { now, ahead };
  }

  #byStride(offset: number, length: number): Range[] {
    const stride = offset - this.#lastStart;
    const known = this.#lastStart >= 0;
    this.#lastStart = offset;
    if (!known || stride === 0 || stride !== this.#stride) {
      this.#stride = known ? stride : 0;
      this.#strides = known ? 1 : 0;
      this.#foreseen = offset;
      return [];
    }
    this.#strides++;
    if (this.#strides <= STRIDES_SEEN) return [];
    const ranges: Range[] = [];
    for (let n = 1; n <= STRIDES_AHEAD; n++) {
      const start = offset + n * stride;
      if (start < 0 || start >= this.#size) break;
      if (stride > 0 ? start <= this.#foreseen : start >= this.#foreseen) continue;
      this.#foreseen = start;
      ranges.push({ start, end: Math.min(this.#size, start + length) });
    }
    return ranges;
  }
}
