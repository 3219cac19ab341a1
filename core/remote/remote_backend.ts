/** RemoteBackend: a server's tree as a Backend, over plain HTTP. Every change carries a key, so a retry never doubles it. */
import type {
  Backend,
  BackendTraits,
  CallOptions,
  FileTime,
  FileWriter,
  FsFull,
  FsXattr,
  ReadDirOptions,
  ReadOptions,
  StatFs,
  WriteOptions,
} from "../fs/contract.ts";
import { FsError, hasCode, toFsError } from "../fs/error.ts";
import type { DirEntry, Stat } from "../fs/stat.ts";
import type { Clock } from "../platform/clock.ts";
import { openPeer } from "../platform/sockets.ts";
import { type Random, systemRandom } from "../platform/random.ts";
import { parseServerUrl } from "./address.ts";
import { type HttpAnswer, HttpClient, type HttpRequest } from "./http_client.ts";
import { checkPath, encodeUrlPath } from "./url_path.ts";

export interface RemoteBackendOptions {
  /** `http(s)://host:port`. */
  readonly url: string;
  readonly token: string | null;
  readonly clock: Clock;
  readonly random?: Random;
  /** PEM texts of certificates trusted besides the system's. */
  readonly caCerts?: readonly string[];
  /** Waits before each further try of what may be repeated, milliseconds. @default [100, 400, 1500] */
  readonly retryDelays?: readonly number[];
}

const DEFAULT_DELAYS: readonly number[] = [100, 400, 1500];
const PAGE = 1000;

export const REMOTE_TRAITS: BackendTraits = {
  backend: "remote",
  caseSensitive: true,
  bytesInNames: true,
  emptyDirs: true,
  atomicRename: true,
  permissions: true,
  mtimePrecisionNs: 1,
  notes: ["an append carries at most 64 MiB: it is applied whole or not at all"],
};

/** Throws invalid_input for a bad URL; the server is met at the first use. */
export function openRemoteBackend(options: RemoteBackendOptions): RemoteBackend {
  return new RemoteBackend(options);
}

const signalOf = (options: CallOptions | undefined) => options?.signal === undefined ? {} : { signal: options.signal };

export class RemoteBackend implements Backend, FsFull, FsXattr {
  readonly traits = REMOTE_TRAITS;
  readonly http: HttpClient;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #delays: readonly number[];
  readonly #closePeer: () => void;

  constructor(options: RemoteBackendOptions) {
    const peer = openPeer(options.caCerts === undefined ? {} : { caCerts: options.caCerts });
    this.#closePeer = () => peer.close();
    this.#clock = options.clock;
    this.#random = options.random ?? systemRandom;
    this.#delays = options.retryDelays ?? DEFAULT_DELAYS;
    this.http = new HttpClient({
      peer,
      url: parseServerUrl(options.url),
      token: options.token,
      clock: options.clock,
    });
  }

  /**
   * Sends a request that may be sent again: at once reads, by an idempotency key changes. Repeats it when nobody answered
   * or the server said to come back.
   */
  async send(request: HttpRequest, accept: readonly number[] = []): Promise<HttpAnswer> {
    for (let attempt = 0;; attempt++) {
      try {
        return await this.http.request(request, accept);
      } catch (error) {
        const failure = toFsError(error);
        const delay = this.#delays[attempt];
        const passing = failure.code === "unavailable" || failure.code === "rate_limited" ||
          (failure.code === "timeout" && request.method === "GET");
        if (delay === undefined || !passing) throw failure;
        await this.#clock.sleep(delay * (0.75 + this.#random.unit() / 2), request.signal);
      }
    }
  }

  /** A change's key. */
  #key(): Record<string, string> {
    return { "idempotency-key": this.#random.uuid() };
  }

