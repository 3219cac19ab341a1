/** A pool of worker threads that cut, hash and compress chunks, so that the main thread stays free. */
import { FsError, toFsError } from "../fs/error.ts";
import { type SpawnWorker, spawnWorker, type WorkerPort } from "../platform/workers.ts";
import type { FileBatch } from "./chunk_file.ts";
import type { ChunkReply, ChunkRequest, FileRange, PackedChunks } from "./chunk_messages.ts";
import { FLAG_ZSTD, type PackedChunk } from "./codec.ts";

export type { FileBatch } from "./chunk_file.ts";
export type { FileRange, PackedChunks } from "./chunk_messages.ts";

export interface Processed {
  /** The buffer that was given, back again. */
  readonly buffer: ArrayBuffer;
  /** Lengths of the chunks in bytes, the first beginning at the offset that was given. */
  readonly lengths: Uint32Array<ArrayBuffer>;
  /** 32 bytes a chunk. */
  readonly hashes: Uint8Array<ArrayBuffer>;
  /** Sum of the lengths; what is behind it belongs to the next call. All when `final`. */
  readonly consumed: number;
  /** With `compress` only. */
  readonly packed: PackedChunks | undefined;
}

export interface ProcessOptions {
  /** Where in the buffer the bytes begin. @default {0} */
  readonly offset?: number;
  /** Number of bytes. @default {all from offset on} */
  readonly length?: number;
  /** Also make the stored form of every chunk. @default {false} */
  readonly compress?: boolean;
  /** Called with a copy of the undecided rest as soon as the cuts are known, before the hashes are. */
  readonly onCut?: (tail: Uint8Array<ArrayBuffer>) => void;
  readonly signal?: AbortSignal | undefined;
}

interface Task {
  readonly request: ChunkRequest;
  readonly transfer: Transferable[];
  /** Takes a reply; true when it was the last. */
  readonly onReply: (reply: ChunkReply) => boolean;
  readonly fail: (error: unknown) => void;
  /** May it be given to another worker when its own dies? */
  retryable: boolean;
}

interface Slot {
  readonly port: WorkerPort<ChunkRequest>;
  readonly tasks: Map<number, Task>;
}

export interface ChunkPoolOptions {
  /** Number of threads. They are started when they are first needed. @default {2} */
  readonly workers?: number;
  /** Starts a thread; a test gives its own. */
  readonly spawn?: SpawnWorker<ChunkRequest, ChunkReply>;
}

const spawnChunkWorker: SpawnWorker<ChunkRequest, ChunkReply> = (listener) =>
  spawnWorker(new URL("./chunk_worker.ts", import.meta.url), "chunks", listener);

/**
 * Tasks go to the thread with the fewest. Files take turns with everything else on their thread, batch by batch. A
 * thread that dies is replaced; what it had begun fails with `internal`, a file of which nothing has been delivered is
 * begun once more.
 */
export class ChunkPool implements AsyncDisposable {
  readonly #spawn: SpawnWorker<ChunkRequest, ChunkReply>;
  readonly #slots: (Slot | undefined)[];
  #nextId = 1;
  #closed = false;

  constructor(options: ChunkPoolOptions = {}) {
    this.#spawn = options.spawn ?? spawnChunkWorker;
    this.#slots = Array(Math.max(1, options.workers ?? 2)).fill(undefined);
  }

