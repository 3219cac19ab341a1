/**
 * Replica: what a client knows of the server's tree, in a SQLite database of its own, with the client's undelivered
 * changes applied on top. It answers without the network whatever it knows, and knows what it doesn't know: a folder is
 * complete or not, and what is unknown is never taken for missing.
 */
import { FsError, toFsError } from "../fs/error.ts";
import { encodeName } from "../fs/names.ts";
import type { DirEntry, Stat } from "../fs/stat.ts";
import { S_IFDIR, S_IFMT } from "../fs/stat.ts";
import { INO_STRIDE, type Op, ROOT_INO, withoutExpectation } from "../index/ops.ts";
import { migrate } from "../index/schema.ts";
import { Statements } from "../index/statements.ts";
import { Tree } from "../index/tree.ts";
import type { Clock } from "../platform/clock.ts";
import { Missed } from "./missed.ts";
import { closeFd, O_RDWR, openFd, syncFd } from "../platform/posix.ts";
import { type Database, openDatabase } from "../platform/sqlite.ts";

/** Changes gather so long in one transaction, milliseconds; and how soon a failed one is tried again. */
const COMMIT_MS = 100;
const APPLIED = "applied";
const MISSED = "missed";
const RETRY_MS = 2000;
const SKIPPED_INOS = 1 << 20;

const EXTRA = `
CREATE TABLE IF NOT EXISTS complete(ino INTEGER PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS xattrs_known(ino INTEGER PRIMARY KEY) STRICT;
-- A node that goes may come back: what is in xattrs then is not all it has.
CREATE TRIGGER IF NOT EXISTS xattrs_forgotten AFTER DELETE ON nodes BEGIN
  DELETE FROM xattrs_known WHERE ino = OLD.ino;
END;
CREATE TABLE IF NOT EXISTS before_writes(ino INTEGER PRIMARY KEY, stat TEXT NOT NULL) STRICT;
`;

/** What a set of operations touched: to tell the kernel, and to guard from the server's older news. */
export interface Touched {
  readonly entries: { parent: number; name: string; ino: number }[];
  /** Each once. */
  readonly nodes: number[];
}

const XATTRS_KNOWN = "INSERT INTO xattrs_known(ino) VALUES(?) ON CONFLICT DO NOTHING";
const entryKey = (parent: number, name: string) => `${parent}/${name}`;

export class Replica {
  /** Kept with the next transaction. */
  readonly missed: Missed;
  readonly #tree: Tree;
  /** Nodes that were not known before are in the open transaction only. */
  #learned = false;
  /** Attributes of files that are being written: kept here so that a write costs no database call. */
  readonly #fresh = new Map<number, Stat>();
  /** Values for `meta` that the open transaction gets at its end. */
  readonly #meta = new Map<string, string>();
  readonly #db: Database;
  readonly #sql: Statements;
  readonly #clock: Clock;
  readonly #onTrouble: (error: FsError) => void;
  readonly #onLost: () => void;
  readonly #journaled: () => number | null;
  /** A transaction was lost, and what it held of ours is not here again. */
  #behind = false;
  readonly #beforeCommit: () => void;
  #open = false;
  #cancelCommit: (() => void) | null = null;
  readonly #touched = { entries: new Array<Touched["entries"][number]>(), nodes: new Set<number>() };
  /** Undelivered changes by entry and by node: the server's news of these is older than ours. */
  readonly #pendingEntries = new Map<string, number>();
  readonly #pendingNodes = new Map<number, number>();
  /** Nodes with attributes kept aside for a crash (see keepBefore). */
  readonly #before = new Set<number>();
  #ino = 0;
  #inoEnd = 0;
  readonly #path: string;
  #walFd = -1;

