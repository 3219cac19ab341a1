/**
 * An S3 bucket (or a prefix of one) as a filesystem: a file is the object of its path, a directory is whatever has objects
 * below it or a zero-byte marker `path/`. What S3 can't do, such as renaming in one step, is declared in the traits.
 */
import type { ListObjectsV2CommandOutput } from "@aws-sdk/client-s3";
import type {
  Backend,
  BackendTraits,
  CallOptions,
  FileWriter,
  ReadDirOptions,
  ReadOptions,
  WriteOptions,
} from "../../core/fs/contract.ts";
import { FsError, hasCode, toFsError } from "../../core/fs/error.ts";
import { failure } from "../../core/fs/failure.ts";
import { makeFileWriter } from "../../core/fs/file_writer.ts";
import { checkName } from "../../core/fs/names.ts";
import { child, dirname, isWithin, requireNormal, split } from "../../core/fs/path.ts";
import { Serial } from "../../core/fs/serial.ts";
import { type DirEntry, S_IFDIR, S_IFREG, type Stat } from "../../core/fs/stat.ts";
import { type Clock, systemClock } from "../../core/platform/clock.ts";
import { type Random, systemRandom } from "../../core/platform/random.ts";
import { S3Connection, type S3Settings, sizeOf, statusOf } from "./connection.ts";
import { keyOf, unescapeKey } from "./keys.ts";
import { copySource, getRange, MIN_PART, ObjectSink, PartedUpload, putWhole, streamRange } from "./transfer.ts";

export interface S3BackendOptions extends S3Settings {
  readonly random?: Random;
}

const TRAITS: BackendTraits = {
  backend: "s3",
  caseSensitive: true,
  bytesInNames: true,
  emptyDirs: true,
  atomicRename: false,
  permissions: false,
  mtimePrecisionNs: 1_000_000_000,
  notes: [
    "rename copies and then deletes, object by object: a crash in between leaves both names, an observer sees parts of a tree",
    "a directory is a zero-byte object `path/` or anything below it; directories have no times",
    "append and truncate replace the object: a server-side copy from 5 MiB on, a rewrite below",
    "two processes that append to one file, or create it exclusively, are kept apart only where the store honours If-Match and If-None-Match; Ceph does for one PUT, not for multipart uploads (from 8 MiB, appends from 5 MiB)",
    "bytes in names that are not UTF-8, and control characters, are written %XX in keys (see keys.ts)",
    "keys end at 1024 bytes, so paths do, a little earlier",
    "keys that no path can name (`a//b`, `./`, `../`, a leading slash) are not shown; with a component `.` or `..` they can't be removed from here either",
    "where a bucket has both `a` and `a/...`, the directory is what is seen",
    "no modes, owners, links, attributes, versions or inode numbers; times have seconds",
  ],
};

/** S3's longest server-side copy in one request. */
const COPY_MAX = 5 * 1024 ** 3;
/** Requests of one operation on a tree that run side by side. */
const TREE_PARALLEL = 16;
const KNOWN_MAX = 10_000;
const RETRIES = 20;
const NO_BYTES = new Uint8Array(0);
const STREAM_ZEROS = new Uint8Array(1 << 20);

interface Found {
  readonly size: number;
  readonly etag: string | undefined;
  readonly mtimeSec: number;
}

function fileStat(found: Found): Stat {
  return { ...dirStat(), mode: S_IFREG | 0o644, size: found.size, ...times(found.mtimeSec) };
}
function dirStat(): Stat {
  return {
    ino: 0,
    mode: S_IFDIR | 0o755,
    nlink: 1,
    uid: 0,
    gid: 0,
    rdev: 0,
    size: 0,
    ...times(0),
    version: 0,
    content: null,
    tiers: 0,
  };
}
function times(sec: number) {
  return {
    atimeSec: sec,
    atimeNsec: 0,
    mtimeSec: sec,
    mtimeNsec: 0,
    ctimeSec: sec,
    ctimeNsec: 0,
    btimeSec: sec,
    btimeNsec: 0,
  };
}
const seconds = (date: Date | undefined) => Math.floor((date?.getTime() ?? 0) / 1000);