  /**
   * Cuts and hashes bytes of a buffer, which is transferred: it is unusable here until it comes back in the result.
   * With `final` false the bytes go on, and the undecided rest (less than MAX_CHUNK bytes) is left unconsumed.
   * Throws cancelled (the buffer is lost then), internal when the thread died.
   */
  process(buffer: ArrayBuffer, final: boolean, options: ProcessOptions = {}): Promise<Processed> {
    const { offset = 0, length = buffer.byteLength - offset, compress = false, onCut, signal } = options;
    const early = onCut !== undefined;
    const { promise, resolve, reject } = Promise.withResolvers<Processed>();
    const request = { kind: "process" as const, id: this.#nextId++, buffer, offset, length, final, compress, early };
    this.#run(request, [buffer], signal, reject, (reply) => {
      if (reply.kind === "cut") onCut?.(reply.tail);
      if (reply.kind !== "processed") return false;
      const { buffer, lengths, hashes, consumed, packed } = reply;
      resolve({ buffer, lengths, hashes, consumed, packed });
      return true;
    });
    return promise;
  }

  /** The stored forms of chunks that lie in a buffer, which is transferred and comes back. Throws as `process`. */
  pack(
    buffer: ArrayBuffer,
    chunks: readonly { readonly offset: number; readonly length: number }[],
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<{ buffer: ArrayBuffer; packed: PackedChunks }> {
    const { promise, resolve, reject } = Promise.withResolvers<{ buffer: ArrayBuffer; packed: PackedChunks }>();
    const offsets = Uint32Array.from(chunks, ({ offset }) => offset);
    const lengths = Uint32Array.from(chunks, ({ length }) => length);
    const request = { kind: "pack" as const, id: this.#nextId++, buffer, offsets, lengths };
    this.#run(request, [buffer], options.signal, reject, (reply) => {
      if (reply.kind !== "packed") return false;
      resolve({ buffer: reply.buffer, packed: reply.packed });
      return true;
    });
    return promise;
  }

  /**
   * Cuts and hashes a local file, or ranges of it, each as a content of its own. The thread reads it by itself; chunks
   * of holes are known without reading. `onBatch` gets the chunks in order, one call at a time; while it is busy, at
   * most two more batches are prepared. Resolves with the number of bytes. Throws by errno, conflict when the file
   * becomes shorter meanwhile, cancelled, internal, and what `onBatch` throws.
   */
  processFile(
    path: string,
    ranges: readonly FileRange[] | undefined,
    onBatch: (batch: FileBatch) => void | Promise<void>,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<number> {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    const id = this.#nextId++;
    let delivery = Promise.resolve();
    const fail = (error: unknown) => {
      if (!task.ended) this.#send(id, { kind: "cancel", id });
      task.end();
      reject(error);
    };
    const task = this.#run({ kind: "file", id, path, ranges }, [], options.signal, reject, (reply) => {
      if (reply.kind === "batch") {
        task.begun();
        const { range, offset, zeroChunks, lengths, hashes } = reply;
        delivery = delivery.then(async () => {
          if (task.failed) return;
          await onBatch({ range, offset, zeroChunks, lengths, hashes });
          this.#send(id, { kind: "credit", id });
        });
        delivery.catch(fail);
      }
      if (reply.kind !== "done") return false;
      delivery.then(() => resolve(reply.size), () => {});
      return true;
    });
    return promise;
  }

  /** Ends the threads; what still runs fails with `cancelled`. */
  close(): void {
    this.#closed = true;
    for (const [i, slot] of this.#slots.entries()) {
      if (slot === undefined) continue;
      this.#slots[i] = undefined;
      slot.port.terminate();
      for (const task of slot.tasks.values()) task.fail(new FsError("cancelled", "the chunk pool was closed"));
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  /** Runs a task; the result lets a file's deliveries follow and end it. */
  #run(
    request: ChunkRequest,
    transfer: Transferable[],
    signal: AbortSignal | undefined,
    reject: (error: unknown) => void,
    onReply: (reply: ChunkReply) => boolean,
  ): { readonly ended: boolean; readonly failed: boolean; begun(): void; end(): void } {
    let ended = false;
    let failed = false;
    const end = () => {
      ended = true;
      signal?.removeEventListener("abort", onAbort);
      for (const slot of this.#slots) slot?.tasks.delete(request.id);
    };
    const fail = (error: unknown) => {
      failed = true;
      end();
      reject(error);
    };
    const onAbort = () => {
      if (request.kind === "file") this.#send(request.id, { kind: "cancel", id: request.id });
      fail(abortError(signal));
    };
    const task: Task = {
      request,
      transfer,
      fail,
      retryable: request.kind === "file",
      onReply: (reply) => {
        if (reply.kind === "failed") {
          const { code, message, errno, operation, path } = reply;
          fail(new FsError(code, message, { errno, ...(operation && { operation }), ...(path && { path }) }));
          return true;
        }
        if (!onReply(reply)) return false;
        end();
        return true;
      },
    };
    if (signal?.aborted) fail(abortError(signal));
    else {
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#dispatch(task);
    }
    return {
      get ended() {
        return ended;
      },
      get failed() {
        return failed;
      },
      begun: () => task.retryable = false,
      end() {
        failed = true;
        end();
      },
    };
  }

  #dispatch(task: Task): void {
    if (this.#closed) {
      task.fail(new FsError("cancelled", "the chunk pool is closed"));
      return;
    }
    try {
      const slot = this.#leastLoaded();
      slot.tasks.set(task.request.id, task);
      slot.port.post(task.request, task.transfer);
    } catch (error) {
      task.fail(toFsError(error));
    }
  }

  #leastLoaded(): Slot {
    let best = 0;
    let fewest = Infinity;
    for (const [i, slot] of this.#slots.entries()) {
      const load = slot?.tasks.size ?? 0;
      // Among idle threads, one that runs is better than one to start.
      if (load < fewest || (load === fewest && slot !== undefined && this.#slots[best] === undefined)) {
        best = i;
        fewest = load;
      }
    }
    return this.#slots[best] ?? this.#start(best);
  }

  #start(i: number): Slot {
    const tasks = new Map<number, Task>();
    const port = this.#spawn({
      onMessage: (reply) => void tasks.get(reply.id)?.onReply(reply),
      onFailure: (message) => {
        this.#slots[i] = undefined;
        for (const task of [...tasks.values()]) {
          tasks.delete(task.request.id);
          if (task.retryable) {
            task.retryable = false;
            this.#dispatch(task);
          } else task.fail(new FsError("internal", `a chunk worker died: ${message}; try again`));
        }
      },
    });
    const slot = { port, tasks };
    this.#slots[i] = slot;
    return slot;
  }

  /** A message about a running task to the thread that has it. */
  #send(id: number, message: ChunkRequest): void {
    for (const slot of this.#slots) if (slot?.tasks.has(id)) slot.port.post(message);
  }
}

function abortError(signal: AbortSignal | undefined): FsError {
  const error = toFsError(signal?.reason);
  return error.code === "internal" ? new FsError("cancelled", "the operation was cancelled", { cause: error }) : error;
}

/** The stored form of chunk `i`, whose raw bytes are `raw`: what a pack takes. For all chunks in order, see `packedAll`. */
export function* packedAll(packed: PackedChunks, raw: (i: number) => Uint8Array): Generator<PackedChunk> {
  let at = 0;
  for (let i = 0; i < packed.flags.length; i++) {
    const bytes = raw(i);
    if (packed.flags[i] !== FLAG_ZSTD) {
      yield { flags: packed.flags[i] ?? 0, stored: bytes, rawLength: bytes.length };
      continue;
    }
    const length = packed.storedLengths[i] ?? 0;
    yield { flags: FLAG_ZSTD, stored: packed.stored.subarray(at, at + length), rawLength: bytes.length };
    at += length;
  }
}
