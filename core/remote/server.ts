/** serveRemote: the server's side of everything: REST, bulk bytes, the WebSocket of mounts, metrics and health. */
import { FsError, toFsError } from "../fs/error.ts";
import { Serial } from "../fs/serial.ts";
import type { ServerCore } from "../indexed/core.ts";
import { type Clock, systemClock } from "../platform/clock.ts";
import { type HttpServer, type Peer, serveHttp } from "../platform/net.ts";
import { type Random, systemRandom } from "../platform/random.ts";
import { acceptSocket } from "../platform/sockets.ts";
import { adminRoutes, devices, status } from "./admin_routes.ts";
import { type Access, Auth, isLoopback } from "./auth.ts";
import { chunks, contents } from "./bulk_routes.ts";
import { BusyTable } from "./busy.ts";
import type { Call, ServerContext } from "./context.ts";
import { Feed } from "./feed.ts";
import { files, ls, meta } from "./file_routes.ts";
import { fsMethods, isReadMethod } from "./fs_routes.ts";
import { once } from "./idempotency.ts";
import { Rates } from "./limits.ts";
import { metrics } from "./metrics_route.ts";
import { PLAIN_HEADERS, problemResponse } from "./problem.ts";
import { ReservedNames } from "./reserved_names.ts";
import { Session, type SessionHub } from "./session.ts";
import { forgetfulLocks } from "./lock_memory.ts";
import { type LockMemory, SharedLocks } from "./shared_locks.ts";

export interface RemoteServerOptions {
  readonly hostname: string;
  /** 0: any free one. */
  readonly port: number;
  /** PEM texts. */
  readonly tls?: { readonly cert: string; readonly key: string };
  /** Shown by /v1/status. */
  readonly version: string;
  /** Serve an address others can reach without asking for tokens. */
  readonly insecureNoAuth?: boolean;
  /** Requests a second one token (or address) may make. @default no limit */
  readonly requestsPerSecond?: number;
  /** How long a mount's locks outlive its connection, ms. @default 30,000 */
  readonly lockLeaseMs?: number;
  /** Where it is kept who may claim locks after a restart. @default nowhere: every restart ends all locks */
  readonly lockMemory?: LockMemory;
  readonly log?: (message: string) => void;
  readonly clock?: Clock;
  readonly random?: Random;
  /** More routes by their first path part; an engineer of the dashboard adds `/` here. */
  readonly routes?: Readonly<Record<string, Route>>;
}
export type Route = (context: ServerContext, call: Call) => Promise<Response>;

export interface RemoteServer {
  /** `http://127.0.0.1:7734` */
  readonly url: string;
  readonly port: number;
  readonly context: ServerContext;
  /** What was told to clients was taken back (the index rolled back): they read everything anew. */
  reset(error: Error): void;
  /** Stops accepting, finishes what is under way within `graceMs`, ends all connections. Does not close the core. */
  close(graceMs?: number): Promise<void>;
}

/** How long locks outlive a connection, unless the configuration says otherwise. */
export const LOCK_LEASE_MS = 30_000;
/** Clients have so long to answer a goodbye. */
const GOODBYE_MS = 1_000;
/** Session tokens are looked at again so often: a revoked one ends its mount. */
const RECHECK_MS = 15_000;

const ROUTES: Readonly<Record<string, Route>> = {
  files,
  meta,
  ls,
  status,
  devices,
  admin: adminRoutes,
  fs: fsMethods,
  chunks,
  contents,
};

/** Routes that show or change the tree: what a mount closed before must be in it. */
const LOOKING: ReadonlySet<string> = new Set(["files", "meta", "ls", "fs", "admin"]);

/**
 * Listens and serves until `close`. Loopback without tokens is open to this machine's users; any other address asks for
 * tokens. Throws invalid_input for an open address without tokens, unavailable when the address is in use.
 */
