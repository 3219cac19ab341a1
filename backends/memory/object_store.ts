/** An ObjectStore in memory: for tests and for stores that may vanish with the process. */
import type { CallOptions } from "../../core/fs/contract.ts";
import {
  checkKey,
  checkRange,
  checkStore,
  collectSource,
  missingObject,
  type ObjectInfo,
  type ObjectRange,
  type ObjectSource,
  type ObjectStore,
  resolveRange,
  type StoreSpace,
} from "../../core/fs/object_store.ts";
import { FsError, toFsError } from "../../core/fs/error.ts";
import { systemRandom } from "../../core/platform/random.ts";

export interface MemoryObjectStoreOptions {
  /** @default "memory" */
  readonly name?: string;
  /** Bytes all objects may take together; more is `no_space`. @default unbounded */
  readonly capacity?: number;
}

export class MemoryObjectStore implements ObjectStore {
  readonly name: string;
  readonly #capacity: number | undefined;
  readonly #objects = new Map<string, Uint8Array<ArrayBuffer>>();
  #used = 0;

  constructor(options: MemoryObjectStoreOptions = {}) {
    this.name = options.name ?? "memory";
    this.#capacity = options.capacity;
  }

  async put(key: string, source: ObjectSource | Uint8Array, options: CallOptions = {}): Promise<void> {
    checkKey(key);
    try {
      options.signal?.throwIfAborted();
      const bytes = source instanceof Uint8Array ? source.slice() : await collectSource(key, source, options.signal);
      options.signal?.throwIfAborted();
      const used = this.#used - (this.#objects.get(key)?.length ?? 0) + bytes.length;
      if (this.#capacity !== undefined && used > this.#capacity) {
        throw new FsError("no_space", `${this.name} is full: ${key} needs ${bytes.length} bytes`, {
          operation: "put",
          path: key,
          limit: this.#capacity,
          usage: this.#used,
          requested: bytes.length,
        });
      }
      this.#objects.set(key, bytes);
      this.#used = used;
    } catch (error) {
      throw toFsError(error, { operation: "put", path: key });
    }
  }

  #find(key: string, signal: AbortSignal | undefined): Uint8Array<ArrayBuffer> {
    checkKey(key);
    if (signal?.aborted) throw toFsError(signal.reason, { operation: "get", path: key });
    const bytes = this.#objects.get(key);
    if (bytes === undefined) throw missingObject(key, this.name);
    return bytes;
  }

  // deno-lint-ignore require-await -- failures must reject, not throw
  async get(key: string, options: ObjectRange = {}): Promise<Uint8Array<ArrayBuffer>> {
    checkRange(key, options);
    const bytes = this.#find(key, options.signal);
    const { offset, length } = resolveRange(key, bytes.length, options);
    return bytes.slice(offset, offset + length);
  }

  getStream(key: string, options: CallOptions = {}): ReadableStream<Uint8Array> {
    const piece = 65536;
    let offset = 0;
    let bytes: Uint8Array | undefined;
    return new ReadableStream({
      pull: (controller) => {
        bytes ??= this.#find(key, options.signal);
        if (options.signal?.aborted) throw toFsError(options.signal.reason, { operation: "get", path: key });
        if (offset >= bytes.length) {
          controller.close();
          return;
        }
        controller.enqueue(bytes.slice(offset, offset + piece));
        offset += piece;
      },
    }, { highWaterMark: 0 });
  }

  // deno-lint-ignore require-await -- failures must reject, not throw
  async head(key: string, options: CallOptions = {}): Promise<ObjectInfo | null> {
    checkKey(key);
    if (options.signal?.aborted) throw toFsError(options.signal.reason, { operation: "head", path: key });
    const bytes = this.#objects.get(key);
    return bytes === undefined ? null : { key, size: bytes.length };
  }

  // deno-lint-ignore require-await -- failures must reject, not throw
  async delete(key: string, options: CallOptions = {}): Promise<void> {
    checkKey(key);
    if (options.signal?.aborted) throw toFsError(options.signal.reason, { operation: "delete", path: key });
    this.#used -= this.#objects.get(key)?.length ?? 0;
    this.#objects.delete(key);
  }

  async *list(prefix: string, after = "", options: CallOptions = {}): AsyncIterable<ObjectInfo> {
    const keys = [...this.#objects.keys()].filter((key) => key.startsWith(prefix) && key > after).sort();
    for (const key of keys) {
      if (options.signal?.aborted) throw toFsError(options.signal.reason, { operation: "list", path: prefix });
      const bytes = this.#objects.get(key);
      if (bytes !== undefined) yield { key, size: bytes.length };
    }
  }

  check(options: CallOptions = {}): Promise<void> {
    return checkStore(this, systemRandom.uuid(), options.signal);
  }

  space(): Promise<StoreSpace | null> {
    const total = this.#capacity;
    return Promise.resolve(total === undefined ? null : { total, free: total - this.#used });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** Opens an empty store. */
export function openMemoryObjectStore(options: MemoryObjectStoreOptions = {}): MemoryObjectStore {
  return new MemoryObjectStore(options);
}
