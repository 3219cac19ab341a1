/** The network: HTTP servers and requests, WebSockets at both ends, over TCP or a unix socket. Failures are FsError. */
import { FsError, hasCode } from "../fs/error.ts";
import { systemClock, timeoutSignal } from "./clock.ts";
import { setListenerNoDelay } from "./no_delay.ts";
import { socketPath } from "./socket_path.ts";

/** Who sent a request; null over a unix socket. */
export interface Peer {
  readonly hostname: string;
  readonly port: number;
}

export interface ServeOptions {
  /** An address or a name of this machine; `0.0.0.0` and `::` mean all of them. Not with `path`. */
  readonly hostname?: string;
  /** 0 lets the system choose. @default 0 */
  readonly port?: number;
  /** A unix socket instead of TCP. A socket file nobody listens on any more is replaced; it is made for its owner only. */
  readonly path?: string;
  /** PEM texts: serve https. */
  readonly tls?: { readonly cert: string; readonly key: string };
  readonly handler: (request: Request, peer: Peer | null) => Response | Promise<Response>;
  /** Called when a handler throws. @default an empty answer with status 500 */
  readonly onError?: (error: unknown) => Response | Promise<Response>;
  readonly onListen?: (url: string) => void;
  /** Ends the server at once, open requests too. */
  readonly signal?: AbortSignal;
}

export interface HttpServer {
  /** `http://127.0.0.1:7734`, or `unix:/path`. */
  readonly url: string;
  /** 0 over a unix socket. */
  readonly port: number;
  /** Resolves when the server has ended. */
  readonly finished: Promise<void>;
  /**
   * Answers new requests with 503, waits up to `drainMs` for the open ones, then ends. WebSockets don't count: close them
   * before.
   */
  shutdown(drainMs?: number): Promise<void>;
}

function urlOf(hostname: string, port: number, tls: boolean): string {
  return `${tls ? "https" : "http"}://${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}

function cannotListen(error: unknown, place: string): FsError {
  const details = { operation: "listen", path: place, cause: error };
  const reason = error instanceof Error ? error.message : String(error);
  if (error instanceof Deno.errors.AddrInUse) {
    return new FsError(
      "unavailable",
      `can't listen on ${place}: another program already does; stop it or choose another address with --listen`,
      details,
    );
  }
  if (error instanceof Deno.errors.AddrNotAvailable) {
    return new FsError(
      "invalid_input",
      `can't listen on ${place}: this machine has no such address; use one of its own, or 0.0.0.0 for all`,
      details,
    );
  }
  if (error instanceof Deno.errors.PermissionDenied) {
    return new FsError(
      "permission_denied",
      `can't listen on ${place}: not permitted; ports below 1024 need root, choose a higher one with --listen`,
      details,
    );
  }
  return new FsError("invalid_input", `can't listen on ${place}: ${reason}`, details);
}

/** Removes a socket file left by a dead process; throws when a living one listens there, or when it isn't a socket. */
async function clearSocket(path: string): Promise<void> {
  const found = await Deno.lstat(path).catch(() => null);
  if (found === null) return;
  if (!found.isSocket) {
    throw new FsError("already_exists", `can't listen on ${path}: it exists and is not a socket; remove it`, { path });
  }
  const connection = await Deno.connect({ transport: "unix", path: socketPath(path) }).catch(() => null);
  if (connection !== null) {
    connection.close();
    throw new FsError("unavailable", `can't listen on ${path}: another program already does; stop it first`, { path });
  }
  await Deno.remove(path).catch(() => undefined);
}

/**
 * Starts an HTTP/1.1 server; it accepts connections when this resolves. Throws `unavailable` when the address is taken,
 * `invalid_input` when it can't be this machine's.
 */
