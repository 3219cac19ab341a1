/**
 * Migrate: takes an existing folder into the tree. The source is only read. What is in the tree already, with the same
 * size and time or the same content, is skipped, so a run that was cut off goes on where it stood.
 */
import type { FsDir, FsLink, FsRead, FsXattr } from "../fs/contract.ts";
import { FsError, hasCode, toFsError } from "../fs/error.ts";
import { type DirEntry, kindOf, S_IFDIR, type Stat } from "../fs/stat.ts";
import { INO_STRIDE, type Op, ROOT_INO, type Time } from "../index/ops.ts";
import { type Clock, splitTime } from "../platform/clock.ts";
import { MAX_INLINE_BYTES, type ServerLink } from "../remote/protocol.ts";
import { chunkInline } from "../store/chunk_inline.ts";
import type { Chunker } from "../store/chunker.ts";
import { createChunker } from "../store/create_chunker.ts";
import { hex, sha256 } from "../store/hash.ts";
import { encodeManifest, ManifestBuilder, type SegmentBlob } from "../store/manifest.ts";
import { TokenBucket } from "../tiers/token_bucket.ts";
import { emptyReport, MAX_FAILURES, type MigrateReport } from "./migrate_report.ts";
import { OrderedSender } from "./ordered_sender.ts";

export type MigrateSource = FsRead & FsDir & FsLink & Partial<FsXattr>;

export interface MigrateOptions {
  readonly source: MigrateSource;
  /** Folder (or file) of the source; `/` is all of it. */
  readonly from: string;
  readonly link: ServerLink;
  /** The device number of the link; its inode numbers are free: this is its first work. */
  readonly device: number;
  /** Where in the tree the folder's entries go. Made when missing. */
  readonly to: string;
  /** Files read side by side. */
  readonly jobs: number;
  readonly dryRun: boolean;
  /** Bytes a second; null: no limit. */
  readonly bytesPerSecond: number | null;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Told of each failure as it happens. */
  readonly onFailure: (path: string, error: FsError) => void;
  readonly onProgress: (done: { bytes?: number; files?: number }, path: string) => void;
}

/** Files up to this size share requests. */
const SMALL = 64 * 1024;
const BATCH_FILES = 64;
const BATCH_BYTES = MAX_INLINE_BYTES - SMALL;
/** A large file is cut in windows of this size. */
const WINDOW = 4 * 1024 * 1024;
const PAGE = 1000;
/** How long the server may be away. */
const PATIENCE_MS = 5 * 60_000;

/** A chunk that may have to be sent. */
interface Piece {
  readonly hash: Uint8Array;
  readonly bytes: Uint8Array;
}
/** A file of the source on its way. */
interface Item {
  readonly path: string;
  readonly name: string;
  readonly parent: number;
  readonly stat: Stat;
  /** What is in the tree under this name. */
  readonly there: Stat | null;
}
interface Content {
  readonly hash: string | null;
  readonly size: number;
  readonly manifest: Uint8Array | null;
}

const child = (folder: string, name: string) => folder === "/" ? `/${name}` : `${folder}/${name}`;
const mtimeOf = (stat: Stat): Time => ({ sec: stat.mtimeSec, nsec: stat.mtimeNsec });
const atimeOf = (stat: Stat): Time => ({ sec: stat.atimeSec, nsec: stat.atimeNsec });

/** Throws when the server refuses us or stays away, and when the source's root can't be read; all else is in the report. */
export async function migrate(options: MigrateOptions): Promise<MigrateReport> {
  return await new Migration(options).run();
}

class Migration {
  readonly #o: MigrateOptions;
  readonly #report: MigrateReport;
  readonly #sender: OrderedSender;
  readonly #bucket: TokenBucket | null;
  readonly #chunker: Chunker = createChunker();
  /** Inode of the tree by the source's identity, of files with several names. */
  readonly #names = new Map<string, Promise<number | null>>();
  #lastIno: number;
  #running = 0;
  readonly #turn: (() => void)[] = [];
  readonly #rooms: (() => void)[] = [];
  /** Chunks of large files that are being stored now. */
  readonly #storing = new Map<string, Promise<void>>();
  /** Requests applied so far. */
  #applied = 0;

