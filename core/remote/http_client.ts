/** Bulk bytes over HTTP: requests with time limits that scale with size, and problem+json answers as FsError. */
import { FsError, isFsErrorCode, toFsError } from "../fs/error.ts";
import type { Clock } from "../platform/clock.ts";
import type { HttpPeer } from "../platform/sockets.ts";
import { tokenRefused, unreachable } from "./address.ts";

/** A transfer that does not move for so long is given up. */
const STALL_MS = 15_000;
/** A body is given time as if it moved at so many bytes a second, on top of STALL_MS. */
const SLOWEST = 64 * 1024;

export interface HttpRequest {
  readonly method: "GET" | "HEAD" | "PUT" | "POST" | "DELETE";
  /** Path and query, percent-encoded. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array<ArrayBuffer>> | string;
  readonly signal?: AbortSignal | undefined;
}

/** An answer with status 2xx, 304 or one of those asked for; the others are thrown. */
export interface HttpAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly response: Response;
  /** Throws timeout when nothing arrives for 15 s, unavailable when the connection breaks. */
  body(): AsyncGenerator<Uint8Array<ArrayBuffer>>;
  /**
   * All of it. `expected` bytes are allotted at once, or taken from `spare` when it is large enough (it is detached); more
   * or fewer are `unavailable`.
   */
  bytes(expected?: number, spare?: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>>;
  json(): Promise<unknown>;
}

/** A buffer of so many bytes may travel to the network and back for each piece: with much larger ones that takes longer. */
const TRAVELS = 16 * 1024 * 1024;

export class HttpClient {
  readonly #peer: HttpPeer;
  readonly #url: string;
  readonly #clock: Clock;
  readonly #token: string | null;

  constructor(options: { peer: HttpPeer; url: string; token: string | null; clock: Clock }) {
    this.#peer = options.peer;
    this.#url = options.url;
    this.#token = options.token;
    this.#clock = options.clock;
  }

  get url(): string {
    return this.#url;
  }
  authorization(): Record<string, string> {
    return this.#token === null ? {} : { authorization: `Bearer ${this.#token}` };
  }

  /** Throws what the server's problem says; unavailable (nobody answers), timeout, cancelled. */
  async request(request: HttpRequest, accept: readonly number[] = []): Promise<HttpAnswer> {
    const watch = new Watch(this.#clock, request.signal);
    const { body } = request;
    const size = typeof body === "string" ? body.length : body instanceof Uint8Array ? body.length : null;
    const streaming = body instanceof ReadableStream;
    // Whoever streams a body in is watched by progress, not by size.
    watch.expect(STALL_MS + (size ?? 0) / SLOWEST * 1000);
    let response: Response;
    try {
      response = await this.#peer.request(this.#url + request.path, {
        method: request.method,
        headers: { ...this.authorization(), ...request.headers },
        ...(body !== undefined && { body: streaming ? watched(body, watch) : body }),
        ...(streaming && { duplex: "half" } as object),
        signal: watch.signal,
        redirect: "error",
      });
    } catch (error) {
      watch.end();
      throw this.#failure(error, watch, request);
    }
    if (response.status >= 400 && !accept.includes(response.status)) {
      watch.expect(STALL_MS);
      const error = await this.#problem(response, request);
      watch.end();
      throw error;
    }
    return this.#answer(response, watch, request);
  }

