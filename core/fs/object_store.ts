/**
 * ObjectStore: the small contract of a place that holds immutable named objects. A tier is one of these plus policy.
 * What a tier needs is much less than a filesystem, so it is an interface of its own that memory, local and s3 provide.
 */
import type { CallOptions } from "./contract.ts";
import { FsError } from "./error.ts";

/** Bytes of a known length that can be read more than once: a put that is tried again opens it again. */
export interface ObjectSource {
  /** Bytes that `open` yields, exactly. */
  readonly size: number;
  open(): ReadableStream<Uint8Array>;
}
export interface ObjectRange extends CallOptions {
  /** First byte. @default 0 */
  readonly offset?: number;
  /** Exactly so many bytes. @default to the end */
  readonly length?: number;
}
export interface ObjectInfo {
  readonly key: string;
  /** Bytes. */
  readonly size: number;
}
export interface StoreSpace {
  /** Bytes. */
  readonly total: number;
  readonly free: number;
}

/**
 * Keys are 1..512 of [a-z0-9._-] in components parted by `/`; no component is empty or begins with a dot, and no key may
 * be another key followed by `/...` (a folder can't be a file as well).
 * All failures are FsError; every method may reject with `unavailable`, `timeout`, `access_denied`, `cancelled`, `internal`.
 */
export interface ObjectStore {
  /** For messages: what a person would call this place. */
  readonly name: string;
  /**
   * Stores the object whole or not at all, replacing an earlier one; durable once it resolves. A failed or aborted put
   * leaves nothing behind. Throws invalid_input when the source yields more or fewer bytes than `size`, no_space.
   */
  put(key: string, source: ObjectSource | Uint8Array, options?: CallOptions): Promise<void>;
  /**
   * Exactly the bytes asked for, in a buffer of the caller's own. Throws not_found; `corrupt` when the object holds fewer
   * than asked: a short read is never taken for the end.
   */
  get(key: string, options?: ObjectRange): Promise<Uint8Array<ArrayBuffer>>;
  /** The object from its first to its last byte, read as it is consumed. A failure, not_found too, errors the stream. */
  getStream(key: string, options?: CallOptions): ReadableStream<Uint8Array>;
  /** Null when there is no such object. */
  head(key: string, options?: CallOptions): Promise<ObjectInfo | null>;
  /** A missing object is fine. */
  delete(key: string, options?: CallOptions): Promise<void>;
  /** Objects whose key begins with `prefix` and is greater than `after`, in ascending order of their keys. */
  list(prefix: string, after?: string, options?: CallOptions): AsyncIterable<ObjectInfo>;
  /** Writes, reads back and deletes a small object: resolves when the store really works, else says what is wrong and what to do. */
  check(options?: CallOptions): Promise<void>;
  /** Null where the store has no bounds that it tells. */
  space(options?: CallOptions): Promise<StoreSpace | null>;
  close(): Promise<void>;
}

/** Longest key. S3 allows 1024 bytes, the prefix included. */
export const KEY_MAX = 512;
const KEY = /^[a-z0-9_-][a-z0-9._-]*(?:\/[a-z0-9_-][a-z0-9._-]*)*$/;

/** Throws invalid_input for what is not a key. */
export function checkKey(key: string): void {
  if (key.length > KEY_MAX || !KEY.test(key)) {
    throw new FsError(
      "invalid_input",
      `${JSON.stringify(key.slice(0, 80))} is not an object key: use a-z 0-9 . _ - in components parted by "/"`,
      { path: key },
    );
  }
}

/** Throws invalid_input for a range that is not made of whole numbers of 0 or more. */
export function checkRange(key: string, range: ObjectRange): void {
  const bad = (n: number | undefined) => n !== undefined && !(Number.isSafeInteger(n) && n >= 0);
  if (bad(range.offset) || bad(range.length)) {
    throw new FsError("invalid_input", `${key}: offset and length must be whole numbers of 0 or more`, { path: key });
  }
}

/** The range asked for as [offset, length] of an object of `size` bytes; throws `corrupt` when the object is shorter. */
export function resolveRange(key: string, size: number, range: ObjectRange): { offset: number; length: number } {
  const offset = range.offset ?? 0;
  const length = range.length ?? Math.max(0, size - offset);
  if (offset + length > size) throw shortObject(key, size, offset + length);
  return { offset, length };
}

/** The object holds fewer bytes than are known to belong to it. */
export function shortObject(key: string, size: number, requested: number): FsError {
  return new FsError("corrupt", `object ${key} has ${size} bytes where ${requested} are needed: it is cut short`, {
    operation: "get",
    path: key,
    usage: size,
    requested,
  });
}

/** There is no object of that key. */
export function missingObject(key: string, store: string): FsError {
  return new FsError("not_found", `object ${key} is not in ${store}`, { operation: "get", path: key });
}

/** The source of a put yielded another number of bytes than it promised. */
export function sizeMismatch(key: string, promised: number, got: number): FsError {
  return new FsError(
    "invalid_input",
    `the source of object ${key} yields ${got >= promised ? "more" : "fewer"} bytes than the ${promised} it announced`,
    { operation: "put", path: key, requested: promised, usage: got },
  );
}

/** Bytes in memory as a source. */
export function bytesSource(bytes: Uint8Array): ObjectSource {
  return {
    size: bytes.length,
    open: () =>
      new ReadableStream({
        start(controller) {
          if (bytes.length > 0) controller.enqueue(bytes);
          controller.close();
        },
      }),
  };
}

/** All of a source in one buffer. Throws invalid_input when its length is not the announced one. */
export async function collectSource(
  key: string,
  source: ObjectSource,
  signal?: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>> {
  const out = new Uint8Array(source.size);
  let done = 0;
  for await (const chunk of source.open()) {
    signal?.throwIfAborted();
    if (done + chunk.length > out.length) throw sizeMismatch(key, source.size, done + chunk.length);
    out.set(chunk, done);
    done += chunk.length;
  }
  if (done < out.length) throw sizeMismatch(key, source.size, done);
  return out;
}

/**
 * The body of every `check`: a small object is written, read, compared and deleted under a name of its own.
 * `token` must differ between two checks that may run at once.
 */
export async function checkStore(store: ObjectStore, token: string, signal?: AbortSignal): Promise<void> {
  const key = `check/${token}`;
  const options = signal === undefined ? {} : { signal };
  const bytes = new TextEncoder().encode(`anyfs check ${token}`);
  await store.put(key, bytes, options);
  try {
    const back = await store.get(key, { ...options, offset: 0, length: bytes.length });
    if (!back.every((byte, i) => byte === bytes[i])) {
      throw new FsError("corrupt", `${store.name} returned other bytes than were written a moment ago`, { path: key });
    }
  } finally {
    await store.delete(key, options);
  }
}