  async #call<T>(
    method: string,
    params: Record<string, unknown>,
    options: CallOptions | undefined,
    change: boolean,
  ): Promise<T> {
    const answer = await this.send({
      method: "POST",
      path: `/v1/fs/${method}`,
      headers: { "content-type": "application/json", ...(change && this.#key()) },
      body: JSON.stringify(params),
      signal: options?.signal,
    });
    const { result } = await answer.json() as { result: T };
    return result;
  }
  #read<T>(method: string, params: Record<string, unknown>, options: CallOptions | undefined): Promise<T> {
    return this.#call<T>(method, params, options, false);
  }
  #change<T>(method: string, params: Record<string, unknown>, options: CallOptions | undefined): Promise<T> {
    return this.#call<T>(method, params, options, true);
  }

  // --- reading ---

  async #open(path: string, options: ReadOptions): Promise<HttpAnswer | null> {
    const { offset = 0, length } = options;
    if (length === 0) {
      await this.#head(path, options);
      return null;
    }
    const ranged = offset > 0 || length !== undefined;
    const last = length === undefined ? "" : String(offset + length - 1);
    const answer = await this.send({
      method: "GET",
      path: `/v1/files${encodeUrlPath(checkPath(path))}`,
      headers: { "x-anyfs-nofollow": "1", ...(ranged && { range: `bytes=${offset}-${last}` }) },
      signal: options.signal,
    }, [416]);
    if (answer.status !== 416) return answer;
    // Behind the end there is nothing: that is no failure.
    await answer.bytes();
    return null;
  }
  async #head(path: string, options: CallOptions): Promise<void> {
    await (await this.send({
      method: "GET",
      path: `/v1/files${encodeUrlPath(checkPath(path))}`,
      headers: { "x-anyfs-nofollow": "1", range: "bytes=0-0" },
      signal: options.signal,
    }, [416])).bytes();
  }

  async read(path: string, options: ReadOptions = {}): Promise<Uint8Array> {
    const answer = await this.#open(path, options);
    if (answer === null) return new Uint8Array();
    const announced = answer.headers.get("content-length");
    return await answer.bytes(announced === null ? undefined : Number(announced));
  }

  async openRead(path: string, options: ReadOptions = {}): Promise<ReadableStream<Uint8Array>> {
    const answer = await this.#open(path, options);
    if (answer === null) return new ReadableStream({ start: (controller) => controller.close() });
    const body = answer.body();
    const announced = answer.headers.get("content-length");
    let left = announced === null ? null : Number(announced);
    return new ReadableStream<Uint8Array>({
      async pull(controller) {
        const { done, value } = await body.next();
        if (!done) {
          if (left !== null) left -= value.length;
          controller.enqueue(value);
          return;
        }
        // A short body is never taken for the end of the file.
        if (left !== null && left !== 0) {
          controller.error(new FsError("unavailable", `read ${path}: the connection ended early`, { path }));
        } else controller.close();
      },
      cancel: async () => {
        await body.return(undefined);
      },
    }, { highWaterMark: 0 });
  }

  exists(path: string, options?: CallOptions): Promise<boolean> {
    return this.#read("exists", { path }, options);
  }
  stat(path: string, options?: CallOptions): Promise<Stat> {
    return this.#read("stat", { path }, options);
  }
  lstat(path: string, options?: CallOptions): Promise<Stat> {
    return this.#read("stat", { path }, options);
  }

  async *readDir(path: string, options: ReadDirOptions = {}): AsyncGenerator<DirEntry> {
    let after = options.after ?? null;
    let left = options.limit ?? Infinity;
    while (left > 0) {
      const limit = Math.min(PAGE, left);
      const page: DirEntry[] = await this.#read("readDir", { path, limit, after }, options);
      yield* page;
      const last = page.at(-1);
      if (last === undefined || page.length < limit) return;
      after = last.name;
      left -= page.length;
    }
  }

  // --- writing ---

  #writeHeaders(options: WriteOptions): Record<string, string> {
    const { mode, exclusive, ifVersion } = options;
    return {
      "content-type": "application/octet-stream",
      "x-anyfs-nofollow": "1",
      "x-anyfs-parents": "no",
      ...(mode !== undefined && { "x-anyfs-create-mode": mode.toString(8) }),
      ...(exclusive && { "x-anyfs-exclusive": "1" }),
      ...(ifVersion !== undefined && { "x-anyfs-if-version": String(ifVersion) }),
    };
  }

  async write(path: string, data: Uint8Array, options: WriteOptions = {}): Promise<Stat> {
    const answer = await this.send({
      method: "PUT",
      path: `/v1/files${encodeUrlPath(checkPath(path))}?as=stat`,
      headers: { ...this.#writeHeaders(options), ...this.#key() },
      body: data as Uint8Array<ArrayBuffer>,
      signal: options.signal,
    });
    return await answer.json() as Stat;
  }

  async openWrite(path: string, options: WriteOptions = {}): Promise<FileWriter> {
    await this.#read("mayWrite", { path, exclusive: options.exclusive ? 1 : 0 }, options);
    const cut = new AbortController();
    const signal = options.signal === undefined ? cut.signal : AbortSignal.any([cut.signal, options.signal]);
    const pipe = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>();
    const into = pipe.writable.getWriter();
    const finished = Promise.withResolvers<Stat>();
    finished.promise.catch(() => {});
    let failure: FsError | null = null;
    const fail = (error: unknown) => {
      failure ??= toFsError(error);
      finished.reject(failure);
      cut.abort(failure);
      into.abort(failure).catch(() => {});
    };
    this.http.request({
      method: "PUT",
      path: `/v1/files${encodeUrlPath(checkPath(path))}?as=stat`,
      headers: this.#writeHeaders(options),
      body: pipe.readable,
      signal,
    }).then(async (answer) => finished.resolve(await answer.json() as Stat)).catch(fail);
    const whenFailed = new Promise<never>((_, reject) => finished.promise.catch(reject));
    whenFailed.catch(() => {});
    const writable = new WritableStream<Uint8Array>({
      async write(chunk) {
        if (failure !== null) throw failure;
        if (chunk.length === 0) return;
        // The caller may use its buffer again as soon as this resolves, the network may not be done with it.
        await Promise.race([into.write(chunk.slice()), whenFailed]);
      },
      async close() {
        if (failure !== null) throw failure;
        await Promise.race([into.close(), whenFailed]);
        await finished.promise;
      },
      abort: (reason) => {
        fail(
          reason instanceof Error
            ? toFsError(reason, { path })
            : new FsError("cancelled", `write ${path}: given up`, { path }),
        );
      },
    });
    return { writable, done: finished.promise };
  }

  async append(path: string, data: Uint8Array, options?: CallOptions): Promise<Stat> {
    const answer = await this.send({
      method: "POST",
      path: `/v1/fs/append${encodeUrlPath(checkPath(path))}`,
      headers: { "content-type": "application/octet-stream", ...this.#key() },
      body: data as Uint8Array<ArrayBuffer>,
      signal: options?.signal,
    });
    return (await answer.json() as { result: Stat }).result;
  }
  copy(from: string, to: string, options?: CallOptions): Promise<Stat> {
    return this.#change("copy", { from, to }, options);
  }
  async rename(from: string, to: string, options?: CallOptions): Promise<void> {
    await this.#change("rename", { from, to }, options);
  }
  async removeFile(path: string, options?: CallOptions): Promise<void> {
    await this.#change("removeFile", { path }, options);
  }
  truncate(path: string, size: number, options?: CallOptions): Promise<Stat> {
    return this.#change("truncate", { path, size }, options);
  }
  createDir(path: string, options: CallOptions & { readonly mode?: number } = {}): Promise<Stat> {
    const { mode } = options;
    return this.#change("createDir", { path, mode }, options);
  }
  async createDirAll(path: string, options: CallOptions & { readonly mode?: number } = {}): Promise<void> {
    const { mode } = options;
    await this.#change("createDirAll", { path, mode }, options);
  }
  async removeDir(path: string, options?: CallOptions): Promise<void> {
    await this.#change("removeDir", { path }, options);
  }
  async removeDirAll(path: string, options?: CallOptions): Promise<void> {
    await this.#change("removeDirAll", { path }, options);
  }

  // --- links, attributes ---

  symlink(target: string, path: string, options?: CallOptions): Promise<Stat> {
    return this.#change("symlink", { target, path }, options);
  }
  readLink(path: string, options?: CallOptions): Promise<string> {
    return this.#read("readLink", { path }, options);
  }
  hardLink(existing: string, path: string, options?: CallOptions): Promise<Stat> {
    return this.#change("hardLink", { existing, path }, options);
  }
  async chmod(path: string, mode: number, options?: CallOptions): Promise<void> {
    await this.#change("chmod", { path, mode }, options);
  }
  async chown(path: string, uid: number, gid: number, options?: CallOptions): Promise<void> {
    await this.#change("chown", { path, uid, gid }, options);
  }
  async utimes(path: string, atime: FileTime, mtime: FileTime, options?: CallOptions): Promise<void> {
    await this.#change("utimes", { path, atime, mtime }, options);
  }
  async getXattr(path: string, name: string, options?: CallOptions): Promise<Uint8Array> {
    return Uint8Array.fromBase64(await this.#read<string>("getXattr", { path, name }, options));
  }
  async setXattr(
    path: string,
    name: string,
    value: Uint8Array,
    options: CallOptions & { readonly mode?: "create" | "replace" } = {},
  ): Promise<void> {
    const { mode } = options;
    await this.#change("setXattr", { path, name, value: value.toBase64(), mode }, options);
  }
  listXattr(path: string, options?: CallOptions): Promise<string[]> {
    return this.#read("listXattr", { path }, options);
  }
  async removeXattr(path: string, name: string, options?: CallOptions): Promise<void> {
    await this.#change("removeXattr", { path, name }, options);
  }

  // --- the whole ---

  async sync(path: string, options?: CallOptions): Promise<void> {
    await this.#change("sync", { path }, options);
  }
  async syncAll(options?: CallOptions): Promise<void> {
    await this.#change("syncAll", {}, options);
  }
  statFs(options?: CallOptions): Promise<StatFs> {
    return this.#read("statFs", {}, options);
  }

  /** A JSON answer of any GET address, for the commands. */
  async getJson(path: string, options?: CallOptions): Promise<unknown> {
    return await (await this.send({ method: "GET", path, ...signalOf(options) })).json();
  }
  /** Of any POST address; not repeated. */
  async postJson(path: string, body: unknown, options?: CallOptions): Promise<unknown> {
    const answer = await this.http.request({
      method: "POST",
      path,
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      ...signalOf(options),
    });
    return await answer.json();
  }

  // deno-lint-ignore require-await
  async close(): Promise<void> {
    this.#closePeer();
  }
}

/** Is this failure one of the connection, not of the request? */
export function isConnectionFailure(error: unknown): boolean {
  return hasCode(error, "unavailable") || hasCode(error, "timeout");
}