export async function serveHttp(options: ServeOptions): Promise<HttpServer> {
  const { path, tls, handler } = options;
  const hostname = options.hostname ?? "127.0.0.1";
  const stop = new AbortController();
  const signal = options.signal === undefined ? stop.signal : AbortSignal.any([stop.signal, options.signal]);
  const open = new Set<Promise<void>>();
  let draining = false;
  // Deno.serve's own shutdown waits without a limit, and aborting after it throws: so the open requests are counted here.
  const handle = (request: Request, peer: Peer | null, completed: Promise<void>): Response | Promise<Response> => {
    if (draining) return new Response(null, { status: 503, headers: { "retry-after": "1", connection: "close" } });
    const ended: Promise<void> = completed.catch(() => undefined).then(() => void open.delete(ended));
    open.add(ended);
    return handler(request, peer);
  };
  const shared = {
    signal,
    ...(options.onError === undefined
      ? { onError: () => new Response(null, { status: 500 }) }
      : { onError: options.onError }),
  };
  let server: Deno.HttpServer;
  let url = `unix:${path}`;
  let port = 0;
  try {
    if (path !== undefined) {
      await clearSocket(path);
      server = Deno.serve(
        { path: socketPath(path), onListen: () => {}, ...shared },
        (request, info) => handle(request, null, info.completed),
      );
      await Deno.chmod(path, 0o600);
    } else {
      const tcp = Deno.serve(
        { hostname, port: options.port ?? 0, onListen: () => {}, ...shared, ...(tls ?? {}) },
        (request, { remoteAddr, completed }: Deno.ServeHandlerInfo<Deno.NetAddr>) =>
          handle(request, { hostname: remoteAddr.hostname, port: remoteAddr.port }, completed),
      );
      port = tcp.addr.port;
      // Deno sets it nowhere: an answer in several writes would wait 40 ms for the peer's delayed acknowledgement.
      setListenerNoDelay(port);
      url = urlOf(hostname, port, tls !== undefined);
      server = tcp;
    }
  } catch (error) {
    if (error instanceof FsError) throw error;
    throw cannotListen(error, path ?? `${hostname}:${options.port ?? 0}`);
  }
  const finished = server.finished.then(async () => {
    if (path !== undefined) await Deno.remove(path).catch(() => undefined);
  });
  options.onListen?.(url);
  return {
    url,
    port,
    finished,
    async shutdown(drainMs = 5000) {
      draining = true;
      const late = new AbortController();
      const limit = systemClock.sleep(drainMs, late.signal).catch(() => undefined);
      await Promise.race([Promise.all(open), limit]);
      if (open.size > 0) {
        stop.abort();
        await finished.catch(() => undefined);
      } else {
        // Answers count as complete before their last bytes are sent: Deno's own shutdown sees to those.
        await Promise.race([server.shutdown().then(() => finished), limit]);
      }
      late.abort();
    },
  };
}

/** Connections of requests that share settings: a unix socket, or certificates to trust. Close it when done. */
export interface HttpConnections extends Disposable {
  readonly client: Deno.HttpClient;
}

/** `unixPath`: the host of the URLs is then ignored. `caCerts`: PEM texts trusted beside the system's. */
export function openConnections(options: { unixPath?: string; caCerts?: readonly string[] }): HttpConnections {
  const client = Deno.createHttpClient({
    http2: false,
    ...(options.unixPath === undefined
      ? {}
      : { proxy: { transport: "unix", path: socketPath(options.unixPath) } as const }),
    ...(options.caCerts === undefined ? {} : { caCerts: [...options.caCerts] }),
  });
  return { client, [Symbol.dispose]: () => client.close() };
}

export interface FetchOptions {
  readonly method?: string;
  readonly headers?: HeadersInit;
  readonly body?: BodyInit | null;
  /** @default "follow" */
  readonly redirect?: RequestRedirect;
  readonly signal?: AbortSignal;
  /** Limit until the answer's headers are there, milliseconds. @default 30000 */
  readonly timeoutMs?: number;
  /** Limit for each wait for more of the answer's body, milliseconds; 0 for none. @default timeoutMs */
  readonly idleMs?: number;
  readonly connections?: HttpConnections;
}

