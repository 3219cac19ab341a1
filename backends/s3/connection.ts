/**
 * A connection to one S3 bucket: settings, the lazily loaded AWS SDK, a deadline for every request, and S3's failures as
 * FsError that say what to do.
 */
import { createHash } from "node:crypto";
import type * as Sdk from "@aws-sdk/client-s3";
import { Errno, FsError, type FsErrorCode, toFsError } from "../../core/fs/error.ts";
import { type Clock, systemClock } from "../../core/platform/clock.ts";
import { type HttpClient, openHttpClient } from "../../core/platform/http_client.ts";

export interface S3Settings {
  readonly bucket: string;
  /** URL of an S3-compatible server. @default Amazon's, by region */
  readonly endpoint?: string;
  /** @default what the AWS configuration says, "us-east-1" with an endpoint */
  readonly region?: string;
  /** Put before every key, for example "home/"; a missing slash at its end is added. @default "" */
  readonly prefix?: string;
  /** Bucket in the path instead of the host name. @default true with an endpoint */
  readonly forcePathStyle?: boolean;
  /** Profile of the shared AWS files. Credentials come from the standard chain: environment, profile, SSO, role ... */
  readonly profile?: string;
  /** Fixed credentials instead of the chain; for tests and generated configurations. */
  readonly accessKeyId?: string;
  readonly secretAccessKey?: string;
  /** Where these settings come from, for messages. @default "[tiers.s3]" */
  readonly section?: string;
  /** Longest time for one request, milliseconds, plus its bytes at `minBytesPerSec`. @default 15000 */
  readonly requestTimeoutMs?: number;
  /** The slowest line that is not taken for a dead one, bytes a second and request. @default 32768 */
  readonly minBytesPerSec?: number;
  /** Tries of the SDK itself; the rest is the caller's policy. @default 2 */
  readonly maxAttempts?: number;
  /** Bytes of a part of a multipart upload, at least 5 MiB. @default 8 MiB */
  readonly partSize?: number;
  /** Parts in flight in one upload. With `partSize` this bounds its memory. @default 4 */
  readonly parallelParts?: number;
  /** Objects on one page of a listing, 1..1000. @default 1000 */
  readonly pageSize?: number;
  readonly clock?: Clock;
}

/** The SDK, loaded at first use: it costs 25 ms at start and most commands never need it. */
export type S3Sdk = typeof Sdk;
export interface S3Call {
  readonly client: Sdk.S3Client;
  readonly sdk: S3Sdk;
  readonly signal: AbortSignal;
  /** The far side showed life: the deadline starts again. */
  alive(): void;
}

export const MIB = 1 << 20;

/** Content-MD5 of a body: the server refuses what was damaged on the way (RFC 1864). */
export function contentMd5(bytes: Uint8Array): string {
  return createHash("md5").update(bytes).digest("base64");
}

interface SdkFailure {
  readonly name: string;
  readonly message: string;
  readonly code?: string;
  readonly $metadata?: { readonly httpStatusCode?: number };
}

function asSdkFailure(error: unknown): SdkFailure {
  if (error instanceof Error) return error;
  return { name: "", message: String(error) };
}

/** HTTP status of a failed request, 0 when there was no answer. */
export function statusOf(error: unknown): number {
  return asSdkFailure(error).$metadata?.httpStatusCode ?? 0;
}

/** The size a HEAD tells. A missing one is no empty object. */
export function sizeOf(contentLength: number | undefined, key: string): number {
  if (contentLength !== undefined) return contentLength;
  throw new FsError("internal", `stat ${key}: the server does not tell the size of the object`, { path: key });
}

const DENIED = new Set([
  "AccessDenied",
  "AllAccessDisabled",
  "ExpiredToken",
  "Forbidden",
  "InvalidAccessKeyId",
  "InvalidToken",
  "RequestTimeTooSkewed",
  "SignatureDoesNotMatch",
  "TokenRefreshRequired",
]);
const UNREACHABLE = new Set([
  "EAI_AGAIN",
  "ECONNABORTED",
  "ECONNREFUSED",
  "ECONNRESET",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "EPIPE",
  "ERR_STREAM_PREMATURE_CLOSE",
  "ETIMEDOUT",
]);

export class S3Connection {
  readonly settings: S3Settings;
  readonly bucket: string;
  /** "" or ends with a slash. */
  readonly prefix: string;
  readonly endpoint: string;
  readonly partSize: number;
  readonly parallelParts: number;
  readonly pageSize: number;
  readonly #clock: Clock;
  #opened: Promise<{ client: Sdk.S3Client; sdk: S3Sdk; http: HttpClient }> | undefined;
  #bucketSeen = false;