export async function serveRemote(core: ServerCore, options: RemoteServerOptions): Promise<RemoteServer> {
  const server = new Server(core, options);
  try {
    await server.start();
  } catch (error) {
    server.feed.close();
    throw error;
  }
  return server;
}

class Server implements RemoteServer, SessionHub {
  readonly core: ServerCore;
  readonly clock: Clock;
  readonly feed: Feed;
  readonly busy: BusyTable;
  readonly locks: SharedLocks;
  readonly names = new ReservedNames();
  readonly devices = new Serial();
  readonly run: string;
  readonly context: ServerContext;
  startSeq = 0;
  voidSeq = 0;
  readonly #options: RemoteServerOptions;
  readonly #log: (message: string) => void;
  readonly #auth: Auth;
  readonly #rates: Rates;
  readonly #sessions = new Map<number, Session>();
  readonly #all = new Set<Session>();
  /** Connections that have not said goodbye yet. */
  readonly #sockets = new Set<Promise<void>>();
  readonly #counts = new Map<string, number>();
  #http: HttpServer | null = null;
  #stopRecheck: () => void = () => {};
  #closing = false;

  constructor(core: ServerCore, options: RemoteServerOptions) {
    this.core = core;
    this.#options = options;
    this.clock = options.clock ?? systemClock;
    const random = options.random ?? systemRandom;
    this.#log = options.log ?? (() => {});
    this.run = random.uuid();
    const mode = options.insecureNoAuth === true
      ? "open"
      : isLoopback(options.hostname)
      ? "open-without-tokens"
      : "tokens";
    this.#auth = new Auth(core.index, this.clock, mode);
    this.#rates = new Rates(this.clock, options.requestsPerSecond ?? Infinity);
    this.feed = new Feed(core.index, (error) => this.reset(error));
    this.busy = new BusyTable(this.clock, (ino, pending, device) => {
      for (const session of this.#sessions.values()) {
        if (session.device === device) continue;
        // Still busy for those who are not the last holder themselves.
        if (pending || !this.busy.isBusy(ino, session.device)) session.tellBusy(ino, pending);
      }
    });
    this.locks = new SharedLocks({
      clock: this.clock,
      run: this.run,
      leaseMs: options.lockLeaseMs ?? LOCK_LEASE_MS,
      memory: options.lockMemory ?? forgetfulLocks(),
      recall: (device, ino) => {
        const session = this.#sessions.get(device);
        session?.tellRecall(ino);
        return session !== undefined;
      },
      log: this.#log,
    });
    this.context = {
      core,
      clock: this.clock,
      random,
      auth: this.#auth,
      version: options.version,
      run: this.run,
      started: this.clock.now(),
      connectedDevices: () => [...this.#sessions.keys()],
      counts: this.#counts,
    };
  }

  get url(): string {
    return this.#http?.url ?? "";
  }
  get port(): number {
    return this.#http?.port ?? 0;
  }

  async start(): Promise<void> {
    const { hostname, port, tls } = this.#options;
    if (
      !isLoopback(hostname) && this.#options.insecureNoAuth !== true && (await this.core.index.tokens()).length === 0
    ) {
      throw new FsError(
        "invalid_input",
        `listening on ${hostname} lets other machines in, and there is no token yet: make one with ` +
          `"anyfs token create --scope admin", or serve without any protection with --insecure-no-auth`,
        { operation: "serve" },
      );
    }
    await this.locks.start();
    this.startSeq = await this.core.index.lastSeq();
    this.#http = await serveHttp({
      hostname,
      port,
      ...(tls !== undefined && { tls }),
      handler: (request, peer) => this.#handle(request, peer),
      onError: (error) => {
        this.#log(`a request failed: ${toFsError(error).message}`);
        return problemResponse(error);
      },
    });
    this.#stopRecheck = this.clock.every(RECHECK_MS, () => void this.#recheck());
  }

  // --- HTTP ---

  async #handle(request: Request, peer: Peer | null): Promise<Response> {
    // As the client sent it: URL would resolve `..` silently.
    const target = request.url.replace(/^[a-z]+:\/\/[^/?#]*/i, "");
    const at = target.indexOf("?");
    const pathname = at < 0 ? target : target.slice(0, at);
    const [, first = "", second = ""] = /^\/([^/]*)(?:\/([^/]*))?/.exec(pathname) ?? [];
    const name = first === "v1" ? second : first;
    let response: Response;
    try {
      response = await this.#route(request, peer, {
        first,
        name,
        rest: pathname.slice(first === "v1" ? `/v1/${second}`.length : `/${first}`.length),
        query: new URLSearchParams(at < 0 ? "" : target.slice(at + 1)),
      });
    } catch (error) {
      const failure = toFsError(error);
      if (failure.code === "internal") this.#log(`${request.method} ${pathname}: ${failure.message}`);
      const wait = failure.code === "rate_limited"
        ? Math.max(1, Math.ceil((failure.details.requested ?? 1000) / 1000))
        : 0;
      response = problemResponse(failure, undefined, wait > 0 ? { "retry-after": String(wait) } : {});
      if (request.method === "HEAD") response = new Response(null, response);
    }
    const key = `${
      Object.hasOwn(ROUTES, name) || name === "ws" || name === "healthz" || name === "metrics" ? name : "other"
    } ${response.status}`;
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
    return response;
  }

  async #route(
    request: Request,
    peer: Peer | null,
    to: { first: string; name: string; rest: string; query: URLSearchParams },
  ): Promise<Response> {
    const { method, headers } = request;
    if (to.first === "healthz") return new Response("ok\n", { headers: { "cache-control": "no-store" } });
    const extra = this.#options.routes?.[to.first === "v1" ? `v1/${to.name}` : to.first];
    if (to.first === "" && extra === undefined) {
      return new Response(`AnyFS ${this.#options.version}\nThe tree is at /v1/files, see docs/protocol.md\n`, {
        headers: { ...PLAIN_HEADERS, "content-type": "text/plain; charset=utf-8" },
      });
    }
    if (this.#closing) throw new FsError("unavailable", "the server is shutting down");
    const access = await this.#auth.authenticate(headers.get("authorization"));
    if (to.first === "v1" && to.name === "ws") return this.#webSocket(request, access, peer);
    const route = extra ??
      (to.first === "v1"
        ? (Object.hasOwn(ROUTES, to.name) ? ROUTES[to.name] : undefined)
        : to.first === "metrics"
        ? metrics
        : undefined);
    if (route === undefined) {
      throw new FsError(
        "not_found",
        `there is nothing at ${request.method} /${to.first === "v1" ? `v1/${to.name}` : to.first}`,
      );
    }
    const rate = this.#rates.of(access.id === "open" ? `at ${peer?.hostname ?? "here"}` : access.id);
    // The bytes of mounts wait for their turn, as their calls do; scripts are told to come back.
    if (to.name === "chunks" || to.name === "contents") await rate.take(request.signal);
    else {
      const wait = rate.tryTake();
      if (wait > 0) {
        throw new FsError(
          "rate_limited",
          `more than ${this.#options.requestsPerSecond} requests a second; come back in ${Math.ceil(wait)} ms`,
          { requested: wait, limit: this.#options.requestsPerSecond ?? 0 },
        );
      }
    }
    if (LOOKING.has(to.name)) await this.hurried(0);
    const call: Call = { request, method, rest: to.rest, query: to.query, access, signal: request.signal };
    const changes = method === "PUT" || method === "DELETE" ||
      (method === "POST" && to.name === "fs" && !isReadMethod(to.rest));
    if (!changes) return await route(this.context, call);
    return await once(this.core.index, access.id, request, async () => {
      try {
        const answer = await route(this.context, call);
        // Who opens the file on a mount after this sees it.
        await this.feed.told();
        await this.heard(await this.core.index.lastSeq(), 0);
        return answer;
      } catch (error) {
        // A failure is an answer too: the same one next time.
        if (request.headers.has("idempotency-key")) return problemResponse(error);
        throw error;
      }
    });
  }

  #webSocket(request: Request, access: Access, peer: Peer | null): Response {
    if (request.headers.get("upgrade")?.toLowerCase() !== "websocket") {
      const error = new FsError("invalid_input", "/v1/ws speaks WebSocket only");
      return problemResponse(error, undefined, { upgrade: "websocket" }, 426);
    }
    const rate = this.#rates.of(access.id === "open" ? `at ${peer?.hostname ?? "here"}` : access.id);
    return acceptSocket(request, (socket) => {
      const near = peer === null || isLoopback(peer.hostname);
      const session = new Session(this, socket, access, rate, near);
      this.#all.add(session);
      const closed = Promise.withResolvers<void>();
      this.#sockets.add(closed.promise);
      return {
        open: () => session.open(),
        message: (bytes) => session.message(bytes),
        close: () => {
          session.close();
          this.#all.delete(session);
          this.#sockets.delete(closed.promise);
          closed.resolve();
        },
      };
    });
  }

  // --- what sessions share ---

  joined(session: Session): void {
    const earlier = this.#sessions.get(session.device);
    // Reservations end with the connection they were made on.
    if (earlier !== undefined && earlier !== session) this.names.left(session.device);
    this.#sessions.set(session.device, session);
    this.#tellPeers();
    this.busy.arrived(session.device);
    this.locks.arrived(session.device);
    if (earlier !== undefined && earlier !== session) earlier.replaced();
  }
  left(session: Session): void {
    this.#all.delete(session);
    if (this.#sessions.get(session.device) !== session) return;
    this.#sessions.delete(session.device);
    this.#tellPeers();
    this.busy.left(session.device);
    this.locks.left(session.device);
    this.names.left(session.device);
  }
  peers(): number {
    return Math.max(0, this.#sessions.size - 1);
  }
  async hurried(except: number): Promise<void> {
    // A client holds back only while it is alone.
    const [only] = this.#sessions.values();
    if (this.#sessions.size === 1 && only !== undefined && only.device !== except) await only.hurry();
  }
  async heard(seq: number, except: number): Promise<unknown> {
    const others = [...this.#sessions.values()].filter(({ device }) => device !== except);
    return await Promise.all(others.map((session) => session.hears(seq)));
  }
  #tellPeers(): void {
    for (const session of this.#sessions.values()) session.tellPeers(this.peers());
  }
  rolledBack(error: Error): void {
    this.reset(error);
  }

  reset(error: Error): void {
    void (async () => {
      const seq = await this.core.index.lastSeq();
      if (this.voidSeq === seq && seq > 0) return;
      this.voidSeq = seq;
      this.#log(`changes were taken back, clients start anew: ${error.message}`);
      for (const session of [...this.#all]) {
        session.tellReset(seq);
        // They come back at once and learn which of their requests stand.
        session.end(1012, "changes were taken back; connect anew");
      }
    })().catch((failure) => this.#log(`reset failed: ${toFsError(failure).message}`));
  }

  async #recheck(): Promise<void> {
    for (const session of [...this.#all]) {
      const { access } = session;
      if (access.id === "open") continue;
      const expired = access.expires !== null && access.expires <= this.clock.now();
      const known = expired ? false : (await this.core.index.tokens()).some((token) => token.id === access.id);
      if (!known) session.denied("the token has expired or was revoked");
    }
  }

  async close(graceMs = 5000): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    this.#stopRecheck();
    for (const session of [...this.#all]) session.end(1001, "the server is shutting down");
    this.feed.close();
    this.busy.close();
    this.locks.close();
    const late = new AbortController();
    const limit = this.clock.sleep(Math.min(graceMs, GOODBYE_MS), late.signal).catch(() => {});
    await Promise.race([Promise.all(this.#sockets), limit]);
    late.abort();
    await this.#http?.shutdown(graceMs);
    await this.core.index.settle();
  }
}
