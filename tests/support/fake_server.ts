/** A server without a network: a real index with chunks in memory, and links to it that can be cut. For tests of the client. */
import { setImmediate } from "node:timers";
import { FsError } from "../../core/fs/error.ts";
import { SqliteIndex } from "../../core/index/sqlite_index.ts";
import type { Change } from "../../core/index/ops.ts";
import { systemClock } from "../../core/platform/clock.ts";
import { systemRandom } from "../../core/platform/random.ts";
import type { Calls, Method, PushedChange, Pushes, PushKind, ServerLink, Welcome } from "../../core/remote/protocol.ts";
import { forgetfulLocks } from "../../core/remote/lock_memory.ts";
import { ReservedNames } from "../../core/remote/reserved_names.ts";
import { SharedLocks } from "../../core/remote/shared_locks.ts";
import { CALLS, decodeCalls, encodeCall, joinFrames } from "../../core/remote/wire.ts";
import { hex, sha256 } from "../../core/store/hash.ts";
import { decodeManifest } from "../../core/store/manifest.ts";

export class FakeServer {
  readonly index: SqliteIndex;
  readonly chunks = new Map<string, Uint8Array>();
  readonly links = new Set<FakeLink>();
  readonly busy = new Map<number, FakeLink>();
  run = systemRandom.uuid();
  readonly names = new ReservedNames();
  readonly locks = new SharedLocks({
    clock: systemClock,
    run: this.run,
    leaseMs: 30_000,
    memory: forgetfulLocks(),
    recall: (device, ino) => [...this.links].find((link) => link.device === device)?.recall(ino) ?? false,
    log: () => {},
  });
  packId = 0;

  constructor(path = ":memory:") {
    this.index = new SqliteIndex({
      path,
      clock: systemClock,
      random: systemRandom,
      hotBit: 1,
      targets: [],
      data: { hasUnsynced: () => false, sync: () => Promise.resolve() },
    });
    this.index.onChanges((changes) => {
      for (const link of this.links) link.feed(changes);
    });
  }
  async put(chunks: readonly { hash: Uint8Array; bytes: Uint8Array }[]): Promise<void> {
    if (this.packId === 0) this.packId = await this.index.createPack();
    for (const { hash, bytes } of chunks) {
      if (hex(sha256(bytes)) !== hex(hash)) throw new FsError("corrupt", "a chunk with the wrong hash");
      this.chunks.set(hex(hash), bytes.slice());
    }
    await this.index.addChunks(
      this.packId,
      chunks.map(({ hash, bytes }) => ({ hash, offset: 0, stored: bytes.length, raw: bytes.length, flags: 0 })),
      0,
    );
  }
  /** The bytes of a content, whole. */
  async content(hash: string | null): Promise<Uint8Array<ArrayBuffer>> {
    if (hash === null) return new Uint8Array();
    const manifest = await this.index.manifest(hash);
    if (manifest === null) throw new FsError("not_found", `no content ${hash}`);
    const view = decodeManifest(manifest);
    const out = new Uint8Array(view.size);
    const spans = await view.chunksIn(0, view.size, async (segment) => {
      const blob = await this.index.segment(segment);
      if (blob === null) throw new FsError("not_found", "no segment");
      return blob;
    });
    for (const span of spans) {
      const bytes = this.chunks.get(hex(span.hash));
      if (bytes !== undefined) out.set(bytes, span.offset);
    }
    return out;
  }
  tellPeers(): void {
    for (const link of this.links) link.tellPeers();
  }
  link(device: string, host = device): FakeLink {
    return new FakeLink(this, device, host);
  }
}

export class FakeLink implements ServerLink {
  connected = false;
  resumeFrom: () => { after: number | null; epoch: string | null } = () => ({ after: null, epoch: null });
  /** Called before each call; a test delays or fails it. */
  before: (method: Method, params: unknown) => Promise<void> = () => Promise.resolve();
  /** Called when the server has done what was asked and has not answered yet; a test cuts the connection there. */
  after: (method: Method) => void | Promise<void> = () => {};
  device = 0;
  /** No news of durability: as if the server's disk took for ever. */
  holdDurable = false;
  /** News waits for this. */
  newsAfter: Promise<void> = Promise.resolve();
  #ups: ((welcome: Welcome) => void)[] = [];
  #downs: ((reason: string) => void)[] = [];
  #pushes = new Map<PushKind, ((value: never) => void)[]>();
  #line: Promise<unknown> = Promise.resolve();
  /** Number of the present connection. */
  #session = 0;
  #hurrying: (() => void)[] = [];

  constructor(public server: FakeServer, readonly id: string, readonly host: string) {}