  constructor(settings: S3Settings) {
    const section = settings.section ?? "[tiers.s3]";
    if (settings.bucket === "") throw new FsError("invalid_input", `${section} bucket is empty: name a bucket`);
    if (settings.endpoint !== undefined && !/^https?:\/\/[^/]/.test(settings.endpoint)) {
      throw new FsError(
        "invalid_input",
        `${section} endpoint ${JSON.stringify(settings.endpoint)} is not a URL: write it as https://host:port`,
      );
    }
    this.settings = settings;
    this.bucket = settings.bucket;
    const prefix = (settings.prefix ?? "").replace(/^\/+/, "");
    this.prefix = prefix === "" || prefix.endsWith("/") ? prefix : `${prefix}/`;
    this.endpoint = settings.endpoint ?? "Amazon S3";
    this.partSize = Math.max(5 * MIB, settings.partSize ?? 8 * MIB);
    this.parallelParts = Math.max(1, settings.parallelParts ?? 4);
    this.pageSize = settings.pageSize ?? 1000;
    this.#clock = settings.clock ?? systemClock;
  }

  get #section(): string {
    return this.settings.section ?? "[tiers.s3]";
  }

  #open(): Promise<{ client: Sdk.S3Client; sdk: S3Sdk; http: HttpClient }> {
    this.#opened ??= this.#load().catch((error) => {
      this.#opened = undefined;
      throw error;
    });
    return this.#opened;
  }

  async #load(): Promise<{ client: Sdk.S3Client; sdk: S3Sdk; http: HttpClient }> {
    const [sdk, { FetchHttpHandler }] = await Promise.all([
      import("@aws-sdk/client-s3"),
      import("@smithy/fetch-http-handler"),
    ]);
    const http = openHttpClient();
    const s = this.settings;
    const region = s.region ?? (s.endpoint === undefined ? undefined : "us-east-1");
    const client = new sdk.S3Client({
      forcePathStyle: s.forcePathStyle ?? s.endpoint !== undefined,
      requestChecksumCalculation: "WHEN_REQUIRED",
      responseChecksumValidation: "WHEN_REQUIRED",
      // With it, a PUT of some MiB hangs for ever in Deno.
      expectContinueHeader: false,
      maxAttempts: s.maxAttempts ?? 2,
      // Not node:http, the SDK's own choice: in Deno a connection that breaks while a body is read is an uncaught error
      // there, which ends the process.
      requestHandler: new FetchHttpHandler({
        customFetch: (input, init) => http.fetch(new Request(input, init)),
        requestInit: () => ({ redirect: "manual" }),
      }),
      ...(region === undefined ? {} : { region }),
      ...(s.endpoint === undefined ? {} : { endpoint: s.endpoint }),
      ...(s.profile === undefined ? {} : { profile: s.profile }),
      ...(s.accessKeyId === undefined || s.secretAccessKey === undefined
        ? {}
        : { credentials: { accessKeyId: s.accessKeyId, secretAccessKey: s.secretAccessKey } }),
    });
    return { client, sdk, http };
  }

  /** Milliseconds a request with so many bytes may take without being taken for dead. */
  allowance(bytes: number): number {
    return (this.settings.requestTimeoutMs ?? 15_000) + bytes / (this.settings.minBytesPerSec ?? 32_768) * 1000;
  }

  /**
   * Runs one request. It ends within `allowance(bytes)` after its start or its last sign of life, whatever the network
   * does, and at once when `signal` is aborted. Failures come out as FsError.
   */
  async call<T>(
    operation: string,
    key: string,
    bytes: number,
    signal: AbortSignal | undefined,
    run: (call: S3Call) => Promise<T>,
  ): Promise<T> {
    const own = new AbortController();
    let late = false;
    const allowed = this.allowance(bytes);
    const expire = () => {
      late = true;
      own.abort(new DOMException("deadline", "TimeoutError"));
    };
    let stopTimer = this.#clock.after(allowed, expire);
    const onAbort = () => own.abort(signal?.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    if (signal?.aborted) onAbort();
    // Whatever the SDK makes of the abort, nobody waits longer than this promise.
    const ended = new Promise<never>((_, reject) => {
      own.signal.addEventListener("abort", () => reject(own.signal.reason), { once: true });
    });
    ended.catch(() => {});
    try {
      own.signal.throwIfAborted();
      const alive = () => {
        stopTimer();
        stopTimer = this.#clock.after(allowed, expire);
      };
      const work = this.#open().then(({ client, sdk }) => {
        own.signal.throwIfAborted();
        return run({ client, sdk, signal: own.signal, alive });
      });
      work.catch(() => {});
      return await Promise.race([work, ended]);
    } catch (error) {
      if (signal?.aborted) throw toFsError(signal.reason, { operation, path: key });
      if (late) {
        throw new FsError(
          "timeout",
          `${operation} ${key}: ${this.endpoint} (bucket ${this.bucket}) has not answered for ${
            Math.round(allowed / 100) / 10
          } s`,
          { operation, path: key, limit: allowed, cause: error },
        );
      }
      throw this.explain(error, operation, key);
    } finally {
      stopTimer();
      signal?.removeEventListener("abort", onAbort);
      // Ends what is still running, such as a request that lost the race.
      if (!own.signal.aborted) own.abort();
    }
  }

  /** A failure of the SDK as FsError: the thing, the cause, the fix. */
  explain(error: unknown, operation: string, key: string): FsError {
    if (error instanceof FsError) return error;
    const failed = asSdkFailure(error);
    const status = failed.$metadata?.httpStatusCode ?? 0;
    const make = (code: FsErrorCode, message: string) =>
      new FsError(code, message, { operation, path: key, cause: error });
    const where = `bucket ${this.bucket} at ${this.endpoint}`;
    if (failed.name === "NoSuchBucket") {
      // Not `not_found`: that means "no such object", and a lost bucket must never look like an empty one.
      return new FsError(
        "unavailable",
        `bucket ${this.bucket} does not exist at ${this.endpoint}: create it or fix ${this.#section} bucket`,
        // ENXIO tells it from a store that is merely away.
        { operation, path: key, cause: error, errno: Errno.ENXIO },
      );
    }
    if (failed.name === "NoSuchKey" || failed.name === "NotFound" || status === 404) {
      return make("not_found", `${operation} ${key}: not in ${where}`);
    }
    if (failed.name === "CredentialsProviderError") {
      return make(
        "access_denied",
        `no credentials for ${where}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ${this.#section} profile (${failed.message})`,
      );
    }
    if (DENIED.has(failed.name) || status === 401 || status === 403) {
      const profile = this.settings.profile;
      return make(
        "access_denied",
        `${where} refuses ${operation} ${key} (${failed.name}): check ${
          profile === undefined
            ? "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or the default AWS profile,"
            : `the AWS profile ${profile}`
        } and that it may read and write the bucket`,
      );
    }
    if (failed.name === "BadDigest" || failed.name === "IncompleteBody") {
      return make("unavailable", `${operation} ${key}: the bytes were damaged on the way to ${where}; try again`);
    }
    if (status === 412 || failed.name === "PreconditionFailed" || failed.name === "ConditionalRequestConflict") {
      return make("conflict", `${operation} ${key}: it was changed by someone else meanwhile`);
    }
    if (status === 416) return make("corrupt", `${operation} ${key}: the object in ${where} is shorter than asked for`);
    if (failed.name === "KeyTooLongError") return make("name_too_long", `${operation} ${key}: longer than S3 allows`);
    if (failed.name === "EntityTooLarge") return make("file_too_large", `${operation} ${key}: larger than S3 allows`);
    if (failed.name === "QuotaExceeded") return make("quota_exceeded", `${where} is over its quota`);
    if (status === 429 || failed.name === "SlowDown" || failed.name === "TooManyRequests") {
      return make("rate_limited", `${where} asks to slow down`);
    }
    if (status === 501 || failed.name === "NotImplemented") {
      return make("not_supported", `${where} can't ${operation} (${failed.message})`);
    }
    if (status >= 500) return make("unavailable", `${where} fails with HTTP ${status} (${failed.name})`);
    const unreachable = UNREACHABLE.has(failed.code ?? "") || failed.name === "TimeoutError" ||
      /error (?:sending request|reading a body)|client error|connection|socket|premature|dns error/i
        .test(failed.message);
    if (unreachable) {
      return make(
        failed.name === "TimeoutError" ? "timeout" : "unavailable",
        `can't reach ${this.endpoint} (bucket ${this.bucket}): ${
          failed.code ?? failed.message
        }; check ${this.#section} endpoint and the network`,
      );
    }
    return make("internal", `${operation} ${key} at ${where}: ${failed.name} ${failed.message}`);
  }

  /** HEAD answers 404 for a missing bucket too: make sure once that the bucket is there. */
  async requireBucket(signal: AbortSignal | undefined): Promise<void> {
    if (this.#bucketSeen) return;
    await this.call("head", this.bucket, 0, signal, async ({ client, sdk, signal }) => {
      try {
        await client.send(new sdk.HeadBucketCommand({ Bucket: this.bucket }), { abortSignal: signal });
      } catch (error) {
        if (statusOf(error) !== 404) throw error;
        throw this.explain(Object.assign(new Error(), { name: "NoSuchBucket" }), "head", this.bucket);
      }
    });
    this.#bucketSeen = true;
  }

  async close(): Promise<void> {
    const opened = this.#opened;
    this.#opened = undefined;
    if (opened === undefined) return;
    const { client, http } = await opened;
    client.destroy();
    http.close();
  }
}
