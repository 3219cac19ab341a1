/** Session: one client's WebSocket on the server: its calls, the changes it is told, and what it has announced. */
import { FsError, toFsError } from "../fs/error.ts";
import type { Serial } from "../fs/serial.ts";
import type { ServerCore } from "../indexed/core.ts";
import { type DeviceInfo, GROUP_OVERLAP } from "../index/index.ts";
import type { Clock } from "../platform/clock.ts";
import type { Socket, SocketEvents } from "../platform/sockets.ts";
import type { Access } from "./auth.ts";
import { type BusyTable, MAX_ANNOUNCED } from "./busy.ts";
import { CLOSE_DENIED, CLOSE_PROTOCOL, CLOSE_REPLACED, CLOSE_SLOW } from "./close_codes.ts";
import { attachStats, type Batch, type Feed } from "./feed.ts";
import type { Rate } from "./limits.ts";
import { type Applied, type Calls, type Hello, type Method, PROTOCOL_VERSION, type Welcome } from "./protocol.ts";
import { MAX_RESERVED, type ReservedNames } from "./reserved_names.ts";
import type { SharedLocks } from "./shared_locks.ts";
import {
  CALLS,
  type ClientFrame,
  decodeCalls,
  encodeFailure,
  encodePush,
  encodeResult,
  joinFrames,
  MAX_ENTRIES,
} from "./wire.ts";

/** What all sessions of a server share. */
export interface SessionHub {
  readonly core: ServerCore;
  /** How many devices are connected besides one that is. */
  peers(): number;
  readonly clock: Clock;
  readonly feed: Feed;
  readonly busy: BusyTable;
  readonly locks: SharedLocks;
  readonly names: ReservedNames;
  /** Requests of one device are applied one after the other, whatever connection they come by. */
  readonly devices: Serial;
  readonly run: string;
  /** First number of this run of the server: those between bootSeq and this are of a run that may have lost them. */
  readonly startSeq: number;
  /** Last number at the time when changes were taken back in this run; 0: never. */
  readonly voidSeq: number;
  /** Nobody holds back what somebody else than the device `except` has closed. Resolves in bounded time. */
  hurried(except: number): Promise<void>;
  /** All sessions but that of the device `except` have taken in the changes up to `seq`. Resolves in bounded time. */
  heard(seq: number, except: number): Promise<unknown>;
  /** The session has said who it is; an earlier session of the device has to go. */
  joined(session: Session): void;
  left(session: Session): void;
  /** Changes that were told have been taken back. */
  rolledBack(error: Error): void;
}

/** Bytes waiting for a client that does not read; beyond, it is cut off and may resume. */
const MAX_BUFFERED = 16 * 1024 * 1024;
/** Catching up waits while so many bytes are not taken. */
const CATCH_UP_BUFFERED = 2 * 1024 * 1024;
const CATCH_UP_PAGE = 1000;
/** A message to the client is sent when it has this many bytes, though more may follow. */
const MESSAGE_BYTES = 1024 * 1024;
/** Calls of one connection that may be under way at once. */
const MAX_RUNNING = 10_000;
/** How long others wait at most for what a lone client holds back, milliseconds. */
const HURRY_MS = 2000;
/** How long a change waits at most until another client has taken it in, milliseconds. */
const HEAR_MS = 1000;
/** A client that never took one of so many changes in faster than this is far away: nobody waits for it. */
const NEAR_MS = 25;
const NEAR_TRIES = 20;
/** Answers that are ready within so many turns of the microtask queue share a message. */
const GATHER_TURNS = 12;

export class Session implements SocketEvents {
  readonly access: Access;
  readonly #hub: SessionHub;
  readonly #socket: Socket;
  readonly #rate: Rate;
  readonly #ended = new AbortController();
  #device: DeviceInfo | null = null;
  #greeted = false;
  #out: Uint8Array[] = [];
  #outBytes = 0;
  #gathering = false;
  #running = 0;
  /** Changes up to this number were told, or are not to be. */
  #cursor = 0;
  #live = false;
  /** Our own changes moved the number on; said with the next message. */
  #ownSeq = 0;
  #durable = 0;
  #durableTold = 0;
  #stopFeed: () => void = () => {};
  #hurries = 0;
  readonly #hurrying = new Map<number, () => void>();
  /** The last change of others that was told, and up to where the client has taken them in. */
  #foreignSeq = 0;
  #heardSeq = 0;
  /** It takes changes in at once; not waited for before it shows that (again). */
  #prompt = false;
  /** A change whose way there and back is timed: its number and when it was told; 0: none. */
  #timedSeq = 0;
  #timedAt = 0;
  #timed = 0;
  #near: boolean;
  #hearing: { readonly seq: number; readonly done: () => void }[] = [];
  /** What is announced is taken in, in order, up to here. */
  #announcing: Promise<void> = Promise.resolve();
  /** It let a hurry pass without a word: not asked again before it speaks. */
  #silent = false;

