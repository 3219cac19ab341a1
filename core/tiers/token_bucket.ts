/** TokenBucket: spreads bytes over time so that they don't exceed a rate. */
import type { Clock } from "../platform/clock.ts";

export class TokenBucket {
  readonly #rate: number;
  readonly #clock: Clock;
  /** When the bytes granted so far will have been paid for, on the monotonic clock. */
  #paidAt = 0;

  /** `bytesPerSecond` above 0. A burst of a quarter of a second passes at once. */
  constructor(bytesPerSecond: number, clock: Clock) {
    this.#rate = bytesPerSecond;
    this.#clock = clock;
  }

  /** Resolves when so many bytes may pass. */
  async take(bytes: number, signal?: AbortSignal): Promise<void> {
    const now = this.#clock.monotonic();
    this.#paidAt = Math.max(this.#paidAt, now - 250) + bytes / this.#rate * 1000;
    const wait = this.#paidAt - now;
    if (wait > 0) await this.#clock.sleep(wait, signal);
  }

  /** The stream at no more than the rate. */
  limit(stream: ReadableStream<Uint8Array>, signal?: AbortSignal): ReadableStream<Uint8Array> {
    const SLICE = 64 * 1024;
    return stream.pipeThrough(
      new TransformStream<Uint8Array, Uint8Array>({
        transform: async (piece, controller) => {
          for (let at = 0; at < piece.length; at += SLICE) {
            const part = piece.subarray(at, at + SLICE);
            await this.take(part.length, signal);
            controller.enqueue(part);
          }
        },
      }),
    );
  }
}
