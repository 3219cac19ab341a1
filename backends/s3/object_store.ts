/** An ObjectStore in an S3 bucket: one S3 object each. S3 itself makes a put atomic and durable. */
import type { CallOptions } from "../../core/fs/contract.ts";
import { hasCode, toFsError } from "../../core/fs/error.ts";
import {
  checkKey,
  checkRange,
  checkStore,
  missingObject,
  type ObjectInfo,
  type ObjectRange,
  type ObjectSource,
  type ObjectStore,
  resolveRange,
  sizeMismatch,
  type StoreSpace,
} from "../../core/fs/object_store.ts";
import { systemRandom } from "../../core/platform/random.ts";
import { S3Connection, type S3Settings, sizeOf, statusOf } from "./connection.ts";
import { getRange, ObjectSink, putWhole, streamRange } from "./transfer.ts";

export interface S3ObjectStoreOptions extends S3Settings {
  /** @default `bucket BUCKET at ENDPOINT` */
  readonly name?: string;
}

interface Found {
  readonly size: number;
  readonly etag: string | undefined;
}

export class S3ObjectStore implements ObjectStore {
  readonly name: string;
  readonly #connection: S3Connection;

  constructor(options: S3ObjectStoreOptions) {
    this.#connection = new S3Connection(options);
    this.name = options.name ?? `bucket ${options.bucket} at ${this.#connection.endpoint}`;
  }

  #key(key: string): string {
    return this.#connection.prefix + key;
  }

  async put(key: string, source: ObjectSource | Uint8Array, options: CallOptions = {}): Promise<void> {
    checkKey(key);
    const { signal } = options;
    if (source instanceof Uint8Array && source.length <= this.#connection.partSize) {
      await putWhole(this.#connection, this.#key(key), source, signal);
      return;
    }
    const size = source instanceof Uint8Array ? source.length : source.size;
    const sink = new ObjectSink(this.#connection, this.#key(key), { signal, expectedSize: size });
    const reader = source instanceof Uint8Array ? undefined : source.open().getReader();
    const onAbort = () => void reader?.cancel(signal?.reason).catch(() => {});
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      if (source instanceof Uint8Array) await sink.write(source);
      while (reader !== undefined) {
        signal?.throwIfAborted();
        const { value, done } = await reader.read();
        if (done) break;
        if (sink.size + value.length > size) throw sizeMismatch(key, size, sink.size + value.length);
        await sink.write(value);
      }
      signal?.throwIfAborted();
      if (sink.size !== size) throw sizeMismatch(key, size, sink.size);
      await sink.finish();
    } catch (error) {
      reader?.cancel(error).catch(() => {});
      await sink.abort();
      throw toFsError(error, { operation: "put", path: key });
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  async get(key: string, options: ObjectRange = {}): Promise<Uint8Array<ArrayBuffer>> {
    checkKey(key);
    checkRange(key, options);
    const { offset, length, signal } = options;
    try {
      if (length === 0 || (length === undefined && offset !== undefined && offset > 0)) {
        // S3 can't say "no bytes", nor "the rest" of an object that ends right there.
        const found = await this.#head(key, signal);
        if (found === null) throw missingObject(key, this.name);
        const range = resolveRange(key, found.size, options);
        if (range.length === 0) return new Uint8Array(0);
        return await getRange(this.#connection, this.#key(key), { ...range, signal });
      }
      return await getRange(this.#connection, this.#key(key), { offset: offset ?? 0, length, signal });
    } catch (error) {
      throw hasCode(error, "not_found") ? missingObject(key, this.name) : toFsError(error, { path: key });
    }
  }

  getStream(key: string, options: CallOptions = {}): ReadableStream<Uint8Array> {
    checkKey(key);
    let inner: ReadableStreamDefaultReader<Uint8Array> | undefined;
    return new ReadableStream<Uint8Array>({
      pull: async (controller) => {
        if (inner === undefined) {
          const found = await this.#head(key, options.signal);
          if (found === null) throw missingObject(key, this.name);
          inner = streamRange(this.#connection, this.#key(key), {
            offset: 0,
            size: found.size,
            etag: found.etag,
            signal: options.signal,
          }).getReader();
        }
        const { value, done } = await inner.read();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: async (reason) => {
        await inner?.cancel(reason);
      },
    }, { highWaterMark: 0 });
  }

  async #head(key: string, signal: AbortSignal | undefined): Promise<Found | null> {
    const connection = this.#connection;
    const found = await connection.call("head", key, 0, signal, async ({ client, sdk, signal }) => {
      try {
        const answer = await client.send(
          new sdk.HeadObjectCommand({
            Bucket: connection.bucket,
            Key: this.#key(key),
            ResponseContentEncoding: "identity",
          }),
          { abortSignal: signal },
        );
        return { size: sizeOf(answer.ContentLength, key), etag: answer.ETag };
      } catch (error) {
        if (statusOf(error) === 404) return null;
        throw error;
      }
    });
    if (found === null) await connection.requireBucket(signal);
    return found;
  }

  async head(key: string, options: CallOptions = {}): Promise<ObjectInfo | null> {
    checkKey(key);
    const found = await this.#head(key, options.signal);
    return found === null ? null : { key, size: found.size };
  }

  async delete(key: string, options: CallOptions = {}): Promise<void> {
    checkKey(key);
    const connection = this.#connection;
    try {
      await connection.call(
        "delete",
        key,
        0,
        options.signal,
        ({ client, sdk, signal }) =>
          client.send(new sdk.DeleteObjectCommand({ Bucket: connection.bucket, Key: this.#key(key) }), {
            abortSignal: signal,
          }),
      );
    } catch (error) {
      if (!hasCode(error, "not_found")) throw error;
    }
  }

  async *list(prefix: string, after = "", options: CallOptions = {}): AsyncIterable<ObjectInfo> {
    const connection = this.#connection;
    let startAfter = after === "" ? undefined : this.#key(after);
    while (true) {
      const page = await connection.call("list", prefix, 0, options.signal, ({ client, sdk, signal }) =>
        client.send(
          new sdk.ListObjectsV2Command({
            Bucket: connection.bucket,
            Prefix: this.#key(prefix),
            MaxKeys: connection.pageSize,
            ...(startAfter === undefined ? {} : { StartAfter: startAfter }),
          }),
          { abortSignal: signal },
        ));
      for (const { Key, Size } of page.Contents ?? []) {
        if (Key === undefined) continue;
        startAfter = Key;
        yield { key: Key.slice(connection.prefix.length), size: Size ?? 0 };
      }
      // Continued by key, not by token: a token may expire when the consumer is slow.
      if (page.IsTruncated !== true) return;
    }
  }

  check(options: CallOptions = {}): Promise<void> {
    return checkStore(this, systemRandom.uuid(), options.signal);
  }

  space(): Promise<StoreSpace | null> {
    return Promise.resolve(null);
  }

  close(): Promise<void> {
    return this.#connection.close();
  }
}

/** Opens nothing yet: the SDK is loaded, and the bucket met, at the first request. Throws invalid_input for bad settings. */
export function openS3ObjectStore(options: S3ObjectStoreOptions): S3ObjectStore {
  return new S3ObjectStore(options);
}
