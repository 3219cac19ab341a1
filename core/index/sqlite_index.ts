/** SqliteIndex: the Index in one SQLite database (WAL journal mode, group commit). */
import { FsError, isFsErrorCode } from "../fs/error.ts";
import { decodeName, encodeName } from "../fs/names.ts";
import type { DirEntry, Stat } from "../fs/stat.ts";
import { type Clock, splitTime } from "../platform/clock.ts";
import { closeFd, lseekFd, O_RDONLY, openFd, SEEK_END, syncFd, syncFolder } from "../platform/posix.ts";
import type { Random } from "../platform/random.ts";
import { type Database, openDatabase } from "../platform/sqlite.ts";
import { type ChunkLocation, Contents, type WantedChunk } from "./contents.ts";
import { GroupCommit, sqlError, type Written } from "./group_commit.ts";
import {
  type ApplyRequest,
  type ApplyResult,
  type DeviceInfo,
  GROUP_OVERLAP,
  type Index,
  type StoredChunk,
  type StoredFailure,
  type TokenInfo,
} from "./index.ts";
import type { Change, OpDone } from "./ops.ts";
import { type PackInfo, Packs, type WalEntry } from "./packs.ts";
import { CHANGE_ENTRY, CHANGE_NODE, migrate } from "./schema.ts";
import { IndexThread } from "./index_thread.ts";
import { Statements } from "./statements.ts";
import { Tree } from "./tree.ts";
import { verifyIndex } from "./verify.ts";

export interface SqliteIndexOptions {
  /** Database file; `:memory:` for tests (then nothing is synced). */
  readonly path: string;
  readonly clock: Clock;
  readonly random: Random;
  /** TierBit of the hot tier, where new packs are filled. */
  readonly hotBit: number;
  /** TierBits of the tiers each new pack has to reach. */
  readonly targets: readonly number[];
  /** Pack bytes that a commit has to wait for. */
  readonly data: { hasUnsynced(): boolean; sync(): Promise<void> };
  /** A group was rolled back or the log could not be written: what was visible is not any more. */
  readonly onRollback?: (error: Error) => void;
}

/** How many changes the feed keeps: a client that missed more reads everything anew. */
const CHANGES_KEPT = 500_000;
/** Why requests of devices were refused is kept so long. */
const FAILURES_KEPT_MS = 400 * 86_400_000;
/** Left free after each start, so that numbers a crash took back are never given again. */
const SEQ_GAP = 1_000_000;

/** A checkpoint is due after so many changed rows: at most about 80 MB of write-ahead file. */
const CHECKPOINT_WRITES = 20_000;
/** With so many bytes of it left by a process that was killed, one is due at the first write: the next may be killed too. */
const INHERITED_LOG = 16 * 1024 * 1024;

interface Pending {
  kind: "entry" | "node";
  ino: number;
  parent: number;
  name: string;
}

export class SqliteIndex implements Index {
  readonly epoch: string;
  readonly bootSeq: number;
  readonly #db: Database;
  readonly #sql: Statements;
  readonly #tree: Tree;
  readonly #contents: Contents;
  readonly #packs: Packs;
  readonly #group: GroupCommit;
  readonly #options: SqliteIndexOptions;
  readonly #listeners = new Set<(changes: readonly Change[]) => void>();
  #pending: Pending[] = [];
  #seen = new Set<number>();
  #seq: number;
  #logFd = -1;
  /** Whose operations are applied now. */
  #device = 0;
  #deviceRequests = new Map<number, number>();
  #stopPrune: () => void = () => {};
  readonly #thread: IndexThread | null;
  /** `finish`: the thread has done most of it. */
  #checkpoint: "none" | "running" | "finish" = "none";
  #writesAtCheckpoint = 0;