/** Runs `work` on every item, TREE_PARALLEL at a time; the first failure ends it. */
async function each<T>(items: AsyncIterable<T>, work: (item: T) => Promise<void>): Promise<void> {
  const running = new Set<Promise<void>>();
  let broken = false;
  let cause: unknown;
  for await (const item of items) {
    const job = work(item).catch((error) => {
      cause ??= error;
      broken = true;
    }).finally(() => running.delete(job));
    running.add(job);
    if (running.size >= TREE_PARALLEL) await Promise.race(running);
    if (broken) break;
  }
  await Promise.all(running);
  if (broken) throw cause;
}

/** A set that forgets its oldest members. */
class Recent<V> {
  readonly #map = new Map<string, V>();
  get(key: string): V | undefined {
    return this.#map.get(key);
  }
  set(key: string, value: V): void {
    this.#map.delete(key);
    this.#map.set(key, value);
    if (this.#map.size <= KNOWN_MAX) return;
    const oldest = this.#map.keys().next();
    if (!oldest.done) this.#map.delete(oldest.value);
  }
  forgetWithin(path: string): void {
    for (const key of this.#map.keys()) if (isWithin(key, path)) this.#map.delete(key);
  }
}

export class S3Backend implements Backend {
  readonly traits = TRAITS;
  readonly #connection: S3Connection;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #serial = new Serial();
  /** Directories this process has seen or made: "marked" ones stay when they become empty. */
  readonly #dirs = new Recent<"seen" | "marked">();
  /** Kinds of the last entries of pages, to go on from: S3 sorts a directory as if a slash were part of its name. */
  readonly #lastKinds = new Recent<"file" | "directory">();

  constructor(options: S3BackendOptions) {
    this.#connection = new S3Connection(options);
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? systemRandom;
  }

  async #call<T>(
    operation: string,
    path: string,
    options: CallOptions | undefined,
    body: (signal: AbortSignal | undefined) => Promise<T>,
  ): Promise<T> {
    try {
      options?.signal?.throwIfAborted();
      requireNormal(path);
      return await body(options?.signal);
    } catch (error) {
      throw reword(toFsError(error, { operation, path }), operation, path);
    }
  }

  #key(path: string): string {
    return keyOf(this.#connection.prefix, path);
  }
  /** What every key below the directory begins with. */
  #dirKey(path: string): string {
    return path === "/" ? this.#connection.prefix : `${this.#key(path)}/`;
  }