  onUp(listener: (welcome: Welcome) => void): void {
    this.#ups.push(listener);
  }
  onDown(listener: (reason: string) => void): void {
    this.#downs.push(listener);
  }
  onPush<K extends PushKind>(kind: K, listener: (value: Pushes[K]) => void): void {
    this.#pushes.set(kind, [...(this.#pushes.get(kind) ?? []), listener as (value: never) => void]);
  }
  #push<K extends PushKind>(kind: K, value: Pushes[K]): void {
    if (!this.connected) return;
    for (const listener of this.#pushes.get(kind) ?? []) (listener as (value: Pushes[K]) => void)(value);
  }

  async connect(): Promise<void> {
    const { index } = this.server;
    // Who is alone may hold back what he has.
    const [only] = this.server.links;
    if (this.server.links.size === 1 && only !== undefined && only !== this) await only.hurry();
    const info = await index.device(this.id, this.host);
    this.device = info.no;
    const { after, epoch } = this.resumeFrom();
    const seq = await index.lastSeq();
    const missed = after === null ? null : await index.changesSince(after, 1_000_000);
    const reset = missed === null || (epoch !== null && epoch !== index.epoch);
    this.connected = true;
    const session = ++this.#session;
    this.server.links.add(this);
    this.server.locks.arrived(this.device);
    const welcome: Welcome = {
      protocol: 1,
      device: info.no,
      lastRequest: info.lastRequest,
      epoch: index.epoch,
      bootSeq: index.bootSeq,
      seq,
      reset,
      run: this.server.run,
    };
    for (const up of this.#ups) up(welcome);
    this.server.tellPeers();
    if (!reset && missed !== null) {
      const others = missed.filter((change) => change.device !== this.device);
      await (this.#line = this.#line.then(() => this.#tell(others, missed.at(-1)?.seq, session)));
    }
    await index.settle();
    this.#push("durable", { request: info.lastRequest });
  }
  disconnect(): void {
    if (!this.connected) return;
    this.connected = false;
    for (const resolve of this.#hurrying.splice(0)) resolve();
    this.server.links.delete(this);
    this.server.locks.left(this.device);
    this.server.names.left(this.device);
    for (const [ino, link] of this.server.busy) if (link === this) this.server.busy.delete(ino);
    for (const down of this.#downs) down("cut");
    this.server.tellPeers();
  }
  tellPeers(): void {
    this.#push("peers", { others: this.server.links.size - 1 });
  }
  /** Resolves when the client has shown what it holds back, was cut off, or is silent. */
  async hurry(): Promise<void> {
    const shown = Promise.withResolvers<void>();
    const silent = setTimeout(shown.resolve, 50);
    this.#hurrying.push(shown.resolve);
    this.#push("hurry", { n: this.#hurrying.length });
    await shown.promise;
    clearTimeout(silent);
  }
  recall(ino: number): boolean {
    this.#push("recall", { ino });
    return this.connected;
  }
  feed(changes: readonly Change[]): void {
    const seq = changes.at(-1)?.seq;
    const session = this.#session;
    this.#line = this.#line.then(() => this.#tell(changes.filter((c) => c.device !== this.device), seq, session));
  }
  async #tell(changes: readonly Change[], seq: number | undefined, session: number): Promise<void> {
    if (seq === undefined || session !== this.#session) return;
    const told: PushedChange[] = [];
    for (const change of changes) {
      // Who is gone is told nothing, and the index may be closed by then.
      if (!this.connected) return;
      told.push({ ...change, stat: change.ino === 0 ? null : await this.server.index.stat(change.ino) });
    }
    // As over a network: whoever had an answer before has taken it in (`#later` in core/remote/client.ts).
    await new Promise<void>((resolve) => setImmediate(resolve));
    await this.newsAfter;
    // What an earlier connection did not tell, this one has told already.
    if (session === this.#session) this.#push("changes", { seq, changes: told });
  }
  /** All that was applied is on the server's disk, and said to be. */
  async settled(): Promise<void> {
    const { index } = this.server;
    await index.settle();
    this.#push("durable", { request: (await index.device(this.id, this.host)).lastRequest });
  }
  /** Everything the server had to say has been said. */
  async told(): Promise<void> {
    await this.#line;
  }

  async call<M extends Method>(method: M, params: Calls[M]["params"]): Promise<Calls[M]["result"]> {
    if (!this.connected) throw new FsError("unavailable", "not connected");
    await this.before(method, params);
    if (!this.connected) throw new FsError("unavailable", "cut off");
    const { index } = this.server;
    const p = params as unknown as Record<string, never>;
    const run = async (): Promise<unknown> => {
      switch (method as Method) {
        case "stat":
          return await index.stat(p["ino"] ?? 0);
        case "writtenByMe":
          return await index.writtenBy(this.device, p["ino"] ?? 0);
        case "lookup":
          return await index.lookup(p["parent"] ?? 0, p["name"] ?? "");
        case "readDir":
          return await index.readDir(p["parent"] ?? 0, p["after"] ?? null, p["limit"] ?? 1000);
        case "readLink":
          return await index.readLink(p["ino"] ?? 0);
        case "getXattr":
          return await index.getXattr(p["ino"] ?? 0, p["name"] ?? "");
        case "listXattr":
          return await index.listXattr(p["ino"] ?? 0);
        case "tiersOf":
          return 1;
        case "manifest":
          return await index.manifest(p["content"] ?? "");
        case "segment":
          return await index.segment(p["hash"] ?? new Uint8Array());
        case "missing":
          return await index.missing(p["chunks"] ?? []);
        case "putSegment":
          await index.addSegment(p["blob"] ?? new Uint8Array());
          return null;
        case "apply": {
          const call = params as Calls["apply"]["params"];
          checkSendable(call);
          await this.server.put(call.chunks);
          const written = await index.apply({ device: this.device, ...call });
          this.server.names.applied(this.device, call.request, call.ops);
          void written.durable.then(() => {
            if (!this.holdDurable) this.#push("durable", { request: call.request });
          });
          return written.value;
        }
        case "lock":
          return await this.server.locks.lock(
            this.device,
            params as Calls["lock"]["params"],
            new AbortController().signal,
          );
        case "cancelLock":
          return this.server.locks.cancel(this.device, (params as Calls["cancelLock"]["params"]).ticket) ?? null;
        case "unlock":
          return this.server.locks.unlock(this.device, params as Calls["unlock"]["params"]) ?? null;
        case "testLock":
          return await this.server.locks.test(
            this.device,
            params as Calls["testLock"]["params"],
            new AbortController().signal,
          );
        case "claimLocks":
          return await this.server.locks.claim(this.device, params as Calls["claimLocks"]["params"]);
        case "giveBackLocks":
          return this.server.locks.giveBack(this.device, params as Calls["giveBackLocks"]["params"]) ?? null;
        case "reserveName": {
          const { parent, name, from } = params as Calls["reserveName"]["params"];
          const free = this.server.names.take(this.device, parent, name, from);
          return { free, ino: free ? (await index.lookup(parent, name))?.ino ?? 0 : 0 };
        }
        case "freeName": {
          const { parent, name } = params as Calls["freeName"]["params"];
          this.server.names.give(this.device, parent, name);
          return null;
        }
        case "statFs":
          return { total: 1e12, free: 5e11, files: 10, freeFiles: 1e9 };
        case "heard":
          return null;
        case "hurried":
          for (const resolve of this.#hurrying.splice(0)) resolve();
          return null;
        case "announce": {
          const { ino, pending } = params as Calls["announce"]["params"];
          if (pending) this.server.busy.set(ino, this);
          else this.server.busy.delete(ino);
          for (const link of this.server.links) if (link !== this) link.#push("busy", { ino, pending });
          return null;
        }
        case "waitDelivered":
          while (this.server.busy.has(p["ino"] ?? 0)) await systemClock.sleep(2);
          return true;
        default:
          return 0;
      }
    };
    const result = await run();
    await this.after(method);
    if (!this.connected) throw new FsError("unavailable", "cut off");
    return result as Calls[M]["result"];
  }
  async putChunks(chunks: readonly { hash: Uint8Array; bytes: Uint8Array }[]): Promise<void> {
    if (!this.connected) throw new FsError("unavailable", "not connected");
    await this.server.put(chunks);
  }
  async readContent(hash: string, offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    if (!this.connected) throw new FsError("unavailable", "not connected");
    await this.before("manifest", null);
    return (await this.server.content(hash)).slice(offset, offset + length);
  }
  checks = 0;
  check(): void {
    this.checks++;
  }
  pause(): void {
    this.disconnect();
  }
  resume(): void {
    void this.connect();
  }
  close(): Promise<void> {
    this.disconnect();
    return Promise.resolve();
  }
}

/** Throws internal, which a client tries again for good, when a real server would not take the call. */
function checkSendable(call: Calls["apply"]["params"]): void {
  try {
    const [sent] = decodeCalls(joinFrames([encodeCall(1, "apply", call)]));
    CALLS.apply.params.decode(sent?.params);
  } catch (error) {
    throw new FsError("internal", `not a call a server takes: ${error instanceof Error ? error.message : ""}`);
  }
}