  /** `near`: on this machine. */
  constructor(hub: SessionHub, socket: Socket, access: Access, rate: Rate, near: boolean) {
    this.#near = near;
    this.#hub = hub;
    this.#socket = socket;
    this.access = access;
    this.#rate = rate;
  }

  /** 0 before the hello. */
  get device(): number {
    return this.#device?.no ?? 0;
  }

  open(): void {}

  close(): void {
    if (this.#ended.signal.aborted) return;
    this.#ended.abort();
    this.#stopFeed();
    this.#out = [];
    for (const done of this.#hurrying.values()) done();
    for (const { done } of this.#hearing) done();
    if (this.#device !== null) this.#hub.left(this);
  }

  /** Ends the connection from our side, what is queued first. */
  end(code: number, reason: string): void {
    this.#flush();
    this.#socket.close(code, reason);
    this.close();
  }
  replaced(): void {
    this.end(CLOSE_REPLACED, "another connection of this device took over");
  }
  denied(reason: string): void {
    this.end(CLOSE_DENIED, reason);
  }

  message(bytes: Uint8Array | null): void {
    if (this.#ended.signal.aborted) return;
    this.#silent = false;
    try {
      if (bytes === null) throw new FsError("invalid_input", "messages are binary (MessagePack), not text");
      const calls = decodeCalls(bytes);
      if (this.#running + calls.length > MAX_RUNNING) {
        throw new FsError("rate_limited", `more than ${MAX_RUNNING} calls at once`);
      }
      for (const call of calls) void this.#run(call);
    } catch (error) {
      this.end(CLOSE_PROTOCOL, toFsError(error).message);
    }
  }

  async #run(call: ClientFrame): Promise<void> {
    this.#running++;
    try {
      const waiting = this.#rate.tryTake();
      // A mount must not see an error because it is fast: it waits.
      if (waiting > 0) await this.#rate.take(this.#ended.signal);
      await this.#answer(call.id, call.method, call.params);
    } catch (error) {
      if (this.#ended.signal.aborted) return;
      this.#send(encodeFailure(call.id, toFsError(error, { operation: call.method })));
    } finally {
      this.#running--;
    }
  }

  async #answer<M extends Method>(id: number, method: M, raw: unknown): Promise<void> {
    const params = CALLS[method].params.decode(raw);
    if (method === "hello") {
      await this.#hello(id, params as Hello);
      return;
    }
    if (!this.#greeted) throw new FsError("invalid_input", `${method} before hello`, { operation: method });
    const handler: (this: Session, params: Calls[M]["params"]) => Promise<Calls[M]["result"]> = HANDLERS[method];
    const result = READS.has(method)
      ? await this.#hub.feed.read(() => handler.call(this, params))
      : await handler.call(this, params);
    if (!this.#ended.signal.aborted) this.#send(encodeResult(id, method, result));
  }

  // --- hello and the change feed ---

  async #hello(id: number, hello: Hello): Promise<void> {
    const { core, run, startSeq, voidSeq } = this.#hub;
    if (this.#device !== null) throw new FsError("invalid_input", "hello was said already", { operation: "hello" });
    if (hello.protocol !== PROTOCOL_VERSION) {
      throw new FsError(
        "not_supported",
        `the client speaks protocol ${hello.protocol}, this server ${PROTOCOL_VERSION}; use the same version of anyfs`,
        { operation: "hello" },
      );
    }
    if (!/^[\w-]{8,64}$/.test(hello.device)) {
      throw new FsError("invalid_input", "a device names itself by a UUID", { operation: "hello" });
    }
    if (this.access.path !== "/") {
      throw new FsError(
        "permission_denied",
        `this token is for ${this.access.path} only; a mount needs a token for the whole tree`,
        { operation: "hello" },
      );
    }
    const device = await core.index.device(hello.device, hello.host);
    if (this.#ended.signal.aborted) return;
    await this.#hub.hurried(device.no);
    if (this.#ended.signal.aborted) return;
    this.#device = device;
    this.#hub.joined(this);
    // What an earlier connection of the device sent is applied or not before we say how far it came.
    const { lastRequest } = await this.#hub.devices.run(
      String(device.no),
      () => core.index.device(hello.device, hello.host),
    );
    const seq = await core.index.lastSeq();
    const { epoch, bootSeq } = core.index;
    const { after } = hello;
    const isVoid = after !== null &&
      (after > seq || (after > bootSeq && after < startSeq) || (after > bootSeq && after <= voidSeq));
    let reset = (hello.epoch !== null && hello.epoch !== epoch) || isVoid;
    if (!reset && after !== null && await core.index.changesSince(after, 1) === null) reset = true;
    if (this.#ended.signal.aborted) return;
    this.#cursor = reset || after === null ? seq : after;
    const welcome: Welcome = {
      protocol: PROTOCOL_VERSION,
      device: device.no,
      lastRequest,
      epoch,
      bootSeq,
      seq,
      reset,
      run,
    };
    this.#greeted = true;
    this.#send(encodeResult(id, "hello", welcome));
    this.#stopFeed = this.#hub.feed.listen({ device: device.no, batch: (batch) => this.#tell(batch) });
    for (const ino of this.#hub.busy.busyFor(device.no)) this.tellBusy(ino, true);
    this.tellPeers(this.#hub.peers());
    // An earlier connection may have ended before it could tell.
    void core.index.settle().then(() => this.#isDurable(lastRequest), () => {});
    void this.#catchUp().catch((error) => this.end(1011, toFsError(error).message));
  }

  /** Reads the feed from our number on until there is no more; from then on batches are told as they come. */
  async #catchUp(): Promise<void> {
    const { index } = this.#hub.core;
    let limit = CATCH_UP_PAGE;
    while (!this.#ended.signal.aborted) {
      while (this.#socket.buffered > CATCH_UP_BUFFERED) await this.#hub.clock.sleep(20, this.#ended.signal);
      // What is on its way through the feed now comes from the index too; whichever tells it first, the cursor sees to.
      const page = await index.changesSince(this.#cursor, limit);
      if (page === null) {
        // So much changed while we read that the beginning is gone.
        this.end(1012, "too far behind; connect anew");
        return;
      }
      const full = page.length === limit;
      const last = page.at(-1);
      if (last === undefined) {
        this.#live = true;
        return;
      }
      const whole = full ? page.filter((c) => c.device !== last.device || c.request !== last.request) : page;
      if (whole.length === 0 && limit < 16 * CATCH_UP_PAGE) {
        limit *= 4;
        continue;
      }
      limit = CATCH_UP_PAGE;
      const told = whole.length === 0 ? page : whole;
      const seq = told.at(-1)?.seq ?? this.#cursor;
      const changes = await attachStats(index, told.filter((c) => c.device !== this.device));
      this.#cursor = seq;
      if (changes.length > 0) this.#foreignSeq = seq;
      this.#send(encodePush("changes", { seq, changes }));
    }
  }

  #tell(batch: Batch): void {
    if (!this.#live || batch.lastSeq <= this.#cursor) return;
    this.#cursor = batch.lastSeq;
    if (batch.device === this.device) {
      this.#ownSeq = batch.lastSeq;
      this.#gather();
    } else {
      this.#ownSeq = 0;
      this.#foreignSeq = batch.lastSeq;
      if (this.#timedSeq === 0) {
        this.#timedSeq = batch.lastSeq;
        this.#timedAt = this.#hub.clock.monotonic();
      }
      this.#send(batch.frame);
    }
  }
  /**
   * The client has taken in the changes up to `seq`, or it can't be waited for: who opens a file there after this reads no
   * older version. A client that lets the time pass is not waited for again before it has caught up.
   */
  async hears(seq: number): Promise<void> {
    const upTo = Math.min(seq, this.#foreignSeq);
    const far = !this.#near && this.#timed >= NEAR_TRIES;
    if (!this.#prompt || far || upTo <= this.#heardSeq || this.#ended.signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#hearing.push({ seq: upTo, done: resolve });
    // Not with the next turn: it is waited for.
    this.#flush();
    const cancel = this.#hub.clock.after(HEAR_MS, () => {
      this.#prompt = false;
      resolve();
    }, true);
    await promise;
    cancel();
  }
  tellBusy(ino: number, pending: boolean): void {
    if (this.#greeted) this.#send(encodePush("busy", { ino, pending }));
  }
  tellPeers(others: number): void {
    if (this.#greeted) this.#send(encodePush("peers", { others }));
  }
  /** Asks for what the client holds back while nobody else is connected; resolves when it has come, or after `HURRY_MS`. */
  async hurry(): Promise<void> {
    if (!this.#greeted || this.#silent || this.#ended.signal.aborted) return;
    const n = ++this.#hurries;
    const came = new Promise<void>((resolve) => this.#hurrying.set(n, resolve));
    const cancel = this.#hub.clock.after(HURRY_MS, () => {
      this.#silent = true;
      this.#hurrying.get(n)?.();
    }, true);
    this.#send(encodePush("hurry", { n }));
    this.#flush();
    await came;
    cancel();
    this.#hurrying.delete(n);
  }
  tellRecall(ino: number): void {
    if (this.#greeted) this.#send(encodePush("recall", { ino }));
  }
  tellReset(seq: number): void {
    if (this.#greeted) this.#send(encodePush("reset", { seq }));
  }

  // --- sending ---

  #send(frame: Uint8Array): void {
    if (this.#ended.signal.aborted) return;
    this.#out.push(frame);
    this.#outBytes += frame.length;
    if (this.#outBytes >= MESSAGE_BYTES) this.#flush();
    else this.#gather();
  }
  #gather(): void {
    if (this.#gathering) return;
    this.#gathering = true;
    void (async () => {
      for (let i = 0; i < GATHER_TURNS; i++) await null;
      this.#gathering = false;
      this.#flush();
    })();
  }
  #flush(): void {
    if (this.#ended.signal.aborted) return;
    if (this.#ownSeq > 0) {
      this.#out.push(encodePush("changes", { seq: this.#ownSeq, changes: [] }));
      this.#ownSeq = 0;
    }
    if (this.#durable > this.#durableTold) {
      this.#durableTold = this.#durable;
      this.#out.push(encodePush("durable", { request: this.#durable }));
    }
    if (this.#out.length === 0) return;
    const message = joinFrames(this.#out);
    this.#out = [];
    this.#outBytes = 0;
    this.#socket.send(message);
    if (this.#socket.buffered > MAX_BUFFERED) {
      this.#socket.close(CLOSE_SLOW, `more than ${MAX_BUFFERED} bytes unread; resume`);
      this.close();
      this.#socket.drop();
    }
  }

  // --- calls ---

  static readonly handlers: {
    readonly [M in Method]: (this: Session, params: Calls[M]["params"]) => Promise<Calls[M]["result"]>;
  } = {
    hello: () => Promise.reject(new FsError("internal", "hello is answered elsewhere")),
    stat({ ino }) {
      return this.#hub.core.index.stat(ino);
    },
    writtenByMe({ ino }) {
      return this.#hub.core.index.writtenBy(this.device, ino);
    },
    lookup({ parent, name }) {
      return this.#hub.core.index.lookup(parent, name);
    },
    readDir({ parent, after, limit }) {
      return this.#hub.core.index.readDir(parent, after, Math.min(limit, MAX_ENTRIES));
    },
    readLink({ ino }) {
      return this.#hub.core.index.readLink(ino);
    },
    getXattr({ ino, name }) {
      return this.#hub.core.index.getXattr(ino, name);
    },
    listXattr({ ino }) {
      return this.#hub.core.index.listXattr(ino);
    },
    tiersOf({ content }) {
      return this.#hub.core.index.tiersOf(content, this.#hub.core.tiers.bits);
    },
    manifest({ content }) {
      return this.#hub.core.index.manifest(content);
    },
    segment({ hash }) {
      return this.#hub.core.index.segment(hash);
    },
    async missing({ chunks }) {
      this.#mayWrite("missing");
      return await this.#hub.core.index.missing(chunks);
    },
    async putSegment({ blob }) {
      this.#mayWrite("putSegment");
      await this.#hub.core.index.addSegment(blob);
      return null;
    },
    apply(call) {
      return this.#apply(call);
    },
    statFs() {
      return this.#hub.core.fs.statFs();
    },
    async announce({ ino, pending }) {
      this.#mayWrite("announce");
      if (pending && this.#hub.busy.countOf(this.device) >= MAX_ANNOUNCED) {
        throw new FsError("rate_limited", `more than ${MAX_ANNOUNCED} files are announced`, { operation: "announce" });
      }
      const turn = this.#announcing.then(async () => {
        // What was delivered before is told first.
        if (!pending) await this.#hub.feed.told();
        if (!this.#ended.signal.aborted) this.#hub.busy.announce(this.device, ino, pending);
      });
      this.#announcing = turn.catch(() => {});
      await turn;
      return null;
    },
    async waitDelivered({ ino, timeoutMs }) {
      const delivered = await this.#hub.busy.wait(ino, this.device, timeoutMs, this.#ended.signal);
      await this.#hub.feed.told();
      return delivered;
    },
    async lock(call) {
      if (call.type === "write") this.#mayWrite("lock");
      const answer = await this.#hub.locks.lock(this.device, call, this.#ended.signal);
      // Who has the lock has heard of everything that was done before it was released.
      if (answer.state === "granted") await this.#hub.feed.told();
      return answer;
    },
    cancelLock({ ticket }) {
      this.#hub.locks.cancel(this.device, ticket);
      return Promise.resolve(null);
    },
    unlock(call) {
      this.#hub.locks.unlock(this.device, call);
      return Promise.resolve(null);
    },
    testLock(call) {
      return this.#hub.locks.test(this.device, call, this.#ended.signal);
    },
    claimLocks(call) {
      return this.#hub.locks.claim(this.device, call);
    },
    giveBackLocks(call) {
      this.#hub.locks.giveBack(this.device, call);
      return Promise.resolve(null);
    },
    async reserveName({ parent, name, from }) {
      this.#mayWrite("reserveName");
      const { names, core } = this.#hub;
      if (names.countOf(this.device) >= MAX_RESERVED || !names.take(this.device, parent, name, from)) {
        return { free: false, ino: 0 };
      }
      // Looked up after it was reserved: whoever was faster is seen.
      return { free: true, ino: (await core.index.lookup(parent, name))?.ino ?? 0 };
    },
    freeName({ parent, name }) {
      this.#hub.names.give(this.device, parent, name);
      return Promise.resolve(null);
    },
    ping() {
      return this.#hub.core.index.lastSeq();
    },
    heard({ seq }) {
      this.#heardSeq = Math.max(this.#heardSeq, seq);
      if (this.#heardSeq >= this.#foreignSeq) this.#prompt = true;
      if (this.#timedSeq > 0 && this.#heardSeq >= this.#timedSeq) {
        this.#timed++;
        // One that was fast once is near, and only busy when it is not.
        if (this.#hub.clock.monotonic() - this.#timedAt <= NEAR_MS) this.#near = true;
        this.#timedSeq = 0;
      }
      const waiting = this.#hearing;
      this.#hearing = waiting.filter((each) => each.seq > this.#heardSeq);
      for (const each of waiting) if (each.seq <= this.#heardSeq) each.done();
      return Promise.resolve(null);
    },
    hurried({ n }) {
      this.#hurrying.get(n)?.();
      return Promise.resolve(null);
    },
  };

  #mayWrite(operation: string): void {
    if (this.access.scope === "read") {
      throw new FsError("read_only", "this token may read only", { operation });
    }
  }

  async #apply(call: Calls["apply"]["params"]): Promise<Applied> {
    this.#mayWrite("apply");
    const { core, devices, feed, names } = this.#hub;
    const { request, previous, group, urgent, chunks, manifests, ops } = call;
    // Bytes may be stored side by side; the operations take effect in the order they were sent.
    const stored = chunks.length === 0 ? Promise.resolve() : core.chunks.put(chunks, { verify: true });
    stored.catch(() => {});
    const written = await devices.run(String(this.device), async () => {
      if (this.#ended.signal.aborted) throw new FsError("unavailable", "the connection has ended");
      try {
        await stored;
        const applied = await core.index.apply({
          device: this.device,
          request,
          previous,
          group,
          lazy: !urgent && request > 0,
          manifests,
          ops,
        });
        names.applied(this.device, request, ops);
        return applied;
      } catch (error) {
        // Only a welcome tells the sender which.
        if (error instanceof FsError && error.details.operation === GROUP_OVERLAP) {
          this.end(1012, error.message);
          throw error;
        }
        // A failure the index remembers is as final, and as durable, as a success.
        if (request > 0 && this.#device !== null) {
          const { lastRequest } = await core.index.device(this.#device.id, this.#device.host);
          if (lastRequest >= request) {
            this.#isDurable(request);
            names.applied(this.device, request, ops);
          }
        }
        throw error;
      }
    });
    written.durable.then(() => this.#isDurable(request), (error: Error) => this.#hub.rolledBack(error));
    // Others hear of it no later than the sender knows that it is done (close-to-open).
    await feed.told();
    const { done, stats, seq, repeated } = written.value;
    await this.#hub.heard(seq, this.device);
    return { done, stats, seq, repeated };
  }

  #isDurable(request: number): void {
    if (request <= this.#durable || this.#ended.signal.aborted) return;
    this.#durable = request;
    this.#gather();
  }
}

const HANDLERS = Session.handlers;
/** Calls that tell what the tree is like now. */
const READS: ReadonlySet<Method> = new Set(["stat", "lookup", "readDir", "readLink", "getXattr", "listXattr"]);