  constructor(options: MigrateOptions) {
    this.#o = options;
    this.#report = emptyReport(options.dryRun);
    this.#sender = new OrderedSender(options.link, options.clock, PATIENCE_MS);
    this.#bucket = options.bytesPerSecond === null ? null : new TokenBucket(options.bytesPerSecond, options.clock);
    this.#lastIno = options.device * INO_STRIDE;
  }

  async run(): Promise<MigrateReport> {
    const { source, from, to, signal } = this.#o;
    const stat = await source.stat(from, { signal });
    if (kindOf(stat.mode) === "directory") {
      const { ino, there } = await this.#folder(to);
      await this.#walk(from, stat, ino, there);
    } else {
      const { ino, there } = await this.#folder(to);
      const name = from.slice(from.lastIndexOf("/") + 1);
      const work: Promise<void>[] = [];
      await this.#entries(from.slice(0, from.lastIndexOf("/")) || "/", [{ name, stat }], ino, there === null, work);
      await Promise.all(work);
    }
    // What is reported is on the server's disk.
    await this.#sender.settle();
    return this.#report;
  }

  #now(): Time {
    return splitTime(this.#o.clock.now());
  }
  #failed(path: string, error: unknown): void {
    if (this.#o.signal.aborted) throw error;
    const failure = toFsError(error);
    // No server any more: going on would only name every file there is.
    if (failure.code === "access_denied" || failure.code === "unavailable" || failure.code === "no_space") {
      if (failure.details.operation !== "read source") throw failure;
    }
    this.#report.failed++;
    if (this.#report.failures.length < MAX_FAILURES) this.#report.failures.push({ path, message: failure.message });
    this.#o.onFailure(path, failure);
  }
  async #fromSource<T>(run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (error) {
      const cause = toFsError(error);
      throw new FsError(cause.code, cause.message, { ...cause.details, operation: "read source", cause });
    }
  }

  /** The folder at a path of the tree, made with those above it. In a dry run a missing one is number 0. */
  async #folder(path: string): Promise<{ ino: number; there: Stat | null }> {
    let there = await this.#o.link.call("stat", { ino: ROOT_INO });
    let ino = ROOT_INO;
    for (const name of path.split("/").filter((part) => part !== "")) {
      const found = there === null ? null : await this.#o.link.call("lookup", { parent: ino, name });
      if (found !== null && kindOf(found.mode) !== "directory") {
        throw new FsError("not_a_directory", `${path}: ${JSON.stringify(name)} is in the way and is no directory`, {
          path,
        });
      }
      if (found === null) {
        if (this.#o.dryRun) return { ino: 0, there: null };
        const made = ++this.#lastIno;
        await this.#apply([this.#createOp(ino, name, made, S_IFDIR | 0o755, 0, 0)]);
        ino = made;
      } else ino = found.ino;
      there = found;
    }
    return { ino, there };
  }
  #createOp(parent: number, name: string, ino: number, mode: number, uid: number, gid: number): Op & { t: "create" } {
    return { t: "create", parent, name, ino, mode, uid, gid, rdev: 0, time: this.#now() };
  }
  async #apply(
    ops: readonly Op[],
    manifests: readonly Uint8Array[] = [],
    chunks: readonly Piece[] = [],
  ): Promise<void> {
    this.#applied++;
    await this.#sender.apply({ ops, manifests, chunks });
  }

  // --- the crawl ---

  async *#list(folder: string): AsyncGenerator<DirEntry> {
    const entries = this.#o.source.readDir(folder, { signal: this.#o.signal })[Symbol.asyncIterator]();
    for (;;) {
      const { done, value } = await this.#fromSource(() => entries.next());
      if (done) return;
      yield value;
    }
  }

  /** `there` is the folder in the tree as it was; null: it was just made. */
  async #walk(folder: string, stat: Stat, target: number, there: Stat | null): Promise<void> {
    const isNew = there === null;
    const before = this.#applied;
    const below: { path: string; entry: DirEntry }[] = [];
    const work: Promise<void>[] = [];
    try {
      let page: DirEntry[] = [];
      for await (const entry of this.#list(folder)) {
        if (kindOf(entry.stat.mode) === "directory") below.push({ path: child(folder, entry.name), entry });
        else page.push(entry);
        if (page.length < PAGE) continue;
        await this.#entries(folder, page, target, isNew, work);
        page = [];
      }
      await this.#entries(folder, page, target, isNew, work);
    } catch (error) {
      await Promise.allSettled(work);
      this.#failed(folder, error);
    }
    for (const { path, entry } of below) {
      try {
        await this.#subfolder(path, entry, target, isNew);
      } catch (error) {
        this.#failed(path, error);
      }
    }
    for (const done of work) await done;
    // Last of all: what was made in it has changed its time.
    const untouched = there !== null && this.#applied === before && there.mtimeSec === stat.mtimeSec &&
      there.mtimeNsec === stat.mtimeNsec;
    if (this.#o.dryRun || target === ROOT_INO || untouched) return;
    await this.#apply([{
      t: "attr",
      ino: target,
      mode: stat.mode & 0o7777,
      uid: stat.uid,
      gid: stat.gid,
      atime: atimeOf(stat),
      mtime: mtimeOf(stat),
      time: this.#now(),
    }]);
  }

  async #subfolder(path: string, entry: DirEntry, parent: number, parentIsNew: boolean): Promise<void> {
    const { dryRun, link } = this.#o;
    const { name, stat } = entry;
    const there = parentIsNew ? null : await link.call("lookup", { parent, name });
    if (there !== null && kindOf(there.mode) !== "directory") {
      throw new FsError("not_a_directory", `${path}: a file of this name is in the tree already`, { path });
    }
    let ino = there?.ino ?? 0;
    if (there === null) {
      this.#report.directories++;
      if (!dryRun) {
        ino = ++this.#lastIno;
        const create = this.#createOp(parent, name, ino, stat.mode, stat.uid, stat.gid);
        await this.#apply([create, ...await this.#xattrOps(path, ino)]);
      }
    }
    await this.#walk(path, stat, ino, there);
  }

  /** Files, links and the like of one folder; what takes long is added to `work`. */
  async #entries(
    folder: string,
    entries: readonly DirEntry[],
    parent: number,
    isNew: boolean,
    work: Promise<void>[],
  ): Promise<void> {
    const { link, signal } = this.#o;
    const there = isNew
      ? []
      : await Promise.all(entries.map(({ name }) => link.call("lookup", { parent, name }, { signal })));
    let batch: Item[] = [];
    let batchBytes = 0;
    const start = (run: () => Promise<void>) => {
      const running = this.#limited(run);
      // Looked at when the folder is done.
      running.catch(() => {});
      work.push(running);
    };
    const flush = () => {
      if (batch.length === 0) return;
      const items = batch;
      batch = [];
      batchBytes = 0;
      start(() => this.#small(items));
    };
    for (const [i, { name, stat }] of entries.entries()) {
      signal.throwIfAborted();
      const item: Item = { path: child(folder, name), name, parent, stat, there: there[i] ?? null };
      if (kindOf(stat.mode) !== "file") {
        start(() => this.#guarded(item, () => this.#special(item)));
        continue;
      }
      if (this.#isUnchanged(item)) {
        this.#skip(item);
        continue;
      }
      if (this.#o.dryRun) {
        this.#report.files++;
        this.#report.bytes += stat.size;
        this.#o.onProgress({ files: 1, bytes: stat.size }, item.path);
        continue;
      }
      if (stat.nlink > 1) start(() => this.#guarded(item, () => this.#named(item)));
      else if (stat.size > SMALL) start(() => this.#guarded(item, () => this.#large(item).then(() => {})));
      else {
        batch.push(item);
        batchBytes += stat.size;
        if (batch.length >= BATCH_FILES || batchBytes >= BATCH_BYTES) flush();
      }
      // Enough is under way: the crawl waits, so that memory stays bounded.
      if (this.#turn.length > 4 * this.#o.jobs) await this.#room();
    }
    flush();
    await this.#drain(work);
  }
  /** Keeps only what still runs; a failure that ends all is thrown here. */
  async #drain(work: Promise<void>[]): Promise<void> {
    if (work.length < 64) return;
    await Promise.all(work);
    work.length = 0;
  }
  /** Resolves when few wait for their turn. */
  #room(): Promise<void> {
    return new Promise((resolve) => this.#rooms.push(resolve));
  }
  async #limited(run: () => Promise<void>): Promise<void> {
    if (this.#running >= this.#o.jobs) await new Promise<void>((resolve) => this.#turn.push(resolve));
    else this.#running++;
    try {
      this.#o.signal.throwIfAborted();
      await run();
    } finally {
      const next = this.#turn.shift();
      if (this.#turn.length <= this.#o.jobs) { for (const wake of this.#rooms.splice(0)) wake(); }
      if (next === undefined) this.#running--;
      else next();
    }
  }
  async #guarded(item: Item, run: () => Promise<void>): Promise<void> {
    try {
      await run();
    } catch (error) {
      this.#failed(item.path, error);
    }
  }

  #isUnchanged({ stat, there }: Item): boolean {
    return there !== null && kindOf(there.mode) === "file" && there.size === stat.size &&
      there.mtimeSec === stat.mtimeSec && there.mtimeNsec === stat.mtimeNsec;
  }
  #skip({ path, stat, there }: Item): void {
    this.#report.skipped++;
    this.#report.skippedBytes += stat.size;
    if (stat.nlink > 1 && there !== null) this.#names.set(identity(stat), Promise.resolve(there.ino));
    this.#o.onProgress({ files: 1, bytes: stat.size }, path);
  }

  // --- files ---

  /** Files of several names: the first that comes is stored, the others become further names of it. */
  async #named(item: Item): Promise<void> {
    const key = identity(item.stat);
    const known = this.#names.get(key);
    if (known === undefined) {
      const storing = item.stat.size > SMALL ? this.#large(item) : this.#smallOne(item);
      this.#names.set(key, storing.catch(() => null));
      await storing;
      return;
    }
    const ino = await known;
    if (ino === null || item.there !== null) {
      if (item.there !== null && item.there.ino === ino) {
        this.#skip(item);
        return;
      }
      await (item.stat.size > SMALL ? this.#large(item) : this.#smallOne(item));
      return;
    }
    await this.#apply([{ t: "link", ino, parent: item.parent, name: item.name, time: this.#now() }]);
    this.#report.links++;
    this.#o.onProgress({ files: 1 }, item.path);
  }

  async #special(item: Item): Promise<void> {
    const { source, signal, dryRun } = this.#o;
    const { stat, there, path } = item;
    if (there !== null) {
      if (kindOf(there.mode) === kindOf(stat.mode)) {
        if (
          kindOf(stat.mode) !== "symlink" ||
          await this.#fromSource(() => source.readLink(path, { signal })) ===
            await this.#o.link.call("readLink", { ino: there.ino })
        ) {
          this.#report.skipped++;
          return;
        }
      }
      throw new FsError("already_exists", `${path}: something else of this name is in the tree already`, { path });
    }
    this.#report.links++;
    if (dryRun) return;
    const target = kindOf(stat.mode) === "symlink"
      ? await this.#fromSource(() => source.readLink(path, { signal }))
      : undefined;
    const ino = ++this.#lastIno;
    await this.#apply([
      {
        ...this.#createOp(item.parent, item.name, ino, stat.mode, stat.uid, stat.gid),
        rdev: stat.rdev,
        ...(target !== undefined && { target }),
      },
      { t: "attr", ino, atime: atimeOf(stat), mtime: mtimeOf(stat), time: this.#now() },
    ]);
    this.#o.onProgress({ files: 1 }, path);
  }

  async #xattrOps(path: string, ino: number): Promise<Op[]> {
    const { source, signal } = this.#o;
    if (source.listXattr === undefined || source.getXattr === undefined) return [];
    const ops: Op[] = [];
    try {
      for (const name of await source.listXattr(path, { signal })) {
        // Those of others (system., trusted., security.) belong to the machine they were on.
        if (!name.startsWith("user.")) continue;
        const value = await source.getXattr(path, name, { signal });
        ops.push({ t: "setxattr", ino, name, value, flags: 0, time: this.#now() });
      }
    } catch (error) {
      if (hasCode(error, "not_supported") || hasCode(error, "not_found")) return ops;
      await this.#fromSource(() => Promise.reject(error));
    }
    return ops;
  }

  /** The operations that put a content in its place. */
  async #ops(item: Item, content: Content): Promise<{ ino: number; ops: Op[] }> {
    const { stat, there, path } = item;
    const time = this.#now();
    const times = { atime: atimeOf(stat), mtime: mtimeOf(stat) };
    const mode = stat.mode & 0o7777;
    if (there === null) {
      const ino = ++this.#lastIno;
      const ops: Op[] = [this.#createOp(item.parent, item.name, ino, stat.mode, stat.uid, stat.gid)];
      if (content.hash !== null) {
        ops.push({ t: "content", ino, base: null, content: content.hash, size: content.size, time });
      }
      ops.push(...await this.#xattrOps(path, ino), { t: "attr", ino, ...times, time });
      return { ino, ops };
    }
    if (kindOf(there.mode) !== "file") {
      throw new FsError("already_exists", `${path}: something else of this name is in the tree already`, { path });
    }
    const { ino } = there;
    if (there.content === content.hash) {
      // The same bytes under another time: the time follows, nothing is sent.
      return { ino, ops: [{ t: "attr", ino, mode, ...times, time }] };
    }
    const isNewer = stat.mtimeSec > there.mtimeSec ||
      (stat.mtimeSec === there.mtimeSec && stat.mtimeNsec > there.mtimeNsec);
    if (!isNewer) {
      throw new FsError(
        "conflict",
        `${path}: the tree has other content under this name that is newer; it was left as it is`,
        { path },
      );
    }
    return {
      ino,
      ops: [
        { t: "content", ino, base: there.version, content: content.hash, size: content.size, time },
        { t: "attr", ino, mode, ...times, time },
      ],
    };
  }

  /** The file's bytes did not change while they were read? */
  async #unchangedSince({ path, stat }: Item, read: number): Promise<void> {
    const { source, signal } = this.#o;
    const now = await this.#fromSource(() => source.stat(path, { signal }));
    if (read === stat.size && now.mtimeSec === stat.mtimeSec && now.mtimeNsec === stat.mtimeNsec) return;
    throw new FsError("conflict", `${path}: it changed while it was read; run migrate again`, { path });
  }

  #counted(item: Item, content: Content, sent: number): void {
    this.#report.files++;
    this.#report.bytes += content.size;
    this.#report.sent += sent;
    this.#report.deduplicated += content.size - sent;
    this.#o.onProgress({ files: 1 }, item.path);
  }

  async #smallOne(item: Item): Promise<number> {
    const [ino] = await this.#smallBatch([item]);
    if (ino === undefined) throw new FsError("internal", `${item.path}: it was not taken in`);
    return ino;
  }

  /** Many small files in one request; when that is refused, each in one of its own, so that only the bad ones fail. */
  async #small(items: readonly Item[]): Promise<void> {
    const readable: Item[] = [];
    const bytes = new Map<Item, Uint8Array>();
    await Promise.all(items.map((item) =>
      this.#guarded(item, async () => {
        const read = await this.#readSmall(item);
        bytes.set(item, read);
      })
    ));
    for (const item of items) if (bytes.has(item)) readable.push(item);
    if (readable.length === 0) return;
    try {
      await this.#smallBatch(readable, bytes);
    } catch (error) {
      if (readable.length === 1 || !isOfOneFile(error)) {
        for (const item of readable) this.#failed(item.path, error);
        return;
      }
      for (const item of readable) await this.#guarded(item, async () => void await this.#smallBatch([item], bytes));
    }
  }
  async #readSmall(item: Item): Promise<Uint8Array> {
    const { source, signal } = this.#o;
    const read = await this.#fromSource(() => source.read(item.path, { signal, length: SMALL + 1 }));
    await this.#unchangedSince(item, read.length);
    return read;
  }
  /** Returns the inode number of each. */
  async #smallBatch(items: readonly Item[], bytesOf?: ReadonlyMap<Item, Uint8Array>): Promise<number[]> {
    const pieces: Piece[] = [];
    const contents: { content: Content; pieces: Piece[] }[] = [];
    for (const item of items) {
      const bytes = bytesOf?.get(item) ?? await this.#readSmall(item);
      const spans = chunkInline(bytes);
      const own = spans.map((span) => ({
        hash: span.hash,
        bytes: bytes.subarray(span.offset, span.offset + span.length),
      }));
      pieces.push(...own);
      const manifest = bytes.length === 0 ? null : encodeManifest(spans);
      contents.push({
        content: {
          hash: manifest === null ? null : hex(manifest.hash),
          size: bytes.length,
          manifest: manifest?.blob ?? null,
        },
        pieces: own,
      });
    }
    const lacking = await this.#lacking(pieces);
    const ops: Op[] = [];
    const inos: number[] = [];
    const results: { item: Item; content: Content; sent: number }[] = [];
    const firstOf = new Set(lacking);
    for (const [i, item] of items.entries()) {
      const found = contents[i];
      if (found === undefined) continue;
      const own = await this.#ops(item, found.content);
      let sent = 0;
      for (const piece of found.pieces) if (firstOf.delete(piece)) sent += piece.bytes.length;
      results.push({ item, content: found.content, sent });
      ops.push(...own.ops);
      inos.push(own.ino);
    }
    const manifests = contents.flatMap(({ content }) => content.manifest ?? []);
    await this.#pay(lacking);
    await this.#apply(ops, manifests, lacking);
    for (const { item, content, sent } of results) {
      this.#counted(item, content, sent);
      this.#o.onProgress({ bytes: content.size }, item.path);
    }
    return inos;
  }

  /** Those the server does not have, each once. */
  async #lacking(pieces: readonly Piece[]): Promise<Piece[]> {
    const known = new Map<string, Piece>();
    for (const piece of pieces) {
      const key = hex(piece.hash);
      if (!known.has(key)) known.set(key, piece);
    }
    const unique = [...known.values()];
    if (unique.length === 0) return [];
    const wanted = unique.map(({ hash, bytes }) => ({ hash, length: bytes.length }));
    const missing = await this.#patiently(() => this.#o.link.call("missing", { chunks: wanted }));
    return missing.flatMap((i) => unique[i] ?? []);
  }
  async #pay(pieces: readonly Piece[]): Promise<void> {
    if (this.#bucket === null) return;
    let bytes = 0;
    for (const piece of pieces) bytes += piece.bytes.length;
    if (bytes > 0) await this.#bucket.take(bytes, this.#o.signal);
  }

  /**
   * Stores what the server lacks; what another file of this run is storing just now is waited for instead of being sent
   * twice. Returns the bytes sent.
   */
  async #store(pieces: readonly Piece[]): Promise<number> {
    const mine = Promise.withResolvers<void>();
    mine.promise.catch(() => {});
    const own: Piece[] = [];
    const keys: string[] = [];
    const others = new Set<Promise<void>>();
    for (const piece of pieces) {
      const key = hex(piece.hash);
      const other = this.#storing.get(key);
      if (other === undefined) {
        this.#storing.set(key, mine.promise);
        keys.push(key);
        own.push(piece);
      } else if (other !== mine.promise) others.add(other);
    }
    let sent = 0;
    try {
      const lacking = await this.#lacking(own);
      if (lacking.length > 0) {
        await this.#pay(lacking);
        await this.#patiently(() => this.#o.link.putChunks(lacking, this.#o.signal));
        for (const { bytes } of lacking) sent += bytes.length;
      }
      mine.resolve();
    } catch (error) {
      mine.reject(error);
      throw error;
    } finally {
      for (const key of keys) this.#storing.delete(key);
    }
    // Our own are stored by now, so nobody waits in a circle.
    await Promise.all(others);
    return sent;
  }

  /** A connection that breaks comes back: what may be repeated is repeated. */
  async #patiently<T>(run: () => Promise<T>): Promise<T> {
    const { clock, signal } = this.#o;
    const until = clock.monotonic() + PATIENCE_MS;
    for (;;) {
      try {
        return await run();
      } catch (error) {
        const passing = hasCode(error, "unavailable") || hasCode(error, "timeout");
        if (!passing || clock.monotonic() > until) throw error;
        await clock.sleep(300, signal);
      }
    }
  }

  /** Window by window: cut, ask, send what is lacking. Returns the inode number. */
  async #large(item: Item): Promise<number> {
    const { source, signal, link } = this.#o;
    const segments: SegmentBlob[] = [];
    const builder = new ManifestBuilder({ onSegment: (segment) => segments.push(segment) });
    const window = new Uint8Array(WINDOW);
    let filled = 0;
    let read = 0;
    let sent = 0;
    const cut = async (final: boolean): Promise<void> => {
      const lengths = this.#chunker.cutAll(window, 0, filled, final);
      const pieces: Piece[] = [];
      let at = 0;
      for (const length of lengths) {
        const bytes = window.slice(at, at + length);
        const hash = sha256(bytes);
        builder.add(hash, length);
        pieces.push({ hash, bytes });
        at += length;
      }
      window.copyWithin(0, at, filled);
      filled -= at;
      sent += await this.#store(pieces);
      // A segment can be stored as soon as all its chunks are.
      for (const segment of segments.splice(0)) {
        await this.#patiently(() => link.call("putSegment", { blob: segment.blob }));
      }
      this.#o.onProgress({ bytes: at }, item.path);
    };
    const stream = await this.#fromSource(() => source.openRead(item.path, { signal }));
    const reader = stream.getReader();
    try {
      for (;;) {
        const { done, value } = await this.#fromSource(() => reader.read());
        if (done) break;
        read += value.length;
        for (let at = 0; at < value.length;) {
          const take = Math.min(value.length - at, window.length - filled);
          window.set(value.subarray(at, at + take), filled);
          filled += take;
          at += take;
          if (filled === window.length) await cut(false);
        }
      }
    } finally {
      void reader.cancel().catch(() => {});
    }
    if (filled > 0) await cut(true);
    const built = builder.finish();
    for (const segment of segments.splice(0)) {
      await this.#patiently(() => link.call("putSegment", { blob: segment.blob }));
    }
    await this.#unchangedSince(item, read);
    const content: Content = { hash: hex(built.hash), size: read, manifest: built.blob };
    const own = await this.#ops(item, content);
    await this.#apply(own.ops, [built.blob]);
    this.#counted(item, content, sent);
    return own.ino;
  }
}

/** Names one file of the source, also where inode numbers of two disks meet. */
function identity(stat: Stat): string {
  return `${stat.ino} ${stat.size} ${stat.mtimeSec}.${stat.mtimeNsec} ${stat.ctimeSec}.${stat.ctimeNsec}`;
}

/** A refusal that concerns one file of a batch, not the server or the connection. */
function isOfOneFile(error: unknown): boolean {
  const { code } = toFsError(error);
  return code !== "unavailable" && code !== "timeout" && code !== "access_denied" && code !== "no_space" &&
    code !== "cancelled";
}
