/** The hot tier's store with its open descriptors kept in step: what is replaced or removed is not read from an old one. */
import type { CallOptions } from "../fs/contract.ts";
import type { ObjectInfo, ObjectRange, ObjectSource, ObjectStore, StoreSpace } from "../fs/object_store.ts";
import type { HotFiles } from "./hot_files.ts";

export class HotStore implements ObjectStore {
  readonly name: string;
  readonly #inner: ObjectStore;
  readonly #files: HotFiles;

  constructor(inner: ObjectStore, files: HotFiles) {
    this.name = inner.name;
    this.#inner = inner;
    this.#files = files;
  }

  #forget(key: string): void {
    const name = /^packs\/[^/]+\/([^/]+)\.pack$/.exec(key)?.[1];
    if (name !== undefined) this.#files.forget(name);
  }
  async put(key: string, source: ObjectSource | Uint8Array, options?: CallOptions): Promise<void> {
    try {
      await this.#inner.put(key, source, options);
    } finally {
      this.#forget(key);
    }
  }
  async delete(key: string, options?: CallOptions): Promise<void> {
    try {
      await this.#inner.delete(key, options);
    } finally {
      this.#forget(key);
    }
  }
  get(key: string, options?: ObjectRange): Promise<Uint8Array<ArrayBuffer>> {
    return this.#inner.get(key, options);
  }
  getStream(key: string, options?: CallOptions): ReadableStream<Uint8Array> {
    return this.#inner.getStream(key, options);
  }
  head(key: string, options?: CallOptions): Promise<ObjectInfo | null> {
    return this.#inner.head(key, options);
  }
  list(prefix: string, after?: string, options?: CallOptions): AsyncIterable<ObjectInfo> {
    return this.#inner.list(prefix, after, options);
  }
  check(options?: CallOptions): Promise<void> {
    return this.#inner.check(options);
  }
  space(options?: CallOptions): Promise<StoreSpace | null> {
    return this.#inner.space(options);
  }
  close(): Promise<void> {
    return this.#inner.close();
  }
}
