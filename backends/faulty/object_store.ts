/** An object store that goes wrong on command. For tests. */
import type { CallOptions } from "../../core/fs/contract.ts";
import { failure } from "../../core/fs/failure.ts";
import {
  collectSource,
  type ObjectInfo,
  type ObjectRange,
  type ObjectSource,
  type ObjectStore,
  type StoreSpace,
} from "../../core/fs/object_store.ts";
import { hurtStream } from "./backend.ts";
import type { FaultScript } from "./script.ts";

/** `inner` under the script; its operations are put, get, getStream, head, delete, list, check and space. */
export class FaultyObjectStore implements ObjectStore {
  readonly name: string;
  readonly #inner: ObjectStore;
  readonly #script: FaultScript;

  constructor(inner: ObjectStore, script: FaultScript) {
    this.name = inner.name;
    this.#inner = inner;
    this.#script = script;
  }

  put(key: string, source: ObjectSource | Uint8Array, options: CallOptions = {}): Promise<void> {
    return this.#script.run("put", key, options.signal, async (faults) => {
      const whole = () => source instanceof Uint8Array ? source.slice() : collectSource(key, source, options.signal);
      if (faults.torn !== undefined) {
        const bytes = await whole();
        await this.#inner.put(key, bytes.subarray(0, Math.floor(bytes.length * faults.torn)), options);
        throw failure("unavailable", "put", key);
      }
      await this.#inner.put(key, faults.flips ? faults.flipped(await whole()) : source, options);
    });
  }
  get(key: string, options: ObjectRange = {}): Promise<Uint8Array<ArrayBuffer>> {
    return this.#script.run("get", key, options.signal, async (faults) => {
      const bytes = await this.#inner.get(key, options);
      return faults.flipped(bytes.slice(0, Math.max(0, bytes.length - faults.short)));
    });
  }
  getStream(key: string, options: CallOptions = {}): ReadableStream<Uint8Array> {
    let reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
    return new ReadableStream<Uint8Array>({
      pull: async (controller) => {
        reader ??= await this.#script.run(
          "getStream",
          key,
          options.signal,
          (faults) => Promise.resolve(hurtStream(this.#inner.getStream(key, options), faults).getReader()),
        );
        const { value, done } = await reader.read();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: (reason) => reader?.cancel(reason),
    }, { highWaterMark: 0 });
  }
  head(key: string, options: CallOptions = {}): Promise<ObjectInfo | null> {
    return this.#script.run("head", key, options.signal, () => this.#inner.head(key, options));
  }
  delete(key: string, options: CallOptions = {}): Promise<void> {
    return this.#script.run("delete", key, options.signal, () => this.#inner.delete(key, options));
  }
  async *list(prefix: string, after?: string, options: CallOptions = {}): AsyncIterable<ObjectInfo> {
    await this.#script.run("list", prefix, options.signal, () => Promise.resolve());
    yield* this.#inner.list(prefix, after, options);
  }
  check(options: CallOptions = {}): Promise<void> {
    return this.#script.run("check", "check", options.signal, () => this.#inner.check(options));
  }
  space(options: CallOptions = {}): Promise<StoreSpace | null> {
    return this.#script.run("space", "space", options.signal, () => this.#inner.space(options));
  }
  close(): Promise<void> {
    return this.#inner.close();
  }
}
