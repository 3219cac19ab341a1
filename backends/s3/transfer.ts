/**
 * Bytes to and from S3: whole and multipart uploads with bounded memory that leave no parts behind, exact ranged reads.
 *
 * lib-storage's Upload is not used: it has no deadline for a part, can't mix uploaded and server-side copied parts (append
 * needs that), and may leave parts when it is aborted while some are in flight.
 */
import type { CompletedPart, GetObjectCommandOutput } from "@aws-sdk/client-s3";
import { hasCode } from "../../core/fs/error.ts";
import { shortObject } from "../../core/fs/object_store.ts";
import { systemRandom } from "../../core/platform/random.ts";
import { contentMd5, MIB, type S3Connection, statusOf } from "./connection.ts";

/** Most parts of one upload (S3 limit 10,000). */
const MAX_PARTS = 10_000;
/** Longest piece of a server-side copy of a part. S3's limit is 5 GiB; smaller ones keep within the deadline. */
const COPY_PIECE = 256 * MIB;
/** Smallest part that is not the last (S3 limit). */
export const MIN_PART = 5 * MIB;

export interface PutConditions {
  /** Only when there is no such object. */
  readonly absent?: boolean;
  /** Only when the object still has this ETag. */
  readonly etag?: string | undefined;
}

/** The precondition headers; an ETag with its quotes or without. */
function conditionHeaders(
  conditions: PutConditions,
  etag = conditions.etag,
): { IfNoneMatch?: string; IfMatch?: string } {
  if (conditions.absent) return { IfNoneMatch: "*" };
  return etag === undefined ? {} : { IfMatch: etag };
}

/** The metadata by which a write recognises its own work. */
const WRITE_TOKEN = "anyfs-write";

/**
 * Did the write with this token happen? A request whose answer was lost is repeated by the runtime and by the SDK; the
 * repeated one then fails on what the first has done, which is no failure.
 */
async function isDone(connection: S3Connection, key: string, token: string, signal: AbortSignal | undefined) {
  return await connection.call("put", key, 0, signal, async ({ client, sdk, signal }) => {
    const found = await client.send(new sdk.HeadObjectCommand({ Bucket: connection.bucket, Key: key }), {
      abortSignal: signal,
    });
    return found.Metadata?.[WRITE_TOKEN] === token;
  }).catch(() => false);
}

/** One PUT of a whole object. `key` is the full key in the bucket. Throws conflict when the conditions are not met. */
export async function putWhole(
  connection: S3Connection,
  key: string,
  bytes: Uint8Array,
  signal: AbortSignal | undefined,
  conditions: PutConditions = {},
): Promise<void> {
  const conditional = conditions.absent === true || conditions.etag !== undefined;
  const token = systemRandom.uuid();
  const put = (etag?: string) =>
    connection.call("put", key, bytes.length, signal, ({ client, sdk, signal }) =>
      client.send(
        new sdk.PutObjectCommand({
          Bucket: connection.bucket,
          Key: key,
          Body: bytes,
          ContentLength: bytes.length,
          ContentMD5: contentMd5(bytes),
          ...conditionHeaders(conditions, etag),
          ...(conditional ? { Metadata: { [WRITE_TOKEN]: token } } : {}),
        }),
        { abortSignal: signal },
      ));
  // Ceph compares If-Match of a PUT letter by letter with the ETag without quotes; others take both spellings.
  const spellings = conditions.etag === undefined
    ? [undefined]
    : [conditions.etag.replaceAll('"', ""), conditions.etag];
  let failed: unknown;
  for (const etag of spellings) {
    try {
      await put(etag);
      return;
    } catch (error) {
      if (!conditional || !hasCode(error, "conflict")) throw error;
      if (await isDone(connection, key, token, signal)) return;
      failed = error;
    }
  }
  throw failed;
}

/** An upload in parts. At most `parallelParts` are in flight: `part` waits for room. End it with `complete` or `abort`. */
export class PartedUpload {
  readonly #connection: S3Connection;
  readonly #key: string;
  readonly #uploadId: string;
  readonly #signal: AbortSignal | undefined;
  readonly #parts: CompletedPart[] = [];
  readonly #inFlight = new Set<Promise<void>>();
  /** Ends the parts in flight when one of them failed. */
  readonly #stop = new AbortController();
  #next = 1;
  #failure: unknown;

