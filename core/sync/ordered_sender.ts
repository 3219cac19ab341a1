/**
 * OrderedSender: applies requests at a server in the order of their numbers, several under way at once, each exactly once
 * however often the connection breaks.
 */
import { FsError, toFsError } from "../fs/error.ts";
import type { Clock } from "../platform/clock.ts";
import type { Applied, ApplyCall, ServerLink } from "../remote/protocol.ts";

/** Requests sent before the first is answered. */
const WINDOW = 16;
const PAUSE_MS = 200;

interface Waiting {
  readonly request: number;
  readonly call: Omit<ApplyCall, "request" | "previous" | "urgent">;
  readonly done: PromiseWithResolvers<Applied>;
  sent: Promise<Applied> | null;
}

export class OrderedSender {
  readonly #link: ServerLink;
  readonly #clock: Clock;
  /** How long the server may be away before the work is given up, milliseconds. */
  readonly #patienceMs: number;
  readonly #queue: Waiting[] = [];
  #next = 1;
  /** The highest request the server has seen to its end, as far as we know. */
  #seen = 0;
  #running = false;

  constructor(link: ServerLink, clock: Clock, patienceMs: number) {
    this.#link = link;
    this.#clock = clock;
    this.#patienceMs = patienceMs;
  }

  /** Rejects with what the server says of this request; others are not concerned. */
  apply(call: Omit<ApplyCall, "request" | "previous" | "urgent">): Promise<Applied> {
    const waiting: Waiting = { request: this.#next++, call, done: Promise.withResolvers(), sent: null };
    this.#queue.push(waiting);
    if (!this.#running) void this.#run();
    else this.#fill();
    return waiting.done.promise;
  }

  #fill(): void {
    for (const [i, waiting] of this.#queue.slice(0, WINDOW).entries()) {
      if (waiting.sent !== null) continue;
      const previous = i === 0 ? this.#seen : this.#queue[i - 1]?.request ?? this.#seen;
      waiting.sent = this.#link.call("apply", { ...waiting.call, request: waiting.request, previous, urgent: false }, {
        timeoutMs: 60_000,
      });
      waiting.sent.catch(() => {});
    }
  }

  async #run(): Promise<void> {
    this.#running = true;
    let awaySince: number | null = null;
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      this.#fill();
      try {
        const applied = await first.sent;
        if (applied === null) continue;
        this.#seen = first.request;
        first.done.resolve(applied);
      } catch (error) {
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
        first.done.reject(new FsError(failure.code, failure.message, failure.details));
      }
      awaySince = null;
      this.#queue.shift();
    }
    this.#running = false;
  }
}