  async #head(key: string, signal: AbortSignal | undefined): Promise<Found | null> {
    const connection = this.#connection;
    const found = await connection.call("stat", key, 0, signal, async ({ client, sdk, signal }) => {
      try {
        const answer = await client.send(
          new sdk.HeadObjectCommand({ Bucket: connection.bucket, Key: key, ResponseContentEncoding: "identity" }),
          {
            abortSignal: signal,
          },
        );
        return { size: sizeOf(answer.ContentLength, key), etag: answer.ETag, mtimeSec: seconds(answer.LastModified) };
      } catch (error) {
        if (statusOf(error) === 404) return null;
        throw error;
      }
    });
    if (found === null) await connection.requireBucket(signal);
    return found;
  }

  #listPage(
    request: {
      prefix: string;
      delimiter?: string;
      after?: string | undefined;
      token?: string | undefined;
      max: number;
    },
    signal: AbortSignal | undefined,
  ) {
    const connection = this.#connection;
    return connection.call("list", request.prefix, 0, signal, ({ client, sdk, signal }) =>
      client.send(
        new sdk.ListObjectsV2Command({
          Bucket: connection.bucket,
          Prefix: request.prefix,
          MaxKeys: Math.min(connection.pageSize, request.max),
          // Without it, characters that XML can't carry break the answer.
          EncodingType: "url",
          ...(request.delimiter === undefined ? {} : { Delimiter: request.delimiter }),
          ...(request.token === undefined ? {} : { ContinuationToken: request.token }),
          ...(request.after === undefined || request.token !== undefined ? {} : { StartAfter: request.after }),
        }),
        { abortSignal: signal },
      ));
  }

  async #isDir(path: string, signal: AbortSignal | undefined): Promise<boolean> {
    if (path === "/") return true;
    if (this.#dirs.get(path) !== undefined) return true;
    const page = await this.#listPage({ prefix: this.#dirKey(path), max: 1 }, signal);
    const is = (page.Contents ?? []).length > 0;
    if (is) this.#dirs.set(path, "seen");
    return is;
  }

  /** Null when there is neither a file nor a directory. */
  async #find(path: string, signal: AbortSignal | undefined): Promise<Stat | null> {
    if (path === "/") {
      await this.#connection.requireBucket(signal);
      return dirStat();
    }
    const [dir, file] = await Promise.all([this.#isDirNow(path, signal), this.#head(this.#key(path), signal)]);
    if (dir) return dirStat();
    return file === null ? null : fileStat(file);
  }
  /** As #isDir, asking the store: another process may have removed it. */
  async #isDirNow(path: string, signal: AbortSignal | undefined): Promise<boolean> {
    const page = await this.#listPage({ prefix: this.#dirKey(path), max: 1 }, signal);
    return (page.Contents ?? []).length > 0;
  }

  /** Throws not_found or not_a_directory unless the parent of `path` is a directory. */
  async #requireParent(operation: string, path: string, signal: AbortSignal | undefined): Promise<void> {
    const parent = dirname(path);
    if (await this.#isDir(parent, signal)) return;
    for (let at = parent; at !== "/"; at = dirname(at)) {
      if (await this.#head(this.#key(at), signal) !== null) throw failure("not_a_directory", operation, path);
    }
    throw failure("not_found", operation, path);
  }
  /** Parent is a directory, the path itself is none. */
  async #requireFilePlace(operation: string, path: string, signal: AbortSignal | undefined): Promise<void> {
    if (path === "/") throw failure("is_a_directory", operation, path);
    const [, dir] = await Promise.all([this.#requireParent(operation, path, signal), this.#isDir(path, signal)]);
    if (dir) throw failure("is_a_directory", operation, path);
  }
  /** The file at `path`, else the right error. */
  async #requireFile(operation: string, path: string, signal: AbortSignal | undefined): Promise<Found> {
    if (path === "/") throw failure("is_a_directory", operation, path);
    const found = await this.#head(this.#key(path), signal);
    if (found !== null) return found;
    if (await this.#isDirNow(path, signal)) throw failure("is_a_directory", operation, path);
    throw failure("not_found", operation, path);
  }

  /** A directory whose last entry is about to go stays one: it needs its marker now. */
  async #keepDir(path: string, signal: AbortSignal | undefined): Promise<void> {
    if (path === "/" || this.#dirs.get(path) === "marked") return;
    await putWhole(this.#connection, this.#dirKey(path), NO_BYTES, signal);
    this.#dirs.set(path, "marked");
  }

  async #deleteKey(key: string, signal: AbortSignal | undefined): Promise<void> {
    const connection = this.#connection;
    await connection.call(
      "delete",
      key,
      0,
      signal,
      ({ client, sdk, signal }) =>
        client.send(new sdk.DeleteObjectCommand({ Bucket: connection.bucket, Key: key }), { abortSignal: signal }),
    );
  }

  read(path: string, options: ReadOptions = {}): Promise<Uint8Array> {
    return this.#call("read", path, options, async (signal) => {
      const { offset = 0, length } = options;
      if (path === "/" || length === 0) {
        await this.#requireFile("read", path, signal);
        return NO_BYTES.slice();
      }
      try {
        return await getRange(this.#connection, this.#key(path), { offset, length, short: true, signal });
      } catch (error) {
        if (!hasCode(error, "not_found")) throw error;
        await this.#requireFile("read", path, signal);
        throw error;
      }
    });
  }

  openRead(path: string, options: ReadOptions = {}): Promise<ReadableStream<Uint8Array>> {
    return this.#call("read", path, options, async (signal) => {
      const found = await this.#requireFile("read", path, signal);
      const offset = Math.min(options.offset ?? 0, found.size);
      const size = Math.min(options.length ?? Infinity, found.size - offset);
      return streamRange(this.#connection, this.#key(path), { offset, size, etag: found.etag, signal });
    });
  }

  exists(path: string, options: CallOptions = {}): Promise<boolean> {
    return this.#call("exists", path, options, async (signal) => await this.#find(path, signal) !== null);
  }
  stat(path: string, options: CallOptions = {}): Promise<Stat> {
    return this.#call("stat", path, options, async (signal) => {
      const stat = await this.#find(path, signal);
      if (stat === null) throw failure("not_found", "stat", path);
      return stat;
    });
  }

  async #begin(path: string, options: WriteOptions): Promise<ObjectSink> {
    if (options.ifVersion !== undefined && options.ifVersion !== 0) {
      throw new FsError("not_supported", `write ${path}: S3 has no versions to compare`, { operation: "write", path });
    }
    const { signal } = options;
    const exclusive = (options.exclusive ?? false) || options.ifVersion === 0;
    await this.#requireFilePlace("write", path, signal);
    // Asked first too: not every store honours If-None-Match.
    if (exclusive && await this.#head(this.#key(path), signal) !== null) throw failure("already_exists", "write", path);
    return new ObjectSink(this.#connection, this.#key(path), { signal, conditions: { absent: exclusive } });
  }
  async #commit(path: string, sink: ObjectSink, exclusive: boolean): Promise<Stat> {
    if (!exclusive) await sink.finish();
    else {
      // Ceph takes no conditions at the end of a multipart upload: at least within this process exclusive writers queue.
      await this.#serial.run(path, async () => {
        if (await this.#head(this.#key(path), undefined) !== null) throw failure("already_exists", "write", path);
        try {
          await sink.finish();
        } catch (error) {
          throw hasCode(error, "conflict") ? failure("already_exists", "write", path) : error;
        }
      });
    }
    return fileStat(await this.#requireFile("write", path, undefined));
  }

  write(path: string, data: Uint8Array, options: WriteOptions = {}): Promise<Stat> {
    return this.#call("write", path, options, async () => {
      const exclusive = (options.exclusive ?? false) || options.ifVersion === 0;
      const sink = await this.#begin(path, options);
      try {
        await sink.write(data);
        return await this.#commit(path, sink, exclusive);
      } catch (error) {
        await sink.abort();
        throw error;
      }
    });
  }

  openWrite(path: string, options: WriteOptions = {}): Promise<FileWriter> {
    return this.#call("write", path, options, async () => {
      const exclusive = (options.exclusive ?? false) || options.ifVersion === 0;
      const sink = await this.#begin(path, options);
      return makeFileWriter(path, {
        write: (chunk) => sink.write(chunk),
        commit: () => this.#call("write", path, undefined, () => this.#commit(path, sink, exclusive)),
        discard: () => sink.abort(),
      }, options.signal);
    });
  }

  /** Replaces the object by one made of its own first `keep` bytes and what `rest` adds. */
  async #rebuild(
    path: string,
    found: Found | null,
    keep: number,
    rest: (sink: ObjectSink) => Promise<void>,
    signal: AbortSignal | undefined,
  ): Promise<Stat> {
    const key = this.#key(path);
    const conditions = found === null ? { absent: true } : { etag: found.etag };
    const sink = new ObjectSink(this.#connection, key, { signal, conditions });
    try {
      if (found !== null && keep >= MIN_PART) await sink.beginWithCopy(key, keep, found.etag);
      else if (found !== null && keep > 0) {
        await sink.write(await getRange(this.#connection, key, { length: keep, etag: found.etag, signal }));
      }
      await rest(sink);
      await sink.finish();
    } catch (error) {
      await sink.abort();
      throw error;
    }
    return fileStat(await this.#requireFile("write", path, signal));
  }

  /** Again when another process was faster. In this process changes of one object queue. */
  #retrying<T>(path: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    return this.#serial.run(path, async () => {
      for (let attempt = 1;; attempt++) {
        try {
          return await work();
        } catch (error) {
          if (!hasCode(error, "conflict") || attempt >= RETRIES) throw error;
          await this.#clock.sleep(this.#random.unit() * 20 * attempt, signal);
        }
      }
    });
  }

  append(path: string, data: Uint8Array, options: CallOptions = {}): Promise<Stat> {
    return this.#call("append", path, options, async (signal) => {
      await this.#requireFilePlace("append", path, signal);
      return await this.#retrying(path, signal, async () => {
        const found = await this.#head(this.#key(path), signal);
        if (found !== null && data.length === 0) return fileStat(found);
        return await this.#rebuild(path, found, found?.size ?? 0, (sink) => sink.write(data), signal);
      });
    });
  }

  truncate(path: string, size: number, options: CallOptions = {}): Promise<Stat> {
    return this.#call("truncate", path, options, async (signal) => {
      if (!Number.isSafeInteger(size) || size < 0) {
        throw new FsError("invalid_input", `truncate ${path}: ${size} is not a size`, { operation: "truncate", path });
      }
      return await this.#retrying(path, signal, async () => {
        const found = await this.#requireFile("truncate", path, signal);
        if (found.size === size) return fileStat(found);
        return await this.#rebuild(path, found, Math.min(size, found.size), async (sink) => {
          for (let left = size - found.size; left > 0; left -= STREAM_ZEROS.length) {
            await sink.write(left < STREAM_ZEROS.length ? STREAM_ZEROS.subarray(0, left) : STREAM_ZEROS);
          }
        }, signal);
      });
    });
  }

  /** A server-side copy; keys in full. */
  async #copyKey(from: string, to: string, size: number, signal: AbortSignal | undefined): Promise<void> {
    const connection = this.#connection;
    if (size > COPY_MAX) {
      const upload = await PartedUpload.begin(connection, to, signal);
      try {
        await upload.copy(from, 0, size);
        await upload.complete();
      } catch (error) {
        await upload.abort();
        throw error;
      }
      return;
    }
    await connection.call("copy", from, size, signal, ({ client, sdk, signal }) =>
      client.send(
        new sdk.CopyObjectCommand({
          Bucket: connection.bucket,
          Key: to,
          CopySource: copySource(connection.bucket, from),
        }),
        { abortSignal: signal },
      ));
  }

  copy(from: string, to: string, options: CallOptions = {}): Promise<Stat> {
    return this.#call("copy", from, options, async (signal) => {
      requireNormal(to);
      const found = await this.#requireFile("copy", from, signal);
      if (from === to) return fileStat(found);
      await this.#requireFilePlace("copy", to, signal);
      await this.#copyKey(this.#key(from), this.#key(to), found.size, signal);
      return fileStat(await this.#requireFile("copy", to, signal));
    });
  }

  rename(from: string, to: string, options: CallOptions = {}): Promise<void> {
    return this.#call("rename", from, options, async (signal) => {
      requireNormal(to);
      if (from === "/" || to === "/") {
        throw new FsError("invalid_input", "rename: not the root itself", { operation: "rename", path: from });
      }
      const source = await this.#find(from, signal);
      if (source === null) throw failure("not_found", "rename", from);
      const isDir = (source.mode & S_IFDIR) !== 0;
      if (from === to) return;
      if (isDir && isWithin(to, from)) {
        throw new FsError("invalid_input", `rename ${from}: a directory can't be moved into itself (${to})`, {
          operation: "rename",
          path: from,
        });
      }
      await this.#requireParent("rename", to, signal);
      const target = await this.#find(to, signal);
      if (target !== null) {
        const onDir = (target.mode & S_IFDIR) !== 0;
        if (onDir && !isDir) throw failure("is_a_directory", "rename", to);
        if (!onDir && isDir) throw failure("not_a_directory", "rename", to);
        if (onDir && await this.#hasEntries(to, signal)) throw failure("directory_not_empty", "rename", to);
      }
      await this.#keepDir(dirname(from), signal);
      if (isDir) await this.#moveTree(from, to, signal);
      else {
        await this.#copyKey(this.#key(from), this.#key(to), source.size, signal);
        await this.#deleteKey(this.#key(from), signal);
      }
    });
  }
  async #moveTree(from: string, to: string, signal: AbortSignal | undefined): Promise<void> {
    const source = this.#dirKey(from);
    const target = this.#dirKey(to);
    // First every copy, then every deletion: whenever it stops, nothing is lost.
    await each(this.#keysBelow(source, signal), async ({ key, size }) => {
      await this.#copyKey(key, target + key.slice(source.length), size, signal);
    });
    this.#dirs.forgetWithin(from);
    await each(this.#keysBelow(source, signal), ({ key }) => this.#deleteKey(key, signal));
  }

  /** Every object below, markers too. */
  async *#keysBelow(prefix: string, signal: AbortSignal | undefined): AsyncIterable<{ key: string; size: number }> {
    let after: string | undefined;
    while (true) {
      const page = await this.#listPage({ prefix, after, max: this.#connection.pageSize }, signal);
      for (const { Key, Size } of page.Contents ?? []) {
        const key = decodeUrl(Key ?? "");
        // Continued by key: a token may not survive that keys are deleted under way.
        after = key;
        yield { key, size: Size ?? 0 };
      }
      if (page.IsTruncated !== true) return;
    }
  }
  async #hasEntries(path: string, signal: AbortSignal | undefined): Promise<boolean> {
    const prefix = this.#dirKey(path);
    const page = await this.#listPage({ prefix, max: 2 }, signal);
    return (page.Contents ?? []).some(({ Key }) => decodeUrl(Key ?? "") !== prefix);
  }

  removeFile(path: string, options: CallOptions = {}): Promise<void> {
    return this.#call("remove", path, options, async (signal) => {
      await this.#requireFile("remove", path, signal);
      await this.#keepDir(dirname(path), signal);
      await this.#deleteKey(this.#key(path), signal);
    });
  }

  async *readDir(path: string, options: ReadDirOptions = {}): AsyncIterable<DirEntry> {
    const { signal } = options;
    const limit = options.limit ?? Infinity;
    const prefix = await this.#call("list", path, options, () => Promise.resolve(this.#dirKey(path)));
    const after = options.after === undefined
      ? undefined
      : await this.#call("list", path, options, () => this.#resumeKey(path, options.after ?? "", signal));
    let token: string | undefined;
    let seen = after !== undefined;
    let left = limit;
    do {
      // Two more: the directory's own marker and the one we go on after may come along.
      const request = { prefix, delimiter: "/", after, token, max: left + 2 };
      const page = await this.#call("list", path, options, (signal) => this.#listPage(request, signal));
      const entries = pageEntries(page, prefix);
      seen ||= (page.Contents ?? []).length + (page.CommonPrefixes ?? []).length > 0;
      for (const entry of entries) {
        if (entry.name === options.after) continue;
        if (left-- <= 0) return;
        const kind = (entry.stat.mode & S_IFDIR) !== 0 ? "directory" : "file";
        if (limit !== Infinity) this.#lastKinds.set(child(path, entry.name), kind);
        yield entry;
      }
      token = page.IsTruncated === true ? page.NextContinuationToken : undefined;
    } while (token !== undefined && left > 0);
    if (!seen && path !== "/") {
      await this.#call("list", path, options, async (signal) => {
        const file = await this.#head(this.#key(path), signal);
        throw failure(file === null ? "not_found" : "not_a_directory", "list", path);
      });
    }
    if (!seen) await this.#connection.requireBucket(signal);
  }
  /** The key after which the listing goes on past the entry `name`. */
  async #resumeKey(path: string, name: string, signal: AbortSignal | undefined): Promise<string> {
    const at = child(path, name);
    // Unknown and gone by now: taken for a file, which may show entries again, but never leaves one out.
    const isDir =
      (this.#lastKinds.get(at) ?? (await this.#isDirNow(at, signal) ? "directory" : "file")) === "directory";
    return isDir ? this.#dirKey(at) : this.#key(at);
  }

  createDir(path: string, options: CallOptions & { readonly mode?: number } = {}): Promise<Stat> {
    return this.#call("mkdir", path, options, async (signal) => {
      if (path === "/") throw failure("already_exists", "mkdir", path);
      const [, found] = await Promise.all([this.#requireParent("mkdir", path, signal), this.#find(path, signal)]);
      if (found !== null) throw failure("already_exists", "mkdir", path);
      try {
        await putWhole(this.#connection, this.#dirKey(path), NO_BYTES, signal, { absent: true });
      } catch (error) {
        if (hasCode(error, "conflict")) throw failure("already_exists", "mkdir", path);
        throw error;
      }
      this.#dirs.set(path, "marked");
      return dirStat();
    });
  }
  createDirAll(path: string, options: CallOptions & { readonly mode?: number } = {}): Promise<void> {
    return this.#call("mkdir", path, options, async (signal) => {
      let at = "/";
      for (const name of split(path)) {
        at = child(at, name);
        if (await this.#isDir(at, signal)) continue;
        if (await this.#head(this.#key(at), signal) !== null) throw failure("already_exists", "mkdir", at);
        await this.#keepDir(at, signal);
      }
    });
  }
  removeDir(path: string, options: CallOptions = {}): Promise<void> {
    return this.#call("rmdir", path, options, async (signal) => {
      if (path === "/") throw new FsError("invalid_input", "rmdir: not the root itself", { operation: "rmdir", path });
      const found = await this.#find(path, signal);
      if (found === null) throw failure("not_found", "rmdir", path);
      if ((found.mode & S_IFDIR) === 0) throw failure("not_a_directory", "rmdir", path);
      if (await this.#hasEntries(path, signal)) throw failure("directory_not_empty", "rmdir", path);
      await this.#keepDir(dirname(path), signal);
      this.#dirs.forgetWithin(path);
      await this.#deleteKey(this.#dirKey(path), signal);
    });
  }
  removeDirAll(path: string, options: CallOptions = {}): Promise<void> {
    return this.#call("remove", path, options, async (signal) => {
      if (path !== "/") {
        if (await this.#find(path, signal) === null) return;
        await this.#keepDir(dirname(path), signal);
      }
      this.#dirs.forgetWithin(path);
      await each(this.#keysBelow(this.#dirKey(path), signal), ({ key }) => this.#deleteKey(key, signal));
      if (path !== "/") await this.#deleteKey(this.#key(path), signal);
    });
  }

  close(): Promise<void> {
    return this.#connection.close();
  }
}

