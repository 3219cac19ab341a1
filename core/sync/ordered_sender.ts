/**
 * OrderedSender: applies requests at a server in the order of their numbers, several under way at once, each exactly once
 * however often the connection breaks or the server restarts: a request is kept until it is on the server's disk.
 */
import { FsError, toFsError } from "../fs/error.ts";
import type { Clock } from "../platform/clock.ts";
import type { Applied, ApplyCall, ServerLink } from "../remote/protocol.ts";

export type Request = Pick<ApplyCall, "ops" | "manifests" | "chunks">;

/** Requests sent before the first is answered. */
const WINDOW = 16;
/** Answered requests that are not on the server's disk yet; more wait. Each holds at most 512 KiB of chunks. */
const MAX_KEPT = 128;
const PAUSE_MS = 200;

interface Waiting {
  readonly request: number;
  readonly call: Request;
  readonly done: PromiseWithResolvers<Applied>;
  sent: Promise<Applied> | null;
  /** It was answered once, and taken back by a crash of the server. */
  again: boolean;
}

export class OrderedSender {
  readonly #link: ServerLink;
  readonly #clock: Clock;
  /** How long the server may be away before the work is given up, milliseconds. */
  readonly #patienceMs: number;
  readonly #queue: Waiting[] = [];
  /** Answered, not durable, in order. */
  readonly #kept: Waiting[] = [];
  /** Up to here all is on the server's disk. It may say so before it answers. */
  #durable = 0;
  #next = 1;
  /** The highest request the server has seen to its end, as far as we know. */
  #seen = 0;
  #running: Promise<void> | null = null;
  #wake: (() => void) | null = null;
  /** What was answered and could not be done once more after the server had lost it. */
  #lost: FsError | null = null;

  constructor(link: ServerLink, clock: Clock, patienceMs: number) {
    this.#link = link;
    this.#clock = clock;
    this.#patienceMs = patienceMs;
    link.onPush("durable", ({ request }) => {
      this.#durable = Math.max(this.#durable, request);
      while ((this.#kept[0]?.request ?? Infinity) <= this.#durable) this.#kept.shift();
      this.#wake?.();
    });
    link.onUp(({ lastRequest }) => this.#reconnected(lastRequest));
  }

  /** A server that crashed may have forgotten what it had answered: that is sent again, before everything else. */
  #reconnected(lastRequest: number): void {
    const at = this.#kept.findIndex(({ request }) => request > lastRequest);
    if (at >= 0) {
      const again = this.#kept.splice(at);
      for (const waiting of again) waiting.again = true;
      this.#queue.unshift(...again);
    }
    this.#seen = Math.min(this.#seen, lastRequest);
    for (const waiting of this.#queue) waiting.sent = null;
    this.#kick();
  }

  /**
   * Resolves when it is visible. Rejects with what the server says of this request; others are not concerned. `settle`
   * says when it is durable.
   */
  async apply(call: Request): Promise<Applied> {
    while (this.#kept.length >= MAX_KEPT) await this.#woken();
    const done = Promise.withResolvers<Applied>();
    this.#queue.push({ request: this.#next++, call, done, sent: null, again: false });
    this.#kick();
    return await done.promise;
  }

  /** Resolves when all that was applied is on the server's disk. Throws unavailable when some of it was lost for good. */
  async settle(): Promise<void> {
    const until = this.#clock.monotonic() + this.#patienceMs;
    while (this.#kept.length > 0 || this.#queue.length > 0) {
      if (this.#clock.monotonic() > until) {
        throw new FsError("unavailable", "the server does not say that all is on its disk; run migrate again");
      }
      await this.#woken();
    }
    if (this.#lost !== null) throw this.#lost;
  }

  /** Something moved, or some time passed. */
  #woken(): Promise<void> {
    return new Promise((resolve) => {
      const before = this.#wake;
      const stop = this.#clock.after(PAUSE_MS, () => this.#wake?.());
      this.#wake = () => {
        this.#wake = null;
        stop();
        before?.();
        resolve();
      };
    });
  }

  #kick(): void {
    if (this.#running === null) {
      this.#running = this.#run().finally(() => {
        this.#running = null;
        if (this.#queue.length > 0) this.#kick();
      });
    } else this.#fill();
  }

  #fill(): void {
    for (const [i, waiting] of this.#queue.slice(0, WINDOW).entries()) {
      if (waiting.sent !== null) continue;
      const previous = i === 0 ? this.#seen : this.#queue[i - 1]?.request ?? this.#seen;
      const call = { ...waiting.call, request: waiting.request, previous, group: false, urgent: true };
      waiting.sent = this.#link.call("apply", call, { timeoutMs: 60_000 });
      waiting.sent.catch(() => {});
    }
  }

  async #run(): Promise<void> {
    let awaySince: number | null = null;
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      this.#fill();
      const { sent } = first;
      if (sent === null) continue;
      try {
        const applied = await sent;
        // A reconnection meanwhile has put others before it.
        if (this.#queue[0] !== first || first.sent !== sent) continue;
        this.#seen = first.request;
        this.#queue.shift();
        if (first.request > this.#durable) this.#kept.push(first);
        first.done.resolve(applied);
      } catch (error) {
        if (this.#queue[0] !== first || first.sent !== sent) continue;
        const failure = toFsError(error);
        if (failure.code === "unavailable" || failure.code === "timeout") {
          const now = this.#clock.monotonic();
          awaySince ??= now;
          if (now - awaySince < this.#patienceMs) {
            // All that follow were refused too, or will be: from here on once more.
            for (const waiting of this.#queue) waiting.sent = null;
            await this.#clock.sleep(PAUSE_MS);
            continue;
          }
        }
        this.#queue.shift();
        first.done.reject(new FsError(failure.code, failure.message, failure.details));
        if (first.again) {
          this.#lost = new FsError(
            "unavailable",
            `the server crashed and lost what it had taken in (${failure.message}); run migrate again`,
          );
        }
      }
      awaySince = null;
      this.#wake?.();
    }
  }
}
