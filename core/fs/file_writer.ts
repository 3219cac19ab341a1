/** The stream side of `openWrite`, once for all backends: they say how bytes are kept, this says when they count. */
import type { FileWriter } from "./contract.ts";
import { toFsError } from "./error.ts";
import type { Stat } from "./stat.ts";

/** Where the bytes go meanwhile. Calls never overlap; after `commit` or `discard` there is no further call. */
export interface WriteSink {
  write(chunk: Uint8Array): Promise<void>;
  /** Makes the new content visible and durable. When it fails, `discard` follows. */
  commit(): Promise<Stat>;
  /** Leaves no trace. Must not throw. */
  discard(): Promise<void>;
}

/**
 * `done` never causes an unhandled rejection by itself, for the writable's own failure is seen by whoever writes.
 * An abort of `signal`, at whatever moment before the commit began, ends in `discard`.
 */
export function makeFileWriter(path: string, sink: WriteSink, signal?: AbortSignal): FileWriter {
  const { promise: done, resolve, reject } = Promise.withResolvers<Stat>();
  done.catch(() => {});
  let ended = false;
  let busy: Promise<unknown> = Promise.resolve();
  let off = () => {};

  const fail = async (reason: unknown): Promise<never> => {
    const error = toFsError(reason, { operation: "write", path });
    if (!ended) {
      ended = true;
      off();
      await busy.catch(() => {});
      await sink.discard();
      reject(error);
    }
    throw error;
  };

  const writable = new WritableStream<Uint8Array>({
    start(controller) {
      if (signal === undefined) return;
      const onAbort = () => {
        controller.error(toFsError(signal.reason, { operation: "write", path }));
        fail(signal.reason).catch(() => {});
      };
      signal.addEventListener("abort", onAbort, { once: true });
      off = () => signal.removeEventListener("abort", onAbort);
      if (signal.aborted) onAbort();
    },
    async write(chunk) {
      if (chunk.length === 0) return;
      try {
        const work = sink.write(chunk);
        busy = work;
        await work;
      } catch (error) {
        await fail(error);
      }
    },
    async close() {
      // From here on an abort comes too late: the commit decides.
      off();
      try {
        resolve(await sink.commit());
        ended = true;
      } catch (error) {
        await fail(error);
      }
    },
    async abort(reason) {
      await fail(reason ?? new DOMException("the writer was aborted", "AbortError")).catch(() => {});
    },
  });
  return { writable, done };
}