/** What fetch's TypeErrors say after their introduction: the part a person can use. */
function reasonOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.replace(/^error sending request for url \([^)]*\): (client error \([^)]*\): )?/, "")
    .replace(/^(tcp connect|dns) error: /, "");
}

function requestFailed(error: unknown, url: string, signal: AbortSignal | undefined, timeoutMs: number): FsError {
  if (error instanceof FsError) return error;
  const details = { operation: "request", path: url, cause: error };
  if (signal?.aborted) {
    if (hasCode(signal.reason, "timeout") || isNamed(signal.reason, "TimeoutError")) {
      return new FsError("timeout", `${url}: the time limit ran out`, details);
    }
    return new FsError("cancelled", `${url}: cancelled`, details);
  }
  if (isNamed(error, "TimeoutError")) {
    return new FsError("timeout", `${url}: no answer within ${timeoutMs / 1000} s; is it overloaded?`, details);
  }
  return new FsError("unavailable", `can't reach ${url}: ${reasonOf(error)}; is it running?`, details);
}

function isNamed(error: unknown, name: string): boolean {
  return error instanceof Error && error.name === name;
}

/**
 * fetch with time limits and failures as FsError: `unavailable` (no connection, or it broke), `timeout`, `cancelled`. Any
 * HTTP status is an answer, not a failure. Give bodies as bytes or strings: fetch drops the length of streams.
 */
export async function httpFetch(url: string, options: FetchOptions = {}): Promise<Response> {
  const timeoutMs = options.timeoutMs ?? 30_000;
  const idleMs = options.idleMs ?? timeoutMs;
  const stop = new AbortController();
  const own = options.signal;
  const abort = () => stop.abort(own?.reason);
  if (own?.aborted) throw requestFailed(own.reason, url, own, timeoutMs);
  own?.addEventListener("abort", abort, { once: true });
  const done = () => own?.removeEventListener("abort", abort);
  const cancel = systemClock.after(timeoutMs, () => stop.abort(new DOMException("no answer", "TimeoutError")));
  try {
    const response = await fetch(url, {
      signal: stop.signal,
      ...(options.method === undefined ? {} : { method: options.method }),
      ...(options.headers === undefined ? {} : { headers: options.headers }),
      ...(options.body === undefined ? {} : { body: options.body }),
      ...(options.redirect === undefined ? {} : { redirect: options.redirect }),
      ...(options.connections === undefined ? {} : { client: options.connections.client }),
    });
    cancel();
    if (response.body === null) {
      done();
      return response;
    }
    const body = watched(response.body, {
      idleMs,
      fail: (error) => requestFailed(error, url, own, idleMs),
      stop,
      done,
    });
    return new Response(body, { status: response.status, statusText: response.statusText, headers: response.headers });
  } catch (error) {
    cancel();
    done();
    throw requestFailed(stop.signal.aborted && !own?.aborted ? stop.signal.reason : error, url, own, timeoutMs);
  }
}

interface Watch {
  readonly idleMs: number;
  readonly fail: (error: unknown) => FsError;
  readonly stop: AbortController;
  readonly done: () => void;
}

/** The body as it comes, with a limit on each wait for the network (never on the reader) and its failures as FsError. */
function watched(body: ReadableStream<Uint8Array<ArrayBuffer>>, watch: Watch): ReadableStream<Uint8Array<ArrayBuffer>> {
  const reader = body.getReader();
  return new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      const idle = new DOMException("no more data", "TimeoutError");
      const stalled = Promise.withResolvers<never>();
      stalled.promise.catch(() => {});
      const cancel = watch.idleMs === 0 ? () => {} : systemClock.after(watch.idleMs, () => {
        watch.stop.abort(idle);
        stalled.reject(idle);
      });
      try {
        // Not left to the abort alone: a read has been seen to outlive it.
        const { done, value } = await Promise.race([reader.read(), stalled.promise]);
        if (done) {
          watch.done();
          controller.close();
        } else controller.enqueue(value);
      } catch (error) {
        watch.done();
        controller.error(watch.fail(watch.stop.signal.reason === idle ? idle : error));
      } finally {
        cancel();
      }
    },
    async cancel(reason) {
      watch.done();
      await reader.cancel(reason).catch(() => undefined);
    },
  }, { highWaterMark: 0 });
}

