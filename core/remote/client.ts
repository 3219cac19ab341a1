/** RemoteClient: a client's connection to its server; it reconnects by itself until it is closed. */
import { FsError, toFsError } from "../fs/error.ts";
import { type Clock, nextTurn } from "../platform/clock.ts";
import { type HttpPeer, openPeer, type Socket } from "../platform/sockets.ts";
import { type Random, systemRandom } from "../platform/random.ts";
import { parseServerUrl, tokenRefused, unreachable } from "./address.ts";
import { CLOSE_DENIED } from "./close_codes.ts";
import { causeOf, HttpClient } from "./http_client.ts";
import {
  type Calls,
  MAX_CHUNKS_BODY,
  type Method,
  PROTOCOL_VERSION,
  type Pushes,
  type PushKind,
  type ServerLink,
  type Welcome,
} from "./protocol.ts";
import {
  CALLS,
  decodeReplies,
  encodeCall,
  encodeChunks,
  failureToError,
  joinFrames,
  PUSHES,
  type ServerFrame,
} from "./wire.ts";

export interface RemoteOptions {
  /** `http(s)://host:port`. */
  readonly url: string;
  readonly token: string | null;
  /** This client's own lasting random id (a UUID). */
  readonly device: string;
  /** This machine's name, for people. */
  readonly host: string;
  readonly clock: Clock;
  readonly random?: Random;
  readonly resumeFrom?: ServerLink["resumeFrom"];
  /** PEM texts of certificates trusted besides the system's. */
  readonly caCerts?: readonly string[];
  /** Milliseconds a call has unless it says otherwise; a server silent for so long is taken for gone. @default 10000 */
  readonly callMs?: number;
  /** Begin without trying to connect; `resume` begins. Whoever listens to what is pushed needs that. @default false */
  readonly paused?: boolean;
}

/** The default of `callMs`. */
const CALL_MS = 10_000;
/** A connection and its hello have so long. */
const CONNECT_MS = 10_000;
const HEARTBEAT_MS = 2_500;
/** After so long without a word from the server we ask whether it is there. */
const QUIET_MS = 5_000;
/** After so long it is taken for gone. */
const GONE_MS = 12_000;
/** An answer to `check` may take so long. */
const CHECK_MS = 3_000;
const FIRST_BACKOFF_MS = 100;
const LAST_BACKOFF_MS = 5_000;
/** How often calls are looked through for those whose time is up. */
const SWEEP_MS = 250;
/** A message is sent when it has this many bytes, though more calls may wait. */
const MESSAGE_BYTES = 1024 * 1024;

interface PendingCall {
  readonly method: Method;
  readonly deadline: number;
  readonly limit: number;
  /** When it was sent. */
  readonly sent: number;
  settle(value: unknown): void;
  reject(error: FsError): void;
}

/** Starts connecting and returns at once; see `ready`. Throws invalid_input for a bad URL. */
export function connectRemote(options: RemoteOptions): RemoteClient {
  return new RemoteClient(options);
}

export class RemoteClient implements ServerLink, AsyncDisposable {
  readonly url: string;
  readonly http: HttpClient;
  resumeFrom: ServerLink["resumeFrom"];
  readonly #options: RemoteOptions;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #peer: HttpPeer;
  readonly #upListeners: ((welcome: Welcome) => void)[] = [];
  readonly #downListeners: ((reason: string) => void)[] = [];
  readonly #pushListeners = new Map<PushKind, ((value: never) => void)[]>();
  readonly #closing = new AbortController();
  #socket: Socket | null = null;
  #connected = false;
  #welcome: Welcome | null = null;
  #lastError: FsError;
  #nextId = 1;
  #helloId = 0;
  readonly #pending = new Map<number, PendingCall>();
  #out: Uint8Array[] = [];
  #outBytes = 0;
  #flushing = false;
  /**
   * Set from an answer until whoever waits for it has taken it in: the runtime reads message after message with nothing but
   * microtasks between, so news right behind an answer would be heard first, and the older answer would then undo it.
   */
  #answered: (() => void) | null = null;
  /** Frames that have to wait for that. */
  #inbox: ServerFrame[] | null = null;
  #lastHeard = 0;
  #stopSweep: (() => void) | null = null;
  readonly #callMs: number;
  /** Bulk transfers under way: when the server falls silent they need not wait for their own time limit. */
  readonly #transfers = new Set<AbortController>();
  #stopHeartbeat: () => void = () => {};
  #lost: (reason: string) => void = () => {};
  /** Ends the pause before the next try. */
  #hurry = new AbortController();
  /** Resolves when a connection is wanted again; null: it is wanted. */
  #resumed: PromiseWithResolvers<void> | null = null;
  readonly #loop: Promise<void>;