  /** Opens or creates the index. Throws not_supported for a newer format, corrupt when the file is no database. */
  constructor(options: SqliteIndexOptions) {
    this.#options = options;
    const { path, clock } = options;
    let db: Database;
    try {
      db = openDatabase(path);
      db.exec("PRAGMA journal_mode=wal; PRAGMA synchronous=normal; PRAGMA cache_size=-65536; PRAGMA temp_store=memory");
      db.exec("PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=67108864; PRAGMA mmap_size=268435456");
      migrate(db, path);
    } catch (error) {
      if (error instanceof FsError) throw error;
      const cause = error instanceof Error ? error.message : String(error);
      const code = /not a database|malformed/.test(cause) ? "corrupt" : "unavailable";
      throw new FsError(code, `can't open the index ${path}: ${cause}`, { path, cause: error });
    }
    this.#db = db;
    this.#sql = new Statements(db);
    this.#contents = new Contents(this.#sql);
    this.#packs = new Packs(this.#sql);
    this.#tree = new Tree(this.#sql, {
      entry: (parent, name, ino) => this.#pending.push({ kind: "entry", ino, parent, name }),
      node: (ino) => {
        if (this.#seen.has(ino)) return;
        this.#seen.add(ino);
        this.#pending.push({ kind: "node", ino, parent: 0, name: "" });
      },
      contentRef: (hash, delta) => this.#contents.ref(hash, delta, clock.now()),
      written: (ino) =>
        void this.#sql.run(
          "INSERT INTO writers(ino, device) VALUES(?,?) ON CONFLICT(ino) DO UPDATE SET device=excluded.device",
          ino,
          this.#device,
        ),
      isOwn: (ino) => this.#isWriter(this.#device, ino),
    });
    try {
      db.exec("BEGIN IMMEDIATE");
      this.#tree.ensureRoot(splitTime(clock.now()));
      this.epoch = this.#meta("epoch") ?? this.#putMeta("epoch", options.random.uuid());
      this.bootSeq = (this.#sql.row("SELECT coalesce(max(seq), 0) FROM changes")?.[0] as number | undefined) ?? 0;
      const base = Math.max(this.bootSeq, Number(this.#meta("seq_base") ?? 0));
      this.#seq = base + (base === 0 ? 0 : SEQ_GAP);
      this.#putMeta("seq_base", String(this.#seq));
      db.exec("COMMIT");
    } catch (error) {
      db.close();
      throw sqlError(error);
    }
    this.#thread = path === ":memory:" ? null : new IndexThread(path);
    if (path !== ":memory:") {
      this.#logFd = openFd(`${path}-wal`, O_RDONLY);
      if (lseekFd(this.#logFd, 0, SEEK_END) > INHERITED_LOG) this.#writesAtCheckpoint = -CHECKPOINT_WRITES;
      syncFolder(path.slice(0, path.lastIndexOf("/")) || "/");
    }
    this.#group = new GroupCommit(db, {
      after: (ms, callback) => clock.after(ms, callback),
      hasUnsyncedData: () => options.data.hasUnsynced(),
      syncData: () => options.data.sync(),
      syncLog: async () => {
        if (this.#logFd < 0) return;
        await syncFd(this.#logFd);
        this.#checkpointIfGrown();
      },
      committed: () => this.#finishCheckpoint(),
      rolledBack: (error) => {
        this.#deviceRequests.clear();
        options.onRollback?.(error);
      },
    });
    this.#stopPrune = clock.every(60_000, () => void this.#prune().catch(() => {}));
  }

  #meta(key: string): string | null {
    return (this.#sql.row("SELECT value FROM meta WHERE key = ?", key)?.[0] as string | undefined) ?? null;
  }
  #putMeta(key: string, value: string): string {
    this.#sql.run(
      "INSERT INTO meta(key, value) VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value",
      key,
      value,
    );
    return value;
  }
  #now(): number {
    return Math.floor(this.#options.clock.now());
  }
  async #prune(): Promise<void> {
    const old = this.#seq - CHANGES_KEPT;
    const day = this.#now() - 86_400_000;
    await this.#group.write(() => {
      if (this.#sql.run("DELETE FROM changes WHERE seq <= ?", old) > 0) this.#putMeta("feed_floor", String(old));
      // A device that was put away for months still has to hear what became of its last request.
      this.#sql.run("DELETE FROM idempotency WHERE at < ? AND key NOT LIKE 'device %'", day);
      this.#sql.run("DELETE FROM idempotency WHERE at < ?", this.#now() - FAILURES_KEPT_MS);
    });
  }

  // --- the tree ---

  // deno-lint-ignore require-await
  async stat(ino: number): Promise<Stat | null> {
    return this.#tree.stat(ino);
  }
  // deno-lint-ignore require-await
  async writtenBy(device: number, ino: number): Promise<Stat | null> {
    return this.#isWriter(device, ino) ? this.#tree.stat(ino) : null;
  }
  #isWriter(device: number, ino: number): boolean {
    return device !== 0 && this.#sql.row("SELECT device FROM writers WHERE ino = ?", ino)?.[0] === device;
  }
  // deno-lint-ignore require-await
  async lookup(parent: number, name: string): Promise<Stat | null> {
    return this.#tree.lookup(parent, name);
  }
  // deno-lint-ignore require-await
  async readDir(parent: number, after: string | null, limit: number): Promise<DirEntry[]> {
    return this.#tree.readDir(parent, after, limit);
  }
  // deno-lint-ignore require-await
  async readLink(ino: number): Promise<string> {
    return this.#tree.readLink(ino);
  }
  // deno-lint-ignore require-await
  async pathOf(ino: number): Promise<string | null> {
    return this.#tree.pathOf(ino);
  }
  // deno-lint-ignore require-await
  async getXattr(ino: number, name: string): Promise<Uint8Array | null> {
    return this.#tree.getXattr(ino, name);
  }
  // deno-lint-ignore require-await
  async listXattr(ino: number): Promise<string[]> {
    return this.#tree.listXattr(ino);
  }
  // deno-lint-ignore require-await
  async counts(): Promise<{ nodes: number; bytes: number }> {
    return this.#tree.counts();
  }
  async allotIno(): Promise<number> {
    return (await this.#group.write(() => this.#tree.allotIno())).value;
  }

  async apply(request: ApplyRequest): Promise<Written<ApplyResult>> {
    let changes: Change[] = [];
    const written = await this.#group.write((): ApplyResult | FsError => {
      if (request.group === true && (request.previous ?? 0) < this.#lastRequest(request.device)) {
        throw new FsError(
          "unavailable",
          `some of the requests up to ${request.request} were applied before; connect anew`,
          {
            operation: GROUP_OVERLAP,
          },
        );
      }
      if (request.request > 0 && request.request <= this.#lastRequest(request.device)) return this.#repeated(request);
      if (request.previous !== undefined && request.previous > this.#lastRequest(request.device)) {
        throw new FsError(
          "unavailable",
          `request ${request.request} came before request ${request.previous}; send both again`,
        );
      }
      this.#sql.run("SAVEPOINT request");
      this.#pending = [];
      this.#seen = new Set();
      try {
        const now = this.#now();
        for (const manifest of request.manifests) this.#contents.addContent(manifest, now);
        this.#device = request.device;
        const done: OpDone[] = request.ops.map((op) => this.#tree.apply(op));
        changes = this.#record(request, now);
        this.#sql.run("RELEASE request");
        this.#remember(request);
        const stats: Stat[] = [];
        for (const ino of new Set([...done, ...changes].map((each) => each.ino))) {
          const stat = this.#tree.stat(ino);
          if (stat !== null) stats.push(stat);
          else this.#sql.run("DELETE FROM writers WHERE ino = ?", ino);
        }
        return { done, stats, seq: this.#seq, repeated: false };
      } catch (error) {
        this.#sql.undo("request");
        changes = [];
        if (!(error instanceof FsError) || request.request === 0 || request.group === true) throw error;
        if (error.code === "conflict" && error.details.operation === "add content") throw error;
        this.#remember(request);
        this.#keepFailure(request, error);
        return error;
      }
    }, { lazy: request.lazy ?? false });
    if (written.value instanceof FsError) {
      await written.durable;
      throw written.value;
    }
    if (changes.length > 0) { for (const listener of this.#listeners) listener(changes); }
    return { value: written.value, durable: written.durable };
  }

  #lastRequest(device: number): number {
    let last = this.#deviceRequests.get(device);
    if (last === undefined) {
      last = (this.#sql.row("SELECT last_request FROM devices WHERE no = ?", device)?.[0] as number | undefined) ?? 0;
      this.#deviceRequests.set(device, last);
    }
    return last;
  }
  #remember(request: ApplyRequest): void {
    if (request.request === 0) return;
    this.#sql.run("UPDATE devices SET last_request = ? WHERE no = ?", request.request, request.device);
    this.#deviceRequests.set(request.device, request.request);
  }
  #keepFailure(request: ApplyRequest, error: FsError): void {
    const failure: StoredFailure = { code: error.code, message: error.message, errno: error.errno };
    this.#sql.run(
      "INSERT INTO idempotency(key, at, result) VALUES(?,?,?) ON CONFLICT(key) DO NOTHING",
      `device ${request.device} request ${request.request}`,
      this.#now(),
      new TextEncoder().encode(JSON.stringify(failure)),
    );
  }
  #repeated(request: ApplyRequest): ApplyResult | FsError {
    const row = this.#sql.row(
      "SELECT result FROM idempotency WHERE key = ?",
      `device ${request.device} request ${request.request}`,
    );
    if (row !== undefined) {
      const failure = JSON.parse(new TextDecoder().decode(row[0] as Uint8Array)) as StoredFailure;
      const code = isFsErrorCode(failure.code) ? failure.code : "internal";
      return new FsError(code, failure.message, { errno: failure.errno });
    }
    return { done: [], stats: [], seq: this.#seq, repeated: true };
  }
  #record(request: ApplyRequest, now: number): Change[] {
    return this.#pending.map((p): Change => {
      const seq = ++this.#seq;
      this.#sql.run(
        "INSERT INTO changes(seq, at, device, request, kind, ino, parent, name) VALUES(?,?,?,?,?,?,?,?)",
        seq,
        now,
        request.device,
        request.request,
        p.kind === "entry" ? CHANGE_ENTRY : CHANGE_NODE,
        p.ino,
        p.parent,
        p.kind === "entry" ? encodeName(p.name) : null,
      );
      return { seq, device: request.device, request: request.request, ...p };
    });
  }

  // --- contents ---

  async missing(chunks: readonly WantedChunk[]): Promise<number[]> {
    return (await this.#group.write(() => this.#contents.missing(chunks, this.#now()))).value;
  }
  // deno-lint-ignore require-await
  async chunks(hashes: readonly Uint8Array[]): Promise<(ChunkLocation | null)[]> {
    return hashes.map((hash) => this.#contents.chunk(hash));
  }
  async addSegment(blob: Uint8Array): Promise<void> {
    await this.#group.write(() => this.#contents.addSegment(blob, this.#now()));
  }
  // deno-lint-ignore require-await
  async hasContent(hash: string): Promise<boolean> {
    return this.#contents.hasContent(hash);
  }
  // deno-lint-ignore require-await
  async manifest(hash: string): Promise<Uint8Array | null> {
    return this.#contents.manifest(hash);
  }
  // deno-lint-ignore require-await
  async segment(hash: Uint8Array): Promise<Uint8Array | null> {
    return this.#contents.segment(hash);
  }
  // deno-lint-ignore require-await
  async tiersOf(content: string | null, all: number): Promise<number> {
    return this.#contents.tiersOf(content, all);
  }
  async collect(
    before: number,
    limit: number,
  ): Promise<{ contents: number; chunks: number; bytes: number; packs: number }> {
    const written = await this.#group.write(() => {
      const collected = this.#contents.collect(before, limit, this.#now());
      const bits = [this.#options.hotBit, ...this.#options.targets];
      const packs = collected.contents + collected.chunks > 0 ? this.#packs.buryEmpty(bits, this.#now()) : 0;
      return { ...collected, packs };
    });
    await written.durable;
    return written.value;
  }

  // --- packs and the log ---

  async createPack(): Promise<number> {
    const { hotBit, targets } = this.#options;
    return (await this.#group.write(() => this.#packs.create(hotBit, targets, this.#now()))).value;
  }
  async addChunks(packId: number, chunks: readonly StoredChunk[], end: number): Promise<number> {
    const { value } = await this.#group.write(() => {
      let added = 0;
      let live = 0;
      const now = this.#now();
      for (const chunk of chunks) {
        if (!this.#contents.addChunk({ ...chunk, packId }, now)) continue;
        added++;
        live += chunk.stored;
      }
      this.#packs.grow(packId, end, live);
      return added;
    });
    return value;
  }
  sealPack(id: number, name: string, bytes: number): Promise<Written<void>> {
    return this.#group.write(() => this.#packs.seal(id, name, bytes));
  }
  async forgetPack(id: number): Promise<void> {
    await this.#group.write(() => this.#packs.forget(id));
  }
  // deno-lint-ignore require-await
  async pack(id: number): Promise<PackInfo | null> {
    return this.#packs.get(id);
  }
  // deno-lint-ignore require-await
  async packByName(name: string): Promise<PackInfo | null> {
    return this.#packs.byName(name);
  }
  // deno-lint-ignore require-await
  async packsInState(state: number): Promise<PackInfo[]> {
    return this.#packs.inState(state);
  }
  // deno-lint-ignore require-await
  async packPage(afterId: number, limit: number): Promise<PackInfo[]> {
    return this.#packs.page(afterId, limit);
  }
  // deno-lint-ignore require-await
  async chunksOfPack(id: number): Promise<StoredChunk[]> {
    return this.#packs.chunksOf(id);
  }
  addTier(id: number, bit: number): Promise<Written<void>> {
    return this.#group.write(() => this.#packs.addTier(id, bit));
  }
  dropTier(id: number, bit: number, needed: number): Promise<Written<boolean>> {
    return this.#group.write(() => this.#packs.dropTier(id, bit, needed));
  }
  lostFrom(id: number, bit: number, again: boolean): Promise<Written<void>> {
    return this.#group.write(() => this.#packs.lostFrom(id, bit, again, this.#now()));
  }
  async touchPacks(hits: ReadonlyMap<number, number>): Promise<void> {
    await this.#group.write(() => {
      for (const [id, count] of hits) this.#packs.touch(id, this.#now(), count);
    });
  }
  // deno-lint-ignore require-await
  async bytesOn(bit: number): Promise<number> {
    return this.#packs.bytesOn(bit);
  }
  // deno-lint-ignore require-await
  async evictable(bit: number, needed: number): Promise<PackInfo[]> {
    return this.#packs.evictable(bit, needed);
  }
  // deno-lint-ignore require-await
  async walDue(tier: number, limit: number): Promise<WalEntry[]> {
    return this.#packs.due(tier, this.#now(), limit);
  }
  // deno-lint-ignore require-await
  async walNextDue(tier: number): Promise<number | null> {
    return this.#packs.nextDue(tier);
  }
  // deno-lint-ignore require-await
  async walPage(afterId: number, limit: number): Promise<WalEntry[]> {
    return this.#packs.walPage(afterId, limit);
  }
  // deno-lint-ignore require-await
  async walCount(): Promise<{ entries: number; bytes: number }> {
    return this.#packs.walCount();
  }
  async walFailed(id: number, error: string, notBefore: number): Promise<void> {
    await this.#group.write(() => this.#packs.walFailed(id, error, notBefore));
  }
  async walRetry(id: number | null): Promise<number> {
    return (await this.#group.write(() => this.#packs.walRetry(id))).value;
  }
  putDone(entry: WalEntry): Promise<Written<void>> {
    return this.#group.write(() => this.#packs.putDone(entry, this.#now()));
  }
  deleteDone(entry: WalEntry): Promise<Written<void>> {
    return this.#group.write(() => this.#packs.deleteDone(entry));
  }

  // --- the change feed ---

  // deno-lint-ignore require-await
  async lastSeq(): Promise<number> {
    return this.#seq;
  }
  // deno-lint-ignore require-await
  async changesSince(after: number, limit: number): Promise<Change[] | null> {
    if (after < Number(this.#meta("feed_floor") ?? 0)) return null;
    return this.#sql.rows(
      "SELECT seq, device, request, kind, ino, parent, name FROM changes WHERE seq > ? ORDER BY seq LIMIT ? + 0",
      after,
      limit,
    ).map((row): Change => ({
      seq: row[0] as number,
      device: row[1] as number,
      request: row[2] as number,
      kind: row[3] === CHANGE_ENTRY ? "entry" : "node",
      ino: row[4] as number,
      parent: row[5] as number,
      name: row[6] instanceof Uint8Array ? decodeName(row[6]) : "",
    }));
  }
  onChanges(listener: (changes: readonly Change[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  // --- devices, tokens, answers ---

  async device(id: string, host: string): Promise<DeviceInfo> {
    const { value } = await this.#group.write(() => {
      const now = this.#now();
      this.#sql.run("UPDATE devices SET last_seen = ?, host = ? WHERE id = ?", now, host, id);
      const find = () => this.#sql.row(`SELECT ${DEVICE_COLUMNS} FROM devices WHERE id = ?`, id);
      let row = find();
      if (row === undefined) {
        this.#sql.insert(
          "INSERT INTO devices(id, host, first_seen, last_seen, last_request) VALUES(?,?,?,?,0)",
          id,
          host,
          now,
          now,
        );
        row = find();
      }
      if (row === undefined) throw new FsError("internal", `device ${id} could not be kept`);
      return toDevice(row);
    });
    return value;
  }
  // deno-lint-ignore require-await
  async devices(): Promise<DeviceInfo[]> {
    return this.#sql.rows(`SELECT ${DEVICE_COLUMNS} FROM devices ORDER BY no`).map(toDevice);
  }
  // deno-lint-ignore require-await
  async getMeta(key: string): Promise<string | null> {
    return this.#meta(key);
  }
  async setMeta(key: string, value: string): Promise<void> {
    await this.#group.write(() => this.#putMeta(key, value));
  }
  // deno-lint-ignore require-await
  async answer(key: string): Promise<Uint8Array | null> {
    return (this.#sql.row("SELECT result FROM idempotency WHERE key = ?", `key ${key}`)?.[0] as
      | Uint8Array
      | undefined) ??
      null;
  }
  async keepAnswer(key: string, result: Uint8Array): Promise<void> {
    const written = await this.#group.write(() =>
      this.#sql.run(
        "INSERT INTO idempotency(key, at, result) VALUES(?,?,?) ON CONFLICT(key) DO NOTHING",
        `key ${key}`,
        this.#now(),
        result,
      )
    );
    await written.durable;
  }
  addToken(hash: Uint8Array, token: TokenInfo): Promise<Written<void>> {
    return this.#group.write(() => {
      this.#sql.insert(
        "INSERT INTO tokens(id, hash, scope, path, created, expires) VALUES(?,?,?,?,?,?)",
        token.id,
        hash,
        token.scope,
        token.path,
        token.created,
        token.expires,
      );
    });
  }
  // deno-lint-ignore require-await
  async tokenByHash(hash: Uint8Array): Promise<TokenInfo | null> {
    const row = this.#sql.row(`SELECT ${TOKEN_COLUMNS} FROM tokens WHERE hash = ? AND revoked IS NULL`, hash);
    return row === undefined ? null : toToken(row);
  }
  // deno-lint-ignore require-await
  async tokens(): Promise<TokenInfo[]> {
    return this.#sql.rows(`SELECT ${TOKEN_COLUMNS} FROM tokens WHERE revoked IS NULL ORDER BY created`).map(toToken);
  }
  async revokeToken(id: string): Promise<boolean> {
    const written = await this.#group.write(() =>
      this.#sql.run("UPDATE tokens SET revoked = ? WHERE id = ? AND revoked IS NULL", this.#now(), id)
    );
    await written.durable;
    return written.value > 0;
  }

  settle(): Promise<void> {
    return this.#group.settle();
  }
  async check(): Promise<string[]> {
    await this.settle();
    return this.#thread === null ? verifyIndex(this.#db) : await this.#thread.run("verify");
  }
  /**
   * Brings the write-ahead file into the database on another thread when much has been written; an automatic checkpoint
   * would hold up a commit, and with it everybody, for the time of two disk waits and all the pages.
   */
  #checkpointIfGrown(): void {
    if (this.#thread === null || this.#checkpoint !== "none") return;
    if (this.#sql.writes - this.#writesAtCheckpoint < CHECKPOINT_WRITES) return;
    this.#writesAtCheckpoint = this.#sql.writes;
    this.#checkpoint = "running";
    // Also when the thread failed: then all of it is done here, which takes longer, but the file must not grow for ever.
    const done = () => void (this.#checkpoint = "finish");
    this.#thread.run("checkpoint").then(done, done);
  }
  /** Between two transactions: the few pages since the thread's checkpoint, so that the file can be begun anew. */
  #finishCheckpoint(): void {
    if (this.#checkpoint !== "finish") return;
    this.#checkpoint = "none";
    try {
      this.#db.exec("PRAGMA wal_checkpoint(PASSIVE)");
    } catch {
      // The next one makes up for it; what is committed is safe in the write-ahead file.
    }
  }
  async close(): Promise<void> {
    this.#stopPrune();
    try {
      await this.#group.settle();
    } finally {
      await this.#thread?.close();
      if (this.#logFd >= 0) closeFd(this.#logFd);
      this.#db.close();
    }
  }
}

const DEVICE_COLUMNS = "no, id, host, first_seen, last_seen, last_request";
const TOKEN_COLUMNS = "id, scope, path, created, expires";

function toDevice(row: readonly unknown[]): DeviceInfo {
  const [no, id, host, firstSeen, lastSeen, lastRequest] = row;
  return {
    no: no as number,
    id: id as string,
    host: host as string,
    firstSeen: firstSeen as number,
    lastSeen: lastSeen as number,
    lastRequest: lastRequest as number,
  };
}
function toToken(row: readonly unknown[]): TokenInfo {
  const [id, scope, path, created, expires] = row;
  return {
    id: id as string,
    scope: scope as TokenInfo["scope"],
    path: path as string,
    created: created as number,
    expires: expires as number | null,
  };
}