  #answer(response: Response, watch: Watch, request: HttpRequest): HttpAnswer {
    const fail = (error: unknown) => this.#failure(error, watch, request);
    if (response.body === null) watch.end();
    else watch.expect(STALL_MS);
    async function* body(): AsyncGenerator<Uint8Array<ArrayBuffer>> {
      if (response.body === null) return;
      const reader = response.body.getReader();
      let finished = false;
      try {
        for (;;) {
          watch.expect(STALL_MS);
          const { done, value } = await reader.read();
          // Our reader may take its time: only the network is watched.
          watch.rest();
          if (done) break;
          yield value;
        }
        finished = true;
      } catch (error) {
        throw fail(error);
      } finally {
        watch.end();
        if (!finished) void reader.cancel().catch(() => {});
      }
    }
    // One buffer travels to the network and back: nothing is allotted for the pieces.
    const exactly = async (
      from: ReadableStream<Uint8Array<ArrayBuffer>>,
      expected: number,
      spare?: Uint8Array<ArrayBuffer>,
    ) => {
      const reader = from.getReader({ mode: "byob" });
      let buffer = spare !== undefined && spare.buffer.byteLength >= expected
        ? spare.buffer
        : new ArrayBuffer(expected);
      let length = 0;
      let finished = false;
      try {
        for (;;) {
          watch.expect(STALL_MS);
          const whole = length === expected;
          // Behind what is expected there is nothing but the end.
          const { done, value } = await reader.read(
            whole ? new Uint8Array(1) : new Uint8Array(buffer, length, expected - length),
          );
          watch.rest();
          if (value !== undefined && !whole) buffer = value.buffer;
          if (done) break;
          length += value.length;
          if (length > expected) throw wrongLength(request, expected, length);
        }
        finished = true;
      } catch (error) {
        throw fail(error);
      } finally {
        watch.end();
        if (!finished) void reader.cancel().catch(() => {});
      }
      if (length !== expected) throw wrongLength(request, expected, length);
      return new Uint8Array(buffer, 0, expected);
    };
    const bytes = async (expected?: number, spare?: Uint8Array<ArrayBuffer>) => {
      if (expected !== undefined && expected <= TRAVELS && response.body !== null) {
        return await exactly(response.body, expected, spare);
      }
      const known = expected ?? Number(response.headers.get("content-length") ?? 0);
      let out = new Uint8Array(known);
      let length = 0;
      for await (const part of body()) {
        if (length + part.length > out.length) {
          if (expected !== undefined) throw wrongLength(request, expected, length + part.length);
          const grown = new Uint8Array(Math.max(out.length * 2, length + part.length));
          grown.set(out.subarray(0, length));
          out = grown;
        }
        out.set(part, length);
        length += part.length;
      }
      if (expected !== undefined && length !== expected) throw wrongLength(request, expected, length);
      return length === out.length ? out : out.slice(0, length);
    };
    return {
      status: response.status,
      headers: response.headers,
      response,
      body,
      bytes,
      async json() {
        const text = new TextDecoder().decode(await bytes());
        try {
          return JSON.parse(text);
        } catch (error) {
          throw new FsError("internal", `${request.method} ${request.path}: the server's answer is not JSON`, {
            cause: error,
          });
        }
      },
    };
  }

  #failure(error: unknown, watch: Watch, request: HttpRequest): FsError {
    if (watch.stalled) {
      return new FsError("timeout", `${request.method} ${request.path}: ${this.#url} did not answer in time`, {
        operation: request.method,
        path: request.path,
      });
    }
    if (request.signal?.aborted) return toFsError(request.signal.reason);
    if (error instanceof FsError) return error;
    return unreachable(this.#url, causeOf(error));
  }

  /** The error a problem+json answer tells. */
  async #problem(response: Response, request: HttpRequest): Promise<FsError> {
    let problem: { code?: unknown; message?: unknown; path?: unknown; errno?: unknown } = {};
    try {
      const text = await response.text();
      const parsed: unknown = JSON.parse(text);
      if (parsed !== null && typeof parsed === "object") problem = parsed;
    } catch {
      // HEAD answers and proxies have no such body.
    }
    const message = typeof problem.message === "string" ? problem.message : `HTTP status ${response.status}`;
    const code = isFsErrorCode(problem.code) ? problem.code : codeOf(response.status);
    if (response.status === 401) return tokenRefused(this.#url, message);
    return new FsError(code, message, {
      operation: request.method,
      path: typeof problem.path === "string" ? problem.path : request.path,
      ...(typeof problem.errno === "number" && { errno: problem.errno }),
    });
  }
}

/** The code of an answer without one of ours: a proxy's, or a HEAD request's. */
function codeOf(status: number): FsError["code"] {
  switch (status) {
    case 401:
    case 403:
      return "access_denied";
    case 404:
      return "not_found";
    case 409:
    case 412:
      return "conflict";
    case 413:
      return "file_too_large";
    case 429:
      return "rate_limited";
    case 502:
    case 503:
      return "unavailable";
    case 504:
      return "timeout";
    case 507:
      return "no_space";
    default:
      return status < 500 ? "invalid_input" : "internal";
  }
}

function wrongLength(request: HttpRequest, expected: number, got: number): FsError {
  return new FsError(
    "unavailable",
    `${request.method} ${request.path}: the answer has ${got} bytes or more where ${expected} were asked for`,
    { path: request.path, requested: expected, usage: got },
  );
}

/** What lies under a failed fetch. */
export function causeOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause.message : "";
  const all = `${text} ${inner}`;
  if (/refused/i.test(all)) return "connection refused";
  if (/dns|lookup/i.test(all)) return "the host name is not known";
  if (/certificate|UnknownIssuer/i.test(all)) return "its TLS certificate is not trusted";
  if (/tcp connect error/i.test(all)) return "can't connect";
  if (/reset|closed before|incomplete|broken pipe|end of file|error sending|unexpected eof/i.test(all)) {
    return "the connection broke";
  }
  return text.slice(0, 200);
}

/** Aborts a request that stands still for too long. */
class Watch {
  readonly #clock: Clock;
  readonly #own = new AbortController();
  readonly signal: AbortSignal;
  #cancel: () => void = () => {};
  #until = 0;
  stalled = false;

  constructor(clock: Clock, parent: AbortSignal | undefined) {
    this.#clock = clock;
    this.signal = parent === undefined ? this.#own.signal : AbortSignal.any([this.#own.signal, parent]);
  }

  /** Something has to happen within `ms` from now. One timer serves many calls. */
  expect(ms: number): void {
    const armed = this.#until !== 0;
    this.#until = this.#clock.monotonic() + ms;
    if (!armed) this.#arm(ms);
  }
  #arm(ms: number): void {
    this.#cancel = this.#clock.after(ms, () => {
      const left = this.#until - this.#clock.monotonic();
      if (this.#until === Infinity) this.#arm(STALL_MS);
      else if (left > 0) this.#arm(left);
      else {
        this.stalled = true;
        this.#own.abort(new DOMException("no progress", "TimeoutError"));
      }
    }, true);
  }
  /** Nothing is waited for at present. */
  rest(): void {
    this.#until = Infinity;
  }
  end(): void {
    this.#cancel();
  }
}

/** The stream, with each piece taken counted as progress. */
function watched(
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
  watch: Watch,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const reader = body.getReader();
  return new ReadableStream({
    async pull(controller) {
      // The source may take its time (it may be a person typing).
      watch.rest();
      const { done, value } = await reader.read();
      watch.expect(STALL_MS * 4);
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  });
}