export interface ConnectOptions {
  /** Sent as `Authorization: Bearer`. Deno's WebSocket can set headers, unlike a browser's. */
  readonly token?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly protocols?: readonly string[];
  readonly signal?: AbortSignal;
  /** @default 10000 */
  readonly timeoutMs?: number;
  readonly connections?: HttpConnections;
}

/**
 * Connects to `ws:`, `wss:`, `http:` or `https:`; the socket is open, and gives binary messages as ArrayBuffer, when this
 * resolves. Throws `unavailable`, `timeout` or `cancelled`.
 */
export function connectWebSocket(url: string, options: ConnectOptions = {}): Promise<WebSocket> {
  const target = url.replace(/^http/, "ws");
  const timeoutMs = options.timeoutMs ?? 10_000;
  const signal = timeoutSignal(timeoutMs, options.signal);
  const fail = (error: unknown) => requestFailed(error, url, options.signal, timeoutMs);
  if (signal.aborted) return Promise.reject(fail(signal.reason));
  return new Promise((resolve, reject) => {
    const headers: Record<string, string> = { ...options.headers };
    if (options.token !== undefined) headers["authorization"] = `Bearer ${options.token}`;
    let socket: WebSocket;
    try {
      socket = new WebSocket(target, {
        headers,
        protocols: [...(options.protocols ?? [])],
        ...(options.connections === undefined ? {} : { client: options.connections.client }),
      });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      reject(new FsError("invalid_input", `${url}: ${reason}`, { operation: "connect", path: url, cause: error }));
      return;
    }
    socket.binaryType = "arraybuffer";
    const settle = () => {
      signal.removeEventListener("abort", onAbort);
      socket.onopen = null;
      socket.onerror = null;
      socket.onclose = null;
    };
    const onAbort = () => {
      settle();
      // What still arrives on a connection nobody waits for is closed, and its errors are of no interest.
      socket.onerror = (event) => event.preventDefault();
      socket.onopen = () => socket.close();
      socket.close();
      reject(fail(options.signal?.aborted ? options.signal.reason : new DOMException("slow", "TimeoutError")));
    };
    signal.addEventListener("abort", onAbort, { once: true });
    socket.onopen = () => {
      settle();
      resolve(socket);
    };
    socket.onerror = (event) => {
      event.preventDefault();
      settle();
      reject(fail(new Error(event instanceof ErrorEvent ? event.message : "the connection failed")));
    };
    socket.onclose = () => {
      settle();
      reject(fail(new Error("the server closed the connection")));
    };
  });
}

/**
 * The server's side: turns a request into a WebSocket and the answer to return for it. `idleSeconds`: a peer that answers
 * no ping for so long is gone (0: never). Throws `invalid_input` when the request doesn't ask for one.
 */
export function upgradeWebSocket(
  request: Request,
  options: { protocol?: string; idleSeconds?: number } = {},
): { socket: WebSocket; response: Response } {
  if (request.headers.get("upgrade")?.toLowerCase() !== "websocket") {
    throw new FsError("invalid_input", `${new URL(request.url).pathname} speaks WebSocket only`, {
      operation: "upgrade",
    });
  }
  const { socket, response } = Deno.upgradeWebSocket(request, {
    idleTimeout: options.idleSeconds ?? 30,
    ...(options.protocol === undefined ? {} : { protocol: options.protocol }),
  });
  socket.binaryType = "arraybuffer";
  return { socket, response };
}