  constructor(options: RemoteOptions) {
    this.#options = options;
    this.url = parseServerUrl(options.url);
    this.#clock = options.clock;
    this.#callMs = options.callMs ?? CALL_MS;
    this.#random = options.random ?? systemRandom;
    this.resumeFrom = options.resumeFrom ?? (() => ({ after: null, epoch: null }));
    this.#lastError = unreachable(this.url, "not connected yet");
    if (options.paused === true) {
      this.#resumed = Promise.withResolvers();
    }
    this.#peer = openPeer(options.caCerts === undefined ? {} : { caCerts: options.caCerts });
    this.http = new HttpClient({ peer: this.#peer, url: this.url, token: options.token, clock: options.clock });
    this.#stopHeartbeat = this.#clock.every(HEARTBEAT_MS, () => this.#beat());
    this.#loop = this.#run();
  }

  get connected(): boolean {
    return this.#connected;
  }
  /** The welcome of the present connection, or null. */
  get welcome(): Welcome | null {
    return this.#connected ? this.#welcome : null;
  }
  /** Why there is no connection. */
  get lastError(): FsError {
    return this.#lastError;
  }

  onUp(listener: (welcome: Welcome) => void): void {
    this.#upListeners.push(listener);
    if (this.#connected && this.#welcome !== null) listener(this.#welcome);
  }
  onDown(listener: (reason: string) => void): void {
    this.#downListeners.push(listener);
  }
  onPush<K extends PushKind>(kind: K, listener: (value: Pushes[K]) => void): void {
    const listeners = this.#pushListeners.get(kind) ?? [];
    listeners.push(listener as (value: never) => void);
    this.#pushListeners.set(kind, listeners);
  }

  /** The first connection. Throws access_denied as soon as the server refuses the token, unavailable after the time. */
  ready(timeoutMs = CONNECT_MS, signal?: AbortSignal): Promise<Welcome> {
    if (this.#connected && this.#welcome !== null) return Promise.resolve(this.#welcome);
    return new Promise((resolve, reject) => {
      const end = (settle: () => void) => {
        stop();
        signal?.removeEventListener("abort", onAbort);
        remove(this.#upListeners, onUp);
        remove(this.#downListeners, onDown);
        settle();
      };
      const onAbort = () => end(() => reject(toFsError(signal?.reason)));
      const onUp = (welcome: Welcome) => end(() => resolve(welcome));
      const onDown = () => {
        const passing = this.#lastError.code === "unavailable" || this.#lastError.code === "timeout";
        if (!passing) end(() => reject(this.#lastError));
      };
      const stop = this.#clock.after(timeoutMs, () => end(() => reject(this.#lastError)));
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#upListeners.push(onUp);
      this.#downListeners.push(onDown);
    });
  }

  call<M extends Method>(
    method: M,
    params: Calls[M]["params"],
    options: { timeoutMs?: number; signal?: AbortSignal } = {},
  ): Promise<Calls[M]["result"]> {
    if (!this.#connected) return Promise.reject(this.#lastError);
    return this.#send(method, params, options);
  }

  #send<M extends Method>(
    method: M,
    params: Calls[M]["params"],
    options: { timeoutMs?: number; signal?: AbortSignal },
  ): Promise<Calls[M]["result"]> {
    const { signal } = options;
    if (signal?.aborted) return Promise.reject(toFsError(signal.reason));
    const id = this.#nextId++;
    if (method === "hello") this.#helloId = id;
    const waits = method === "waitDelivered" ? (params as Calls["waitDelivered"]["params"]).timeoutMs : 0;
    const limit = options.timeoutMs ?? this.#callMs + waits;
    return new Promise((resolve, reject) => {
      let frame: Uint8Array;
      try {
        frame = encodeCall(id, method, params);
      } catch (error) {
        reject(toFsError(error, { operation: method }));
        return;
      }
      const onAbort = () => {
        if (this.#pending.delete(id)) reject(toFsError(signal?.reason));
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      const off = () => signal?.removeEventListener("abort", onAbort);
      const sent = this.#clock.monotonic();
      this.#pending.set(id, {
        method,
        limit,
        sent,
        deadline: sent + limit,
        settle(value) {
          off();
          try {
            resolve(CALLS[method].result.decode(value));
          } catch (error) {
            reject(toFsError(error, { operation: method }));
          }
        },
        reject(error) {
          off();
          reject(error);
        },
      });
      this.#stopSweep ??= this.#clock.every(SWEEP_MS, () => this.#sweep());
      this.#queue(frame);
    });
  }

  #queue(frame: Uint8Array): void {
    this.#out.push(frame);
    this.#outBytes += frame.length;
    if (this.#outBytes >= MESSAGE_BYTES) this.#flush();
    else if (!this.#flushing) {
      this.#flushing = true;
      queueMicrotask(() => this.#flush());
    }
  }
  #flush(): void {
    this.#flushing = false;
    if (this.#out.length === 0) return;
    const message = joinFrames(this.#out);
    this.#out = [];
    this.#outBytes = 0;
    this.#socket?.send(message);
  }

  #sweep(): void {
    const now = this.#clock.monotonic();
    let silentFor = 0;
    for (const [id, call] of this.#pending) {
      if (call.deadline > now) continue;
      if (call.limit >= this.#callMs && this.#lastHeard <= call.sent) silentFor = now - this.#lastHeard;
      this.#pending.delete(id);
      call.reject(
        new FsError("timeout", `${call.method}: ${this.url} did not answer within ${call.limit / 1000} s`, {
          operation: call.method,
        }),
      );
    }
    // Whoever asks next must not wait as long once more.
    if (silentFor > 0 && this.#connected) this.#fallenSilent(silentFor);
    if (this.#pending.size === 0) {
      this.#stopSweep?.();
      this.#stopSweep = null;
    }
  }

  #fallenSilent(ms: number): void {
    const reason = `no word from the server for ${Math.round(ms / 1000)} s`;
    this.#lost(reason);
    for (const transfer of this.#transfers) transfer.abort(unreachable(this.url, reason));
  }

  #beat(): void {
    if (!this.#connected) return;
    const quiet = this.#clock.monotonic() - this.#lastHeard;
    if (quiet >= GONE_MS) this.#fallenSilent(quiet);
    else if (quiet >= QUIET_MS) this.#send("ping", null, { timeoutMs: GONE_MS }).catch(() => {});
  }

  /** After a sleep of the machine or a change of its network: asks at once, and takes silence for an end; or tries at once. */
  check(): void {
    if (!this.#connected) {
      this.#hurry.abort();
      return;
    }
    this.#send("ping", null, { timeoutMs: CHECK_MS }).catch((error: FsError) => {
      if (error.code === "timeout") this.#lost("no answer after the clock jumped");
    });
  }
  pause(): void {
    if (!this.#connected) this.#lastError = unreachable(this.url, "it was told to work offline");
    if (this.#resumed !== null) return;
    this.#resumed = Promise.withResolvers();
    this.#hurry.abort();
    this.#lost("it was told to work offline");
  }
  resume(): void {
    this.#resumed?.resolve();
    this.#resumed = null;
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    let backoff = FIRST_BACKOFF_MS;
    while (!signal.aborted) {
      if (this.#resumed !== null) {
        await this.#resumed.promise;
        backoff = FIRST_BACKOFF_MS;
        continue;
      }
      const began = await this.#connectOnce();
      if (signal.aborted) return;
      if (began) backoff = FIRST_BACKOFF_MS;
      const wait = backoff * (0.5 + this.#random.unit() / 2);
      backoff = Math.min(backoff * 2, LAST_BACKOFF_MS);
      this.#hurry = new AbortController();
      try {
        await this.#clock.sleep(wait, AbortSignal.any([signal, this.#hurry.signal]));
      } catch {
        backoff = FIRST_BACKOFF_MS;
      }
    }
  }

  /** One connection from its beginning to its end. Was there a welcome? */
  #connectOnce(): Promise<boolean> {
    return new Promise((resolve) => {
      let welcomed = false;
      let ended = false;
      const end = (error: FsError, reason: string) => {
        if (ended) return;
        ended = true;
        stopTimer();
        this.#socket = null;
        socket.drop();
        this.#lastError = error;
        this.#connected = false;
        this.#out = [];
        this.#outBytes = 0;
        this.#forgetInbox();
        const cut = [...this.#pending.values()];
        this.#pending.clear();
        for (const call of cut) call.reject(error);
        for (const listener of [...this.#downListeners]) listener(reason);
        resolve(welcomed);
      };
      const stopTimer = this.#clock.after(
        CONNECT_MS,
        () => end(unreachable(this.url, `no answer within ${CONNECT_MS / 1000} s`), "no answer"),
      );
      this.#lost = (reason) => end(unreachable(this.url, reason), reason);
      const socket = this.#peer.connect(`${this.url.replace(/^http/, "ws")}/v1/ws`, this.http.authorization(), {
        open: () => {
          this.#lastHeard = this.#clock.monotonic();
          const { after, epoch } = this.resumeFrom();
          const { device, host } = this.#options;
          this.#send("hello", { protocol: PROTOCOL_VERSION, device, host, after, epoch }, { timeoutMs: CONNECT_MS })
            .then((welcome) => {
              if (ended || this.#welcome === welcome) return;
            }, (error: FsError) => end(error, error.message));
        },
        message: (bytes) => {
          this.#lastHeard = this.#clock.monotonic();
          try {
            if (bytes === null) throw new FsError("invalid_input", "a text message");
            this.#receive(decodeReplies(bytes), (value) => {
              const welcome = CALLS.hello.result.decode(value);
              stopTimer();
              welcomed = true;
              this.#welcome = welcome;
              this.#connected = true;
              for (const listener of [...this.#upListeners]) listener(welcome);
            });
          } catch (error) {
            const cause = toFsError(error).message;
            end(new FsError("internal", `${this.url} does not speak this protocol: ${cause}`), cause);
          }
        },
        close: (code, reason) => {
          if (/status code: 401|status code: 403/.test(reason) || code === CLOSE_DENIED) {
            const detail = code === CLOSE_DENIED && reason !== ""
              ? reason
              : this.#options.token === null
              ? "it asks for a token; give one with --token-file or ANYFS_TOKEN"
              : 'the token is wrong, expired or revoked; make one with "anyfs token create" on the server';
            end(tokenRefused(this.url, detail), `access denied: ${detail}`);
          } else {
            const cause = reason === "" ? (welcomed ? "the connection was closed" : "the connection broke") : reason;
            end(unreachable(this.url, welcomed ? cause : causeOf(new Error(cause))), cause);
          }
        },
      });
      this.#socket = socket;
      if (this.#closing.signal.aborted) end(closedError(this.url), "closed");
    });
  }

  #receive(frames: ServerFrame[], onWelcome: (value: unknown) => void): void {
    if (this.#inbox !== null) {
      for (const frame of frames) this.#inbox.push(frame);
      return;
    }
    for (const [i, frame] of frames.entries()) {
      if (frame.kind === "push") {
        if (this.#answered !== null && isNews(frame.push, frame.value)) {
          this.#inbox = frames.slice(i);
          return;
        }
        this.#push(frame.push, frame.value);
        continue;
      }
      const call = this.#pending.get(frame.id);
      if (call === undefined) continue;
      this.#pending.delete(frame.id);
      this.#answered ??= nextTurn(() => this.#takenIn(onWelcome));
      if (frame.kind === "error") call.reject(failureToError(frame.failure, call.method));
      else {
        if (frame.id === this.#helloId) onWelcome(frame.value);
        call.settle(frame.value);
      }
    }
  }
  /** Whoever waited for the answers so far has taken them in: news that came behind them may be heard. */
  #takenIn(onWelcome: (value: unknown) => void): void {
    this.#answered = null;
    const inbox = this.#inbox;
    this.#inbox = null;
    if (inbox === null) return;
    try {
      this.#receive(inbox, onWelcome);
    } catch (error) {
      this.#lost(toFsError(error).message);
    }
  }
  #forgetInbox(): void {
    this.#answered?.();
    this.#answered = null;
    this.#inbox = null;
  }

  #push<K extends PushKind>(kind: K, raw: unknown): void {
    const value = PUSHES[kind].decode(raw);
    for (const listener of this.#pushListeners.get(kind) ?? []) (listener as (value: Pushes[K]) => void)(value);
  }

  async putChunks(
    chunks: readonly { hash: Uint8Array; bytes: Uint8Array }[],
    caller?: AbortSignal,
  ): Promise<void> {
    let from = 0;
    while (from < chunks.length) {
      let to = from;
      let size = 0;
      while (to < chunks.length) {
        const next = 36 + (chunks[to]?.bytes.length ?? 0);
        if (size + next > MAX_CHUNKS_BODY && to > from) break;
        size += next;
        to++;
      }
      const body = encodeChunks(chunks.slice(from, to));
      await this.#bulk(caller, (signal) =>
        this.http.request({
          method: "POST",
          path: "/v1/chunks",
          headers: { "content-type": "application/octet-stream" },
          body,
          signal,
        }).then((answer) => answer.bytes()));
      from = to;
    }
  }

  readContent(
    hash: string,
    offset: number,
    length: number,
    caller?: AbortSignal,
    spare?: Uint8Array<ArrayBuffer>,
  ): Promise<Uint8Array<ArrayBuffer>> {
    let memory = spare;
    if (length === 0) return Promise.resolve(new Uint8Array());
    return this.#bulk(caller, async (signal) => {
      const answer = await this.http.request({
        method: "GET",
        path: `/v1/contents/${hash}`,
        headers: { range: `bytes=${offset}-${offset + length - 1}` },
        signal,
      });
      const into = memory;
      memory = undefined;
      return await answer.bytes(length, into);
    });
  }

  /** What may be repeated is repeated once when the connection broke: the server may have closed an idle one just then. */
  async #bulk<T>(caller: AbortSignal | undefined, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const own = new AbortController();
    const { signal } = own;
    const stop = () => own.abort(caller?.reason);
    if (caller?.aborted === true) stop();
    caller?.addEventListener("abort", stop, { once: true });
    this.#transfers.add(own);
    try {
      return await run(signal);
    } catch (error) {
      if (!(error instanceof FsError) || error.code !== "unavailable" || !this.#connected || signal.aborted) {
        throw error;
      }
      return await run(signal);
    } finally {
      this.#transfers.delete(own);
      caller?.removeEventListener("abort", stop);
    }
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#stopHeartbeat();
    this.#flush();
    const error = closedError(this.url);
    this.#closing.abort(error);
    this.#lastError = error;
    this.#connected = false;
    this.resume();
    this.#socket?.close(1000, "done");
    const cut = [...this.#pending.values()];
    this.#pending.clear();
    for (const call of cut) call.reject(error);
    this.#stopSweep?.();
    this.#stopSweep = null;
    this.#lost("closed");
    await this.#loop;
    this.#peer.close();
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * News of others must not be heard before the answers that came earlier; that a number moved on or is durable may.
 * `raw` is not decoded yet.
 */
function isNews(push: PushKind, raw: unknown): boolean {
  if (push === "durable") return false;
  if (push !== "changes") return true;
  const { changes } = (raw ?? {}) as { changes?: unknown };
  return !Array.isArray(changes) || changes.length > 0;
}

function remove<T>(list: T[], item: T): void {
  const at = list.indexOf(item);
  if (at >= 0) list.splice(at, 1);
}

function closedError(url: string): FsError {
  return new FsError("cancelled", `the connection to ${url} was closed`);
}