/** A key as EncodingType=url writes it: Amazon writes a space as `+`, others as `%20`. */
function decodeUrl(key: string): string {
  return decodeURIComponent(key.replaceAll("+", " "));
}

/** Files and directories of one page in the order of their keys, which is S3's own. */
function pageEntries(
  page: Pick<ListObjectsV2CommandOutput, "Contents" | "CommonPrefixes">,
  prefix: string,
): DirEntry[] {
  const entries: { key: string; name: string; stat: Stat }[] = [];
  const add = (key: string, name: string, stat: Stat) => {
    const decoded = unescapeKey(name);
    try {
      checkName(decoded);
    } catch {
      // A key that no path can name, such as `a//b`: others may have put it there.
      return;
    }
    entries.push({ key, name: decoded, stat });
  };
  const directories = new Set((page.CommonPrefixes ?? []).map(({ Prefix }) => Prefix));
  for (const { Key, Size, LastModified } of page.Contents ?? []) {
    if (directories.has(`${Key}/`)) continue;
    const key = decodeUrl(Key ?? "");
    const stat = fileStat({ size: Size ?? 0, etag: undefined, mtimeSec: seconds(LastModified) });
    if (key !== prefix) add(key, key.slice(prefix.length), stat);
  }
  for (const { Prefix } of page.CommonPrefixes ?? []) {
    const key = decodeUrl(Prefix ?? "");
    add(key, key.slice(prefix.length, -1), dirStat());
  }
  return entries.sort((a, b) => compareUtf8(a.key, b.key)).map(({ name, stat }) => ({ name, stat }));
}

/** The order of the UTF-8 bytes: UTF-16's but for surrogates, which stand for what sorts last. */
function compareUtf8(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    let x = a.charCodeAt(i);
    let y = b.charCodeAt(i);
    if (x === y) continue;
    if (x >= 0xd800 && x < 0xe000) x += 0x10000;
    if (y >= 0xd800 && y < 0xe000) y += 0x10000;
    return x - y;
  }
  return a.length - b.length;
}

/** The store speaks of keys; the caller asked about a path. */
function reword(failed: FsError, operation: string, path: string): FsError {
  if (failed.code !== "not_found" || failed.details.path === path) return failed;
  return failure("not_found", operation, path, { cause: failed });
}

/** Opens nothing yet: the SDK is loaded, and the bucket met, at the first request. Throws invalid_input for bad settings. */
export function openS3Backend(options: S3BackendOptions): S3Backend {
  return new S3Backend(options);
}