  /**
   * `onTrouble` is told why the database could not be written; `onLost` that what was not written yet is gone from it:
   * then everything known has to be asked for again, and what of ours is not in it done again. `beforeCommit` may make
   * room for the transaction. `journaled`: the highest request number of which all is in here; null before the journal is
   * read: what an earlier run wrote of that stands.
   */
  constructor(
    path: string,
    clock: Clock,
    onTrouble: (error: FsError) => void = () => {},
    onLost: () => void = () => {},
    beforeCommit: () => void = () => {},
    journaled: () => number | null = () => null,
  ) {
    this.#path = path;
    this.#clock = clock;
    this.#onTrouble = onTrouble;
    this.#onLost = onLost;
    this.#beforeCommit = beforeCommit;
    this.#journaled = journaled;
    this.#db = openDatabase(path);
    this.#db.exec(
      "PRAGMA journal_mode=wal; PRAGMA synchronous=normal; PRAGMA wal_autocheckpoint=16000; PRAGMA cache_size=-32768; PRAGMA temp_store=memory",
    );
    migrate(this.#db, path);
    this.#db.exec(EXTRA);
    this.#sql = new Statements(this.#db);
    this.#tree = new Tree(this.#sql, {
      entry: (parent, name, ino) => this.#touched.entries.push({ parent, name, ino }),
      node: (ino) => this.#touched.nodes.add(ino),
      contentRef: () => {},
    });
    this.missed = new Missed(this.getMeta(MISSED));
    for (const row of this.#sql.rows("SELECT ino, stat FROM before_writes")) {
      const ino = row[0] as number;
      this.#before.add(ino);
      // One that was removed must stay so, and a second name or a chmod since is not undone.
      const now = this.#tree.stat(ino);
      if (now === null) continue;
      this.#begin();
      const { size, content, holes, mtimeSec, mtimeNsec } = JSON.parse(row[1] as string) as Stat;
      this.#tree.put({ ...now, size, content, holes: holes ?? 0, mtimeSec, mtimeNsec });
    }
  }

  // --- files being written ---

  /**
   * The file's attributes as they are without its unflushed bytes. A crash loses those bytes, so size and times that the
   * database got with them must not outlive it: the next start takes these instead (`wrote` tells which nodes had any).
   */
  keepBefore(stat: Stat): void {
    if (this.#before.has(stat.ino)) return;
    this.#before.add(stat.ino);
    this.#begin();
    this.#sql.run("INSERT INTO before_writes(ino, stat) VALUES(?,?)", stat.ino, JSON.stringify(stat));
  }
  /** The file was delivered this far, or changed by others. */
  moveBefore(stat: Stat): void {
    if (!this.#before.has(stat.ino)) return;
    this.#begin();
    this.#sql.run("UPDATE before_writes SET stat = ? WHERE ino = ?", JSON.stringify(stat), stat.ino);
  }
  dropBefore(ino: number): void {
    if (!this.#before.delete(ino)) return;
    this.#begin();
    this.#sql.run("DELETE FROM before_writes WHERE ino = ?", ino);
  }
  /** The nodes that had unflushed or undelivered bytes at the end of the last run. */
  get wrote(): readonly number[] {
    return [...this.#before];
  }

  /** The database with everything in it. */
  get tree(): Tree {
    if (this.#fresh.size > 0) this.#writeFresh();
    return this.#tree;
  }
  #writeFresh(): void {
    this.#begin();
    for (const stat of this.#fresh.values()) this.#tree.put(stat);
    this.#fresh.clear();
  }
  /** The node's attributes, null when unknown. */
  stat(ino: number): Stat | null {
    return this.#fresh.get(ino) ?? this.#tree.stat(ino);
  }
  /** New attributes of a node that is there: visible at once, in the database soon. */
  putFresh(stat: Stat): void {
    this.#begin();
    this.#fresh.set(stat.ino, stat);
  }

  /** Changes gather in one transaction, written out soon after; the journal is what makes them durable. */
  #begin(): void {
    if (this.#open) return;
    this.#db.exec("BEGIN IMMEDIATE");
    this.#open = true;
    this.#cancelCommit = this.#clock.after(COMMIT_MS, () => this.#commitLater(), true);
  }
  /** A change through `tree` follows: it belongs to the open transaction. */
  touch(): void {
    this.#begin();
  }
  /** As `commit`; a full disk is met again later. The journal has what matters. */
  #commitLater(): void {
    try {
      this.commit();
    } catch (error) {
      this.#onTrouble(toFsError(error));
    }
  }
  /** Throws no_space and the like; what was to be written is then still in the open transaction, or lost (see onLost). */
  commit(): void {
    this.#cancelCommit?.();
    this.#cancelCommit = null;
    if (!this.#open) return;
    try {
      if (this.#fresh.size > 0) this.#writeFresh();
      if (this.#meta.size > 0) this.#writeMeta();
      const journaled = this.#behind ? null : this.#journaled();
      if (journaled !== null) this.#putMeta(APPLIED, String(journaled));
      const missed = this.missed.text();
      if (missed !== null) this.#putMeta(MISSED, missed);
      this.#beforeCommit();
      this.#db.exec("COMMIT");
    } catch (error) {
      this.#failed();
      throw toFsError(error);
    }
    this.#open = false;
    this.#learned = false;
  }
  /** What was committed survives a power cut when this resolves: SQLite itself waits for the disk only at checkpoints. */
  async sync(): Promise<void> {
    if (this.#walFd < 0) {
      try {
        this.#walFd = openFd(`${this.#path}-wal`, O_RDWR);
      } catch (error) {
        // There is none before the first transaction.
        if (toFsError(error).code === "not_found") return;
        throw error;
      }
    }
    await syncFd(this.#walFd);
  }
  /** A full disk or an I/O error: the transaction is still there, or SQLite has rolled it back by itself. */
  #failed(): void {
    if (this.#db.isTransaction) {
      this.#cancelCommit ??= this.#clock.after(RETRY_MS, () => this.#commitLater(), true);
      return;
    }
    this.#open = false;
    this.#behind = true;
    this.#onLost();
  }

  /** Of the journal's records up to this number all is in the database. */
  get applied(): number {
    return Number(this.getMeta(APPLIED) ?? 0);
  }
  /** After a loss: all that is journaled has been done again. */
  caughtUp(): void {
    this.#behind = false;
  }

  /** After a power cut the last reservation may be gone with it: numbers it covered are passed over. */
  skipInos(): void {
    this.setMeta("last_ino", String(Number(this.getMeta("last_ino") ?? 0) + SKIPPED_INOS));
  }

  getMeta(key: string): string | null {
    const fresh = this.#meta.get(key);
    if (fresh !== undefined) return fresh;
    return (this.#sql.row("SELECT value FROM meta WHERE key = ?", key)?.[0] as string | undefined) ?? null;
  }
  setMeta(key: string, value: string): void {
    this.#begin();
    this.#meta.set(key, value);
  }
  #writeMeta(): void {
    for (const [key, value] of this.#meta) this.#putMeta(key, value);
    this.#meta.clear();
  }
  #putMeta(key: string, value: string): void {
    this.#sql.run(
      "INSERT INTO meta(key, value) VALUES(?,?) ON CONFLICT(key) DO UPDATE SET value=excluded.value",
      key,
      value,
    );
  }

  dropMeta(key: string): void {
    if (this.getMeta(key) === null) return;
    this.#begin();
    this.#meta.delete(key);
    this.#sql.run("DELETE FROM meta WHERE key = ?", key);
  }
  /** Keys that begin with `prefix` (ASCII), without it, and their values, in the order of the keys. */
  metas(prefix: string): [string, string][] {
    if (this.#meta.size > 0) this.#writeMeta();
    return this.#sql.rows("SELECT key, value FROM meta WHERE key >= ? AND key < ? ORDER BY key", prefix, `${prefix}~`)
      .map((row) => [(row[0] as string).slice(prefix.length), row[1] as string]);
  }
  /** What `keepBefore` kept of the node. */
  before(ino: number): Stat | null {
    const row = this.#sql.row("SELECT stat FROM before_writes WHERE ino = ?", ino);
    return row === undefined ? null : JSON.parse(row[0] as string) as Stat;
  }

  /**
   * Forgets all that came from the server, but not what is ours: names and nodes with undelivered changes stay as they
   * are, and so do the nodes in `written`; folders in `made` have nothing the server could know of.
   */
  reset(written: Iterable<number>, made: Iterable<number>): void {
    const { tree } = this;
    this.#begin();
    const entries = [...this.#pendingEntries.keys()].map((key) => {
      const cut = key.indexOf("/");
      const [parent, name] = [Number(key.slice(0, cut)), key.slice(cut + 1)];
      return { parent, name, ino: tree.entry(parent, name) };
    });
    this.#sql.exec("CREATE TEMP TABLE IF NOT EXISTS ours(ino INTEGER PRIMARY KEY); DELETE FROM ours");
    const keep = "INSERT INTO ours(ino) VALUES(?) ON CONFLICT DO NOTHING";
    for (const ino of this.#pendingNodes.keys()) this.#sql.run(keep, ino);
    for (const ino of written) this.#sql.run(keep, ino);
    this.#sql.exec(
      `DELETE FROM nodes WHERE ino NOT IN (SELECT ino FROM ours); DELETE FROM dentries;
       DELETE FROM xattrs WHERE ino NOT IN (SELECT ino FROM ours);
       DELETE FROM xattrs_known WHERE ino NOT IN (SELECT ino FROM ours); DELETE FROM complete`,
    );
    for (const { parent, name, ino } of entries) if (ino !== 0) tree.putEntry(parent, name, ino);
    for (const ino of made) this.setComplete(ino, true);
  }

  // --- knowledge ---

  isComplete(dir: number): boolean {
    return this.#sql.row("SELECT 1 FROM complete WHERE ino = ?", dir) !== undefined;
  }
  setComplete(dir: number, complete: boolean): void {
    this.#begin();
    if (complete) this.#sql.run("INSERT INTO complete(ino) VALUES(?) ON CONFLICT DO NOTHING", dir);
    else this.#sql.run("DELETE FROM complete WHERE ino = ?", dir);
  }
  xattrsKnown(ino: number): boolean {
    return this.#sql.row("SELECT 1 FROM xattrs_known WHERE ino = ?", ino) !== undefined;
  }
  /** Takes over the extended attributes the server listed. */
  learnXattrs(ino: number, values: readonly (readonly [string, Uint8Array])[]): void {
    this.#begin();
    this.#sql.run("DELETE FROM xattrs WHERE ino = ?", ino);
    const put = "INSERT INTO xattrs(ino, name, value) VALUES(?, ?, ?)";
    for (const [name, value] of values) this.#sql.run(put, ino, encodeName(name), value);
    this.#sql.run(XATTRS_KNOWN, ino);
  }
  forgetXattrs(ino: number): void {
    this.#begin();
    this.#sql.run("DELETE FROM xattrs_known WHERE ino = ?", ino);
  }

  /** Takes over a node as the server tells it, unless our own changes of it are newer. */
  learn(stat: Stat): void {
    // Without any attributes the node could not be shown at all.
    if (this.#pendingNodes.has(stat.ino) && this.stat(stat.ino) !== null) return;
    this.#begin();
    if (!this.#learned && this.stat(stat.ino) === null) this.#learned = true;
    this.tree.put(stat);
  }
  /**
   * Call before a change of ours goes into the journal: after a crash it is applied again to what the database holds, so
   * the nodes it builds on must be in there, not only in the open transaction.
   */
  secure(): void {
    if (this.#learned) this.commit();
  }
  learnEntry(parent: number, entry: DirEntry): void {
    if (this.#pendingEntries.has(entryKey(parent, entry.name))) return;
    this.learn(entry.stat);
    this.#begin();
    this.tree.putEntry(parent, entry.name, entry.stat.ino);
  }
  unlearnEntry(parent: number, name: string): void {
    if (this.#pendingEntries.has(entryKey(parent, name))) return;
    this.#begin();
    this.tree.dropEntry(parent, name);
  }
  unlearn(ino: number): void {
    if (ino === ROOT_INO || this.#pendingNodes.has(ino)) return;
    this.#begin();
    this.tree.dropNode(ino);
    this.setComplete(ino, false);
  }
  isPendingNode(ino: number): boolean {
    return this.#pendingNodes.has(ino);
  }
  isPendingEntry(parent: number, name: string): boolean {
    return this.#pendingEntries.has(entryKey(parent, name));
  }

  // --- our own changes ---

  /**
   * Applies operations all or none, together with `journal`: what that throws takes them back. Throws by POSIX's rules.
   * What they touched has to be guarded until it is delivered.
   */
  apply(ops: readonly Op[], journal: () => void = () => {}): Touched {
    this.#begin();
    // What is taken back below must not take these with it.
    if (this.#fresh.size > 0) this.#writeFresh();
    this.#touched.entries.length = 0;
    this.#touched.nodes.clear();
    this.#sql.run("SAVEPOINT ours");
    try {
      for (const op of ops) {
        this.tree.apply(withoutExpectation(op));
        if (op.t === "create" && (op.mode & S_IFMT) === S_IFDIR) this.setComplete(op.ino, true);
        if (op.t === "create") this.#sql.run(XATTRS_KNOWN, op.ino);
      }
      journal();
    } catch (error) {
      if (this.#db.isTransaction) this.#sql.undo("ours");
      else this.#failed();
      throw toFsError(error);
    }
    this.#sql.run("RELEASE ours");
    return { entries: this.#touched.entries.slice(), nodes: [...this.#touched.nodes] };
  }
  /**
   * As `apply`, for what was journaled before a crash. `known`: the database has it (see `applied`); later records may have
   * changed it again. Only times of files whose unflushed bytes were taken back are set once more. False: not all of it is
   * possible on what the database holds, which is older than what the record was made on.
   */
  redo(ops: readonly Op[], known: boolean): boolean {
    let done = true;
    for (const op of ops) {
      if (known && (op.t !== "attr" || !this.#before.has(op.ino))) continue;
      try {
        this.apply([op]);
      } catch (error) {
        if (!(error instanceof FsError)) throw error;
        done = false;
      }
    }
    return done;
  }
  guard(touched: Touched): void {
    for (const { parent, name } of touched.entries) bump(this.#pendingEntries, entryKey(parent, name), 1);
    for (const ino of touched.nodes) bump(this.#pendingNodes, ino, 1);
    for (const { ino } of touched.entries) if (ino !== 0) bump(this.#pendingNodes, ino, 1);
  }
  delivered(touched: Touched): void {
    for (const { parent, name } of touched.entries) bump(this.#pendingEntries, entryKey(parent, name), -1);
    for (const ino of touched.nodes) bump(this.#pendingNodes, ino, -1);
    for (const { ino } of touched.entries) if (ino !== 0) bump(this.#pendingNodes, ino, -1);
  }

  /** An inode number of this device's own range, never given twice. Throws unavailable before the first connection. */
  allotIno(): number {
    if (this.#ino >= this.#inoEnd) {
      const device = Number(this.getMeta("device") ?? 0);
      if (device === 0) {
        throw new FsError("unavailable", "nothing can be created before the first connection to the server");
      }
      const used = Number(this.getMeta("last_ino") ?? 0);
      this.#ino = device * INO_STRIDE + used;
      this.#inoEnd = this.#ino + 4096;
      this.setMeta("last_ino", String(used + 4096));
      // Reserved for good before the first is used: a crash must not hand them out again.
      this.commit();
    }
    return ++this.#ino;
  }

  /** A new database at `path` for the next start, which knows nothing but what must not be forgotten. */
  begin(path: string): void {
    const next = new Replica(path, this.#clock);
    for (const key of ["device", "epoch", "boot", "last_ino"]) {
      const value = this.getMeta(key);
      if (value !== null) next.setMeta(key, value);
    }
    next.skipInos();
    next.close();
  }

  close(): void {
    this.commit();
    this.#db.close();
    if (this.#walFd >= 0) closeFd(this.#walFd);
    this.#walFd = -1;
  }
}

function bump<K>(map: Map<K, number>, key: K, by: number): void {
  const next = (map.get(key) ?? 0) + by;
  if (next <= 0) map.delete(key);
  else map.set(key, next);
}