  readonly #token: string;

  private constructor(
    connection: S3Connection,
    key: string,
    uploadId: string,
    token: string,
    signal: AbortSignal | undefined,
  ) {
    this.#connection = connection;
    this.#key = key;
    this.#uploadId = uploadId;
    this.#token = token;
    this.#signal = signal;
  }

  static async begin(connection: S3Connection, key: string, signal: AbortSignal | undefined): Promise<PartedUpload> {
    // Not abortable in mid-air: an upload that S3 has begun and nobody knows the id of could never be cleaned up.
    signal?.throwIfAborted();
    const token = systemRandom.uuid();
    const begun = await connection.call(
      "put",
      key,
      0,
      undefined,
      ({ client, sdk, signal }) =>
        client.send(
          new sdk.CreateMultipartUploadCommand({
            Bucket: connection.bucket,
            Key: key,
            Metadata: { [WRITE_TOKEN]: token },
          }),
          { abortSignal: signal },
        ),
    );
    return new PartedUpload(connection, key, begun.UploadId ?? "", token, signal);
  }

  get count(): number {
    return this.#next - 1;
  }

  async #run(send: (part: number, signal: AbortSignal) => Promise<string | undefined>): Promise<void> {
    while (this.#inFlight.size >= this.#connection.parallelParts) await Promise.race(this.#inFlight);
    if (this.#failure !== undefined) throw this.#failure;
    this.#signal?.throwIfAborted();
    const part = this.#next++;
    const signal = this.#signal === undefined ? this.#stop.signal : AbortSignal.any([this.#stop.signal, this.#signal]);
    const work = send(part, signal).then(
      (etag) => {
        this.#parts.push({ PartNumber: part, ETag: etag });
      },
      (error) => {
        this.#failure ??= error;
        this.#stop.abort();
      },
    ).finally(() => this.#inFlight.delete(work));
    this.#inFlight.add(work);
  }

  /** Queues a part; every part but the last has at least MIN_PART bytes. `bytes` must not be changed afterwards. */
  part(bytes: Uint8Array): Promise<void> {
    return this.#run((part, signal) =>
      this.#connection.call("put", this.#key, bytes.length, signal, async ({ client, sdk, signal }) => {
        const sent = await client.send(
          new sdk.UploadPartCommand({
            Bucket: this.#connection.bucket,
            Key: this.#key,
            UploadId: this.#uploadId,
            PartNumber: part,
            Body: bytes,
            ContentLength: bytes.length,
            ContentMD5: contentMd5(bytes),
          }),
          { abortSignal: signal },
        );
        return sent.ETag;
      })
    );
  }

  /** Queues bytes [start, end) of another object (of that version), copied by the server. At least MIN_PART unless last. */
  async copy(from: string, start: number, end: number, etag?: string): Promise<void> {
    const pieces = Math.max(1, Math.ceil((end - start) / COPY_PIECE));
    // Equal pieces: a rest of some bytes would be below S3's smallest part.
    const piece = Math.ceil((end - start) / pieces);
    for (let at = start; at < end; at += piece) {
      const last = Math.min(end, at + piece) - 1;
      await this.#run((part, signal) =>
        this.#connection.call("copy", this.#key, COPY_PIECE, signal, async ({ client, sdk, signal }) => {
          const sent = await client.send(
            new sdk.UploadPartCopyCommand({
              Bucket: this.#connection.bucket,
              Key: this.#key,
              UploadId: this.#uploadId,
              PartNumber: part,
              CopySource: copySource(this.#connection.bucket, from),
              CopySourceRange: `bytes=${at}-${last}`,
              ...(etag === undefined ? {} : { CopySourceIfMatch: etag }),
            }),
            { abortSignal: signal },
          );
          return sent.CopyPartResult?.ETag;
        })
      );
    }
  }

  async complete(conditions: PutConditions = {}): Promise<void> {
    await Promise.all(this.#inFlight);
    if (this.#failure !== undefined) throw this.#failure;
    this.#signal?.throwIfAborted();
    this.#parts.sort((a, b) => (a.PartNumber ?? 0) - (b.PartNumber ?? 0));
    await this.#connection.call("complete", this.#key, 0, this.#signal, ({ client, sdk, signal }) =>
      client.send(
        new sdk.CompleteMultipartUploadCommand({
          Bucket: this.#connection.bucket,
          Key: this.#key,
          UploadId: this.#uploadId,
          MultipartUpload: { Parts: this.#parts },
          ...conditionHeaders(conditions),
        }),
        { abortSignal: signal },
      )).catch(async (error) => {
        if (!await isDone(this.#connection, this.#key, this.#token, this.#signal)) throw error;
      });
  }

  /** Removes every part that was uploaded. Never throws: the failure that led here is the one to report. */
  async abort(): Promise<void> {
    this.#stop.abort();
    // A part that arrives after the abort would stay: wait until none is in flight.
    await Promise.allSettled(this.#inFlight);
    await this.#connection.call("abort", this.#key, 0, undefined, ({ client, sdk, signal }) =>
      client.send(
        new sdk.AbortMultipartUploadCommand({
          Bucket: this.#connection.bucket,
          Key: this.#key,
          UploadId: this.#uploadId,
        }),
        { abortSignal: signal },
      )).catch(() => {});
  }
}

/** `bucket/key` as the x-amz-copy-source header wants it. */
export function copySource(bucket: string, key: string): string {
  return `${bucket}/${key.split("/").map(encodeURIComponent).join("/")}`;
}

/**
 * A sink that stores what it is given as one object: in one PUT up to `partSize`, in parts beyond. Memory is bounded by
 * (parallelParts + 1) parts; parts double every 2000, so that objects of unknown size reach 500 GB within S3's 10,000.
 */
export class ObjectSink {
  readonly #connection: S3Connection;
  readonly #key: string;
  readonly #signal: AbortSignal | undefined;
  readonly #conditions: PutConditions;
  readonly #firstPart: number;
  #upload: PartedUpload | undefined;
  #buffer: Uint8Array<ArrayBuffer>;
  #filled = 0;
  #size = 0;

  constructor(
    connection: S3Connection,
    key: string,
    options: { signal?: AbortSignal | undefined; conditions?: PutConditions; expectedSize?: number },
  ) {
    this.#connection = connection;
    this.#key = key;
    this.#signal = options.signal;
    this.#conditions = options.conditions ?? {};
    const expected = options.expectedSize;
    this.#firstPart = Math.max(connection.partSize, Math.ceil((expected ?? 0) / (MAX_PARTS - 1)));
    this.#buffer = new Uint8Array(expected === undefined ? 65536 : Math.min(this.#firstPart, Math.max(1, expected)));
  }

  /** Bytes taken so far. */
  get size(): number {
    return this.#size;
  }

  #partSize(): number {
    return this.#firstPart * 2 ** Math.floor((this.#upload?.count ?? 0) / 2000);
  }

  /** Begins with bytes of an existing object, copied by the server. Only as the first thing, of MIN_PART or more. */
  async beginWithCopy(from: string, length: number, etag: string | undefined): Promise<void> {
    this.#upload = await PartedUpload.begin(this.#connection, this.#key, this.#signal);
    await this.#upload.copy(from, 0, length, etag);
    this.#size += length;
  }

  async write(chunk: Uint8Array): Promise<void> {
    let rest = chunk;
    while (rest.length > 0) {
      const goal = this.#partSize();
      if (this.#filled >= goal) {
        await this.#flush();
        continue;
      }
      const take = rest.subarray(0, goal - this.#filled);
      if (this.#filled + take.length > this.#buffer.length) {
        const grown = new Uint8Array(Math.min(goal, Math.max(this.#buffer.length * 2, this.#filled + take.length)));
        grown.set(this.#buffer.subarray(0, this.#filled));
        this.#buffer = grown;
      }
      this.#buffer.set(take, this.#filled);
      this.#filled += take.length;
      this.#size += take.length;
      rest = rest.subarray(take.length);
    }
  }

  async #flush(): Promise<void> {
    this.#upload ??= await PartedUpload.begin(this.#connection, this.#key, this.#signal);
    const bytes = this.#buffer.subarray(0, this.#filled);
    this.#buffer = new Uint8Array(this.#partSize());
    this.#filled = 0;
    await this.#upload.part(bytes);
  }

  /** The object is there, whole. */
  async finish(): Promise<void> {
    if (this.#upload === undefined) {
      await putWhole(
        this.#connection,
        this.#key,
        this.#buffer.subarray(0, this.#filled),
        this.#signal,
        this.#conditions,
      );
      return;
    }
    if (this.#filled > 0) await this.#flush();
    await this.#upload.complete(this.#conditions);
  }

  /** Nothing of it stays. Safe in every state; never throws. */
  async abort(): Promise<void> {
    await this.#upload?.abort();
    this.#buffer = new Uint8Array(0);
    this.#filled = 0;
  }
}

interface Body extends AsyncIterable<Uint8Array> {
  destroy?(error?: Error): void;
}

function asBody(body: unknown): Body {
  if (typeof body === "object" && body !== null && Symbol.asyncIterator in body) return body as Body;
  throw new TypeError("the S3 client returned no readable body");
}

export interface RangeRequest {
  /** @default 0 */
  readonly offset?: number;
  /** 1 or more. @default to the end */
  readonly length?: number | undefined;
  /** Fewer bytes, down to none, when the object ends before. @default false: that is `corrupt` */
  readonly short?: boolean;
  /** Only from the version with this ETag; `conflict` when it was replaced. */
  readonly etag?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Exactly the bytes asked for. Throws not_found, corrupt when the object holds fewer, conflict. `key` is the full key. */
export function getRange(
  connection: S3Connection,
  key: string,
  request: RangeRequest,
): Promise<Uint8Array<ArrayBuffer>> {
  const offset = request.offset ?? 0;
  const { length, etag } = request;
  const range = length === undefined
    ? (offset === 0 ? undefined : `bytes=${offset}-`)
    : `bytes=${offset}-${offset + length - 1}`;
  return connection.call("get", key, length ?? 0, request.signal, async ({ client, sdk, signal, alive }) => {
    let answer: GetObjectCommandOutput;
    try {
      answer = await client.send(
        new sdk.GetObjectCommand({
          Bucket: connection.bucket,
          Key: key,
          // Else fetch would unpack what somebody stored with Content-Encoding gzip.
          ResponseContentEncoding: "identity",
          ...(range === undefined ? {} : { Range: range }),
          ...(etag === undefined ? {} : { IfMatch: etag }),
        }),
        { abortSignal: signal },
      );
    } catch (error) {
      // 416: nothing of the object is at or after the offset.
      if (request.short && statusOf(error) === 416) return new Uint8Array(0);
      throw error;
    }
    const body = asBody(answer.Body);
    const destroy = () => body.destroy?.();
    signal.addEventListener("abort", destroy, { once: true });
    const total = Number(/\/(\d+)$/.exec(answer.ContentRange ?? "")?.[1] ?? answer.ContentLength);
    if (!Number.isSafeInteger(total)) {
      destroy();
      throw new Error("the answer does not tell the size of the object");
    }
    if (length !== undefined && total < offset + length && !request.short) {
      destroy();
      throw shortObject(key, total, offset + length);
    }
    const out = new Uint8Array(Math.max(0, Math.min(length ?? Infinity, total - offset)));
    let done = 0;
    for await (const chunk of body) {
      alive();
      if (done + chunk.length > out.length) {
        destroy();
        throw new Error(`the answer has more bytes than the ${out.length} asked for`);
      }
      out.set(chunk, done);
      done += chunk.length;
    }
    signal.throwIfAborted();
    if (done === out.length) return out;
    throw Object.assign(new Error(`the connection ended after ${done} of ${out.length} bytes`), { code: "ECONNRESET" });
  });
}

/**
 * A stream of the object's bytes [offset, offset + size), fetched by ranged reads of `partSize` as it is consumed: a slow
 * consumer holds no connection, and a piece has the deadline of any other request. All pieces come from one version of the
 * object: a change in between errors the stream with `conflict`.
 */
export function streamRange(
  connection: S3Connection,
  key: string,
  options: {
    readonly offset: number;
    readonly size: number;
    readonly etag?: string | undefined;
    readonly signal?: AbortSignal | undefined;
  },
): ReadableStream<Uint8Array> {
  const { etag, signal } = options;
  const end = options.offset + options.size;
  let at = options.offset;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      if (at >= end) {
        controller.close();
        return;
      }
      const length = Math.min(connection.partSize, end - at);
      const bytes = await getRange(connection, key, { offset: at, length, etag, signal });
      at += length;
      controller.enqueue(bytes);
    },
  }, { highWaterMark: 0 });
}
