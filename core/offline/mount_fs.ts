/**
 * MountFs: the server's tree as an InodeFs for a kernel mount. It answers from the replica and the content cache, makes
 * every change durable in the journal before it is acknowledged, and delivers it in the background.
 */
import { Errno, errorFromErrno, FsError, toFsError } from "../fs/error.ts";
import { checkName, nameByteLength } from "../fs/names.ts";
import {
  type AttrChange,
  type Awaitable,
  type Caller,
  type InodeFs,
  type KernelNotifier,
  type LockRequest,
  type OpenResult,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  RENAME_WHITEOUT,
  type WriteFlags,
} from "../fs/inode_fs.ts";
import {
  type DirEntry,
  type ListedEntry,
  type ListedName,
  S_IFCHR,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  type Stat,
} from "../fs/stat.ts";
import type { StatFs } from "../fs/contract.ts";
import { type Op, removedBy, ROOT_INO, type Time } from "../index/ops.ts";
import { blankStat, noAttribute } from "../index/tree.ts";
import { ChangeTimes, type Clock } from "../platform/clock.ts";
import { listFolder, makeFolder, readText } from "../platform/files.ts";
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  FMODE_EXEC,
  ftruncateFd,
  makeFolderNow,
  O_ACCMODE,
  O_EXCL,
  O_NOATIME,
  O_RDONLY,
  O_TRUNC,
  O_WRONLY,
  statVfs,
  unlinkPath,
} from "../platform/posix.ts";
import type { Random } from "../platform/random.ts";
import type { PushedChange, ServerLink, Welcome } from "../remote/protocol.ts";
import type { ChunkPool } from "../store/chunk_pool.ts";
import { ContentCache, SMALL_CONTENT } from "./content_cache.ts";
import { type Conflict, ConflictList, type ConflictPolicy } from "./conflict_list.ts";
import { settleByHand } from "./conflict_by_hand.ts";
import { fileState, type JournalItem, journalItems, type JournalScene, mountState } from "./journal_view.ts";
import { type ConnectionMode, ConnectionModes, type ModeEvent } from "./connection_modes.ts";
import { AccessTimes } from "./access_times.ts";
import { Announcements } from "./announcements.ts";
import { Conflicts, type Place } from "./conflicts.ts";
import { carrierOf, Delivery, madeBy, type Outgoing, type Prepared } from "./delivery.ts";
import { Journal, type JournaledAttr, type JournaledData, type JournalPlace, type JournalRecord } from "./journal.ts";
import { holeBytes, HoleMaps, seek } from "./hole_maps.ts";
import { Layer, LayerStack } from "./layers.ts";
import type { Missed, MissedEntry } from "./missed.ts";
import { MountLocks } from "./mount_locks.ts";
import { gated, whyStop } from "./epoch.ts";
import { Pins, type PinStatus } from "./pins.ts";
import { sendAgain } from "./send_again.ts";
import { Replica, type Touched } from "./replica.ts";
import { Room } from "./room.ts";
import { SequencePrefetch } from "./sequence_prefetch.ts";
import { changedBy, type RetainedContent, type UnnamedNode, UnnamedXattrs, withAttr } from "./unnamed.ts";
import { checkXattrName, checkXattrRoom, isVisibleTo } from "./xattr_rules.ts";

export type WritePolicy = "back" | "through";

export interface MountFsOptions {
  /** A folder of its own for the replica, the journal, staging files and the content cache. */
  readonly folder: string;
  /** The name by which this client is known to the server. Another one than before: what that confirmed says nothing. */
  readonly deviceId?: string;
  readonly cacheBytes: number;
  readonly link: ServerLink;
  readonly pool: ChunkPool;
  readonly clock: Clock;
  readonly random: Random;
  readonly host: string;
  readonly policy: WritePolicy;
  /** @default "keep-both" */
  readonly conflict?: ConflictPolicy;
  readonly readOnly: boolean;
  /** The kernel reads whole large contents from the cache's files by itself (see config cache.passthrough). */
  readonly passthrough?: boolean;
  /** Fetch what a reader will probably want next (default true). */
  readonly prefetch?: boolean;
  /** The longest a program's call waits for the server, milliseconds. @default 10000 */
  readonly requestTimeoutMs?: number;
  /** Somebody removed the folder while it was in use. It is there again, without what others keep in it. */
  readonly onFolderLost?: () => void;
  readonly log: (message: string) => void;
}

/** How long close(2) waits at most until everybody sees the change. The journal has it either way. */
const VISIBLE_WAIT_MS = 2000;
/** close(2) waits for that only when so few bytes are on their way; beyond, the file is announced instead. */
const VISIBLE_WAIT_BYTES = 8 * 1024 * 1024;
/** How long it waits until that is said. */
const ANNOUNCE_MS = 1000;
/** Part of the time limit of a request that an open waits to hear what others have closed. */
const PING_PART = 0.3;
/** The same, in milliseconds, when the last such question had no answer in time. */
const SILENT_PING_MS = 200;
const REQUEST_MS = 10_000;
/** How much of its time open(2) waits for another client that has newer content of the file. */
const BUSY_WAIT_PART = 0.8;
const DIR_PAGE = 1000;
/** Extended attributes of a file that others change meanwhile are asked for so often. */
const XATTR_TRIES = 3;
/** So many values of a file's extended attributes are asked for at once. */
const XATTRS_AT_ONCE = 8;
/** Bytes of values that may wait for delivery: they wait in memory. */
const WAITING_VALUES = 64 * 1024 * 1024;
const SEND_AGAIN_PIECE = 1024 * 1024;
/** How long after a change in a folder its listing is fetched. */
const LIST_AFTER_MS = 300;
/** With the first connection, the root's first page is waited for no longer than this, milliseconds. */
const FIRST_PAGE_MS = 250;
const LAST_NAME = "name:";
/** The kernel asks for security.capability at the first write to a file: one error for all saves making its stack each time. */
/** More than can have been sent and not put on the disk. */
const SKIPPED_REQUESTS = 2 ** 20;
const NO_SYSTEM_ATTRIBUTE = noAttribute("security.*");
/**
 * `ls -l` asks for the SELinux label of each file, unless the first one has none and says that there can be none: then it
 * asks no more on that device (coreutils `errno_unsupported`). A label that was set is kept and told.
 */
const LABEL = "security.selinux";
const NO_LABEL = new FsError("not_supported", "the file has no label", { operation: "getxattr" });
/** As ext4 with blocks of 4 KiB. Bytes: what the manifest of a file full of holes takes and costs grows with its size. */
const MAX_FILE_SIZE = 2 ** 44 - 4096;

const isDir = (s: Stat) => (s.mode & S_IFMT) === S_IFDIR;
const isFile = (s: Stat) => (s.mode & S_IFMT) === S_IFREG;

/** Names (`parent/name`) and nodes that changed while the server was asked. */
interface Since {
  readonly entries: Set<string>;
  readonly nodes: Set<number>;
}
/** A node somebody has open. */
interface OpenNode {
  readonly ino: number;
  opens: number;
  /** How many of them run it. */
  running: number;
  /** It has no extended attributes: the kernel asks at the first write to each file. */
  plain: boolean;
  retained: RetainedContent | null;
}

interface Handle {
  readonly ino: number;
  created: Outgoing | null;
  /** Reading through it counts as access (not O_NOATIME, not a read-only mount). */
  readonly counts: boolean;
  readonly runs: boolean;
}

export class MountFs implements InodeFs {
  readonly cacheDirs = true;
  readonly #o: MountFsOptions;
  readonly #raw: ServerLink;
  /** Why the client does not go on with this server before somebody decides. */
  #stopped: string | null = null;
  /** What holds instead of the policy until all is delivered. */
  #forced: ConflictPolicy | null = null;
  readonly #pins: Pins;
  readonly #replica: Replica;
  readonly #journal: Journal;
  readonly #cache: ContentCache;
  readonly #holes: HoleMaps;
  readonly #room: Room;
  readonly #delivery: Delivery;
  readonly #sequence: SequencePrefetch;
  readonly #locks: MountLocks;
  readonly #stacks = new Map<number, LayerStack>();
  readonly #open = new Map<number, OpenNode>();
  readonly #handles = new Map<number, Handle>();
  readonly #times: ChangeTimes;
  readonly #accessed: AccessTimes;
  readonly #busy = new Set<number>();
  /** The last question of an open whether there is news had no answer in time. */
  #silent = false;
  readonly #unnamed = new Map<number, UnnamedNode>();
  /** Nodes whose last name was removed here while bytes of theirs were still to be sent: nobody can want those any more. */
  readonly #gone = new Set<number>();
  readonly #announced: Announcements<Outgoing>;
  readonly #loading = new Map<number, Promise<void>>();
  #lastContent = new Map<number, string | null>();
  /** For each question under way: what changed since it was asked. An answer may be read after news that is newer. */
  readonly #asking = new Set<Since>();
  /** Numbers of changes of ours, by name and by node, that the feed has not come to yet. */
  /** Folders to be listed in the background. */
  readonly #toList = new Set<number>();
  #cancelListing: () => void = () => {};
  readonly #applied = new Map<string | number, number>();
  /** News of nodes and names that were passed over because ours were on their way: asked for when those are delivered. */
  readonly #passedOver: Missed;
  /** Where a file with undelivered bytes was before others took its last name away. */
  readonly #lastNames: Map<number, Place>;
  readonly #conflicts: Conflicts;
  readonly #found: ConflictList;
  #nextFh = 1;
  #stagingNumber: number;
  #notifier: KernelNotifier | null = null;
  readonly #modes: ConnectionModes;
  readonly #scene: JournalScene;
  #welcome: Welcome | null = null;
  #seq: number | null = null;
  /** It is being said up to where changes of others are seen here. */
  #hearing = false;
  #statFs: { at: number; value: StatFs } | null = null;
  /** Other devices that are connected; null: not known. */
  #others: number | null = null;
  /** The highest of our request numbers that our journal knew of at the start; no matter any more after the first connection. */
  #knownRequest: number;
  readonly #firstUp = Promise.withResolvers<void>();
  /** The root's listing is here, or so much of it that the rest may take its time. */
  readonly #rootListed = Promise.withResolvers<void>();
  #stopSync: () => void;

  private constructor(
    o: MountFsOptions,
    replica: Replica,
    journal: Journal,
    cache: ContentCache,
    room: Room,
    stagingNumber: number,
    rebooted: boolean,
  ) {
    const raw = o.link;
    o = { ...o, link: gated(raw, () => this.#stopped) };
    this.#raw = raw;
    this.#o = o;
    this.#replica = replica;
    this.#journal = journal;
    this.#cache = cache;
    this.#holes = new HoleMaps(cache);
    this.#room = room;
    this.#stagingNumber = stagingNumber;
    this.#knownRequest = journal.lastRequest;
    this.#passedOver = replica.missed;
    this.#times = new ChangeTimes(o.clock);
    this.#accessed = new AccessTimes(o.clock, () => this.#time(), (ops) => void this.#commit(ops));
    this.#announced = new Announcements(
      (ino, pending) => this.#o.link.call("announce", { ino, pending }, { timeoutMs: ANNOUNCE_MS }),
    );
    this.#modes = new ConnectionModes({ clock: o.clock, log: o.log, link: o.link });
    this.#lastNames = new Map(
      replica.metas(LAST_NAME).map(([ino, place]) => [Number(ino), JSON.parse(place) as Place]),
    );
    this.#found = new ConflictList(replica);
    this.#scene = {
      replica,
      stacks: this.#stacks,
      now: () => o.clock.now(),
      conflicts: () => this.#found.open(),
      list: () => this.#delivery.list(),
      blocked: () => this.#delivery.blocked,
    };
    this.#conflicts = new Conflicts({
      replica,
      link: o.link,
      clock: o.clock,
      host: o.host,
      policy: () => this.#forced ?? o.conflict ?? "keep-both",
      found: this.#found,
      stacks: this.#stacks,
      log: o.log,
      list: () => this.#delivery.list(),
      lastName: (ino) => this.#lastNames.get(ino) ?? null,
      notifier: () => this.#notifier,
      forgetStack: (ino) => this.#forgetStack(ino),
      cameBack: (ino) => this.#cameBack(ino),
      uncertain: (out) => this.#missed(out.touched),
      moved: (ino) => this.#flushSoon(ino),
    });
    const known = replica.getMeta("seq");
    this.#seq = known === null ? null : Number(known);
    this.#delivery = new Delivery({
      journal,
      link: o.link,
      pool: o.pool,
      cache,
      clock: o.clock,
      // A power cut may have taken records that were sent: their numbers are not given again.
      firstRequest: journal.lastRequest + 1 + (rebooted ? SKIPPED_REQUESTS : 0),
      urgent: o.policy === "through",
      hooks: {
        visible: (out, stats, seq) => this.#visible(out, stats, seq),
        keep: () => {
          const durable = this.#delivery.durableUpTo;
          if (durable > Number(replica.getMeta("durable") ?? 0)) replica.setMeta("durable", String(durable));
          replica.commit();
        },
        kept: () => replica.sync(),
        takenBack: (out) => replica.guard(out.touched),
        wanted: (ino) => !this.#gone.has(ino) || this.#unnamed.has(ino),
        mayHold: () => this.#others === 0 && o.policy === "back",
        delivered: (out) => this.#delivered(out),
        repeated: (out) => this.#missed(out.touched),
        settle: (refused) => this.#conflicts.settle(refused),
        doubt: (refused) => {
          for (const { touched } of refused) this.#missed(touched);
          replica.touch();
          replica.commit();
        },
        given: (out) => {
          replica.delivered(out.touched);
          this.#missed(out.touched);
          for (const op of out.ops) this.#gone.delete(removedBy(op));
          // Should nobody ask before the next start: what is here of these names is not known to be right.
          for (const { parent, name, ino } of out.touched.entries) {
            if (replica.isPendingEntry(parent, name)) continue;
            replica.setComplete(parent, false);
            if (ino !== 0 && replica.tree.entry(parent, name) === ino) replica.unlearnEntry(parent, name);
          }
        },
        log: o.log,
      },
    });
    this.#sequence = new SequencePrefetch({
      nameOf: (ino) => replica.tree.anyName(ino),
      after: (parent, name, limit) => replica.isComplete(parent) ? replica.tree.readDir(parent, name, limit) : [],
      fetch: (content, size) => cache.fetch(content, size),
    });
    this.#locks = new MountLocks({
      link: o.link,
      clock: o.clock,
      log: o.log,
      settle: (ino) => this.#settleWrites(ino),
      isBehind: () => this.#delivery.list().some(({ state }) => state !== "visible"),
      isDirty: (ino) => this.#stacks.has(ino) || replica.isPendingNode(ino),
      refresh: (ino) => this.#asTheServerHasIt(ino),
      alone: () => this.#others === 0,
    });
    o.link.resumeFrom = () => ({ after: this.#seq, epoch: this.#replica.getMeta("epoch") });
    o.link.onUp((welcome) => this.#up(welcome));
    o.link.onDown((reason) => this.#down(reason));
    o.link.onPush("changes", ({ seq, changes }) => {
      this.#changes(seq, changes);
      if (changes.length > 0) void this.#hear();
    });
    o.link.onPush("durable", ({ request }) => this.#delivery.durable(request));
    o.link.onPush("busy", ({ ino, pending }) => {
      if (pending) this.#busy.add(ino);
      else this.#busy.delete(ino);
    });
    o.link.onPush("peers", ({ others }) => {
      this.#others = others;
      if (others > 0) this.#delivery.hurry();
    });
    o.link.onPush("hurry", ({ n }) => {
      void this.#delivery.shown().then(() => this.#o.link.call("hurried", { n })).catch(() => {});
    });
    o.link.onPush("reset", ({ seq }) => this.#reset(seq));
    this.#firstUp.promise.catch(() => {});
    this.#pins = new Pins({
      replica,
      cache,
      clock: o.clock,
      log: o.log,
      online: () => this.#modes.mode === "online",
      complete: (dir) => this.#complete(dir),
      stat: (ino) => this.#stat(ino),
      readlink: (ino) => this.readlink(ino),
      loadXattrs: (ino) => this.#loadXattrs(ino),
    });
    // Changes that nobody waits for (mkdir, rename) reach the disk within a second all the same.
    journal.onLost = () => this.#folderLost();
    this.#stopSync = o.clock.every(1000, () => {
      void this.#journal.sync().catch(() => {});
      room.refill();
    });
  }

  /** Opens the client's folder, with what an earlier run left undelivered. Throws corrupt, no_space. */
  static async open(o: MountFsOptions): Promise<MountFs> {
    const staging = `${o.folder}/staging`;
    await makeFolder(staging);
    await makeFolder(`${o.folder}/journal`);
    await makeFolder(`${o.folder}/content`);
    const cache = await ContentCache.open({
      folder: `${o.folder}/content`,
      maxBytes: o.cacheBytes,
      prefetch: o.prefetch ?? true,
      clock: o.clock,
      link: () => o.link,
      log: o.log,
    });
    const room = new Room(o.folder, o.clock, o.log);
    const late: { lost: () => void; journaled: () => number | null } = { lost: () => {}, journaled: () => null };
    const replica = new Replica(
      `${o.folder}/replica.db`,
      o.clock,
      (error) => o.log(`the replica can't be written: ${error.message}; make room in ${o.folder}`),
      () => late.lost(),
      () => room.release(),
      () => late.journaled(),
    );
    const boot = await readText("/proc/sys/kernel/random/boot_id").catch(() => "unknown");
    const bootBefore = replica.getMeta("boot");
    const rebooted = bootBefore !== null && bootBefore !== boot;
    if (rebooted) replica.skipInos();
    if (bootBefore !== boot) replica.setMeta("boot", boot);
    const { journal, records, damage } = await Journal.open(`${o.folder}/journal`, o.random, o.clock);
    for (const words of damage) o.log(words);
    // After a power cut the database may be older than the mark of what was delivered: all is asked for anew.
    if (replica.applied < journal.delivered) replica.dropMeta("seq");
    const used = new Set(records.flatMap(({ record }) => record.data?.staging ?? []));
    let number = 0;
    for (const name of await listFolder(staging)) {
      if (!used.has(name)) unlinkPath(`${staging}/${name}`);
      number = Math.max(number, Number(name) || 0);
    }
    const fs = new MountFs(o, replica, journal, cache, room, number + 1, rebooted);
    // A power cut may have left less of the journal than of the replica.
    const applied = Math.min(replica.applied, journal.lastRequest);
    const staged = new Set(await listFolder(staging));
    for (const { record, place } of records) {
      if (record.data?.staging && !staged.has(record.data.staging)) {
        // It goes only after delivery: a power cut took the mark that says so.
        o.log(`request ${record.request} was delivered before`);
        journal.release(place.file);
        continue;
      }
      fs.#recover(record, place, applied);
    }
    for (const ino of fs.#delivery.list().flatMap(({ ops }) => ops.map(removedBy))) {
      if (fs.#stacks.has(ino) && replica.tree.anyName(ino) === null) fs.#gone.add(ino);
    }
    late.lost = () => fs.#lost();
    late.journaled = () => fs.#delivery.nextRequest - 1;
    for (const ino of replica.wrote) {
      fs.#passedOver.addNode(ino);
      if (!fs.#stacks.has(ino)) replica.dropBefore(ino);
    }
    replica.commit();
    return fs;
  }

  /** SQLite took back what was not in the database yet. */
  #lost(): void {
    const { applied } = this.#replica;
    for (const { request, ops, data } of this.#delivery.list()) {
      this.#replica.redo(ops, request <= applied);
      const node = data === null ? null : this.#replica.stat(data.ino);
      if (node !== null && data !== null) this.#putWritten(node, data);
    }
    this.#reset(this.#seq ?? 0);
    this.#replica.caughtUp();
  }
  #putWritten(node: Stat, data: JournaledData): void {
    this.#replica.touch();
    this.#putLocal(withAttr({ ...node, size: data.size, ...mtimeOf(data.time) }, data.attr ?? {}));
  }
  #recover({ request, ops, data }: JournalRecord, place: JournalPlace, applied: number): void {
    const touched = touchedBy(ops, data?.ino);
    if (!this.#replica.redo(ops, request <= applied)) this.#missed(touched);
    let stack: LayerStack | null = null;
    let layer: Layer | null = null;
    if (data !== null) {
      const node = this.#replica.tree.stat(data.ino);
      stack = this.#stacks.get(data.ino) ?? null;
      if (stack === null) {
        stack = new LayerStack(data.base ?? null, data.baseSize);
        stack.unresolved = data.base === undefined;
        this.#stacks.set(data.ino, stack);
        if (node !== null) this.#replica.keepBefore(node);
      }
      layer = Layer.fromJournal(data, request, place, this.#journal, `${this.#o.folder}/staging`);
      stack.layers.push(layer);
      if (node !== null) this.#putWritten(node, data);
    }
    this.#replica.guard(touched);
    this.#delivery.add({ request, ops, data, place, stack, layer, touched });
  }

  // --- the connection ---

  /**
   * Resolves at the first connection, as a rule with the root's listing here, so that what comes next may be without one: a
   * root of more than a page is not waited for, nor an answer that takes long.
   */
  get connectedOnce(): Promise<void> {
    return this.#firstUp.promise;
  }
  get mode(): ConnectionMode {
    return this.#modes.mode;
  }
  /** Has it ever been connected: can it serve without the server? */
  get canWorkOffline(): boolean {
    return this.#replica.getMeta("device") !== null;
  }
  #up(welcome: Welcome): void {
    const { deviceId } = this.#o;
    if (deviceId !== undefined) {
      const before = this.#replica.getMeta("device_id");
      if (before !== null && before !== deviceId) this.#replica.setMeta("durable", "0");
      this.#replica.setMeta("device_id", deviceId);
    }
    const { epoch, durable } = { epoch: this.#replica.getMeta("epoch"), durable: this.#replica.getMeta("durable") };
    this.#stopped = whyStop({ epoch, durable: Number(durable ?? 0) }, welcome);
    this.#welcome = welcome;
    if (this.#stopped !== null) {
      this.#modes.stop(this.#stopped);
      this.#firstUp.resolve();
      return;
    }
    this.#begin(welcome);
  }
  #begin(welcome: Welcome): void {
    this.#delivery.takenBack(welcome.lastRequest);
    this.#replica.setMeta("device", String(welcome.device));
    // What it has of ours and our journal has not: a power cut took it here, and own news is not told.
    const forgotten = welcome.lastRequest > this.#knownRequest;
    if (welcome.reset || this.#seq === null || forgotten) this.#reset(welcome.seq);
    this.#knownRequest = Infinity;
    this.#replica.setMeta("epoch", welcome.epoch);
    this.#busy.clear();
    void this.#announced.again();
    this.#modes.up();
    this.#replica.commit();
    this.#locks.up(welcome.run);
    this.#resolveBases().then(() => {
      if (this.#welcome !== welcome || this.#modes.mode !== "online") return;
      this.#delivery.up(welcome.lastRequest);
      this.#catchUp();
      void this.#hear();
      this.#toList.add(ROOT_INO);
      void this.#listWorked();
      this.#pins.all();
    }, (error) => this.#o.log(`the journal waits: ${toFsError(error).message}`));
    void this.#askSpace().catch(() => {});
    void this.#begun();
  }
  /** The root is what everything begins with, offline too. */
  async #begun(): Promise<void> {
    try {
      await this.#stat(ROOT_INO);
    } catch (error) {
      this.#o.log(toFsError(error).message);
      // Without a connection the next one tells more.
      if (this.#modes.mode === "online") this.#firstUp.resolve();
      return;
    }
    if (!this.#replica.isComplete(ROOT_INO)) {
      const { promise, resolve } = this.#rootListed;
      const cancel = this.#o.clock.after(FIRST_PAGE_MS, resolve);
      await promise;
      cancel();
    }
    this.#firstUp.resolve();
  }
  /** After a restart: what an earlier, delivered record made of the file is the base of the ones still here. */
  async #resolveBases(): Promise<void> {
    for (const [ino, stack] of this.#stacks) {
      if (!stack.unresolved) continue;
      const stat = await this.#o.link.call("stat", { ino });
      stack.base = stat?.content ?? null;
      stack.baseSize = stat === null || stat.content === null ? 0 : stat.size;
      stack.baseHoles = stat?.holes ?? 0;
      stack.unresolved = false;
    }
  }
  #down(reason: string): void {
    this.#modes.down(reason);
    this.#others = null;
    this.#delivery.down();
    this.#locks.down();
  }
  #setSeq(seq: number): void {
    if (this.#seq !== null && seq <= this.#seq) return;
    this.#seq = seq;
    this.#replica.setMeta("seq", String(seq));
  }
  /** Everything known may be wrong: forget it, keep what is ours. */
  #reset(seq: number): void {
    const made = this.#delivery.list().flatMap(({ ops }) =>
      ops.flatMap((op) => op.t === "create" && (op.mode & S_IFMT) === S_IFDIR ? op.ino : [])
    );
    for (const ino of this.#stacks.keys()) {
      const place = this.#replica.tree.anyName(ino);
      if (place !== null) this.#keepLastName(ino, place);
    }
    this.#replica.reset(this.#stacks.keys(), made);
    for (const ino of this.#stacks.keys()) this.#passedOver.addNode(ino);
    for (const { touched } of this.#delivery.list()) this.#missed(touched);
    this.#seq = seq;
    this.#applied.clear();
    this.#replica.setMeta("seq", String(seq));
    this.#lastContent.clear();
    this.#notifier?.invalidateAll();
    for (const ino of this.#open.keys()) this.#notifier?.invalidateInode(ino, !this.#stacks.has(ino));
  }

  #changes(seq: number, changes: readonly PushedChange[]): void {
    for (const change of changes) {
      if (change.kind === "entry") this.#entryChanged(change);
      else this.#nodeChanged(change);
    }
    for (const { ino } of changes) this.#pins.changed(ino);
    for (const [what, ours] of this.#applied) if (ours <= seq) this.#applied.delete(what);
    this.#setSeq(seq);
  }
  /** Says up to where changes of others are seen here: in the replica, and by the kernel. */
  async #hear(): Promise<void> {
    if (this.#hearing) return;
    this.#hearing = true;
    try {
      for (let said = -1; said < (this.#seq ?? 0);) {
        const seq = this.#seq ?? 0;
        await this.#notifier?.told?.();
        this.#o.link.call("heard", { seq }).catch(() => {});
        said = seq;
      }
    } finally {
      this.#hearing = false;
    }
  }
  /** Right after a new connection an answer to a change of ours may overtake news that is older than it. */
  #isOlder(what: string | number, seq: number): boolean {
    return (this.#applied.get(what) ?? 0) > seq;
  }
  /**
   * Asks the server and has the answer taken over in the same breath: what was heard up to then is in `since`, as it may be
   * newer than the answer.
   */
  async #ask<T, R>(question: () => Promise<T>, take: (answer: T, since: Since) => R): Promise<Awaited<R>> {
    const since: Since = { entries: new Set(), nodes: new Set() };
    this.#asking.add(since);
    let taken: R;
    try {
      taken = take(await question(), since);
    } finally {
      this.#asking.delete(since);
    }
    return await taken;
  }
  #entryChanged({ seq, parent, name, ino, stat }: PushedChange): void {
    if (this.#isOlder(`${parent}/${name}`, seq)) {
      // Not all that ours touched is as ours left it: a settlement lets go of a name that others have.
      this.#passedOver.addEntry(parent, name);
      return this.#catchUp();
    }
    for (const { entries } of this.#asking) entries.add(`${parent}/${name}`);
    if (this.#replica.isPendingEntry(parent, name)) {
      this.#passedOver.addEntry(parent, name);
      return;
    }
    if (ino === 0) this.#entryNow(parent, name, null);
    else if (stat !== null) this.#entryNow(parent, name, stat);
  }
  /** What the server says a name names. */
  #entryNow(parent: number, name: string, stat: Stat | null): void {
    const named = this.#replica.tree.entry(parent, name);
    if (named !== 0 && named !== stat?.ino && (this.#stacks.has(named) || this.#replica.isPendingNode(named))) {
      this.#keepLastName(named, { parent, name });
    }
    if (stat === null) this.#replica.unlearnEntry(parent, name);
    else this.#learnEntry(parent, { name, stat });
    this.#notifier?.invalidateEntry(parent, name);
    this.#notifier?.invalidateInode(parent, true);
  }
  #learnEntry(parent: number, { name, stat }: DirEntry): void {
    const before = this.#notifier?.holds?.(stat.ino) === true ? this.#replica.stat(stat.ino) : null;
    this.#replica.learnEntry(parent, { name, stat: this.#reconciled(stat) });
    this.#cameBack(stat.ino);
    // News of a name comes with the node as it is by then: what follows about the node says nothing new any more.
    const after = before === null ? null : this.#replica.stat(stat.ino);
    if (before !== null && after !== null && !sameStat(before, after)) {
      this.#notifier?.invalidateInode(stat.ino, before.content !== after.content);
    }
  }
  /** What an answer says of a node, or what it is here when we have written to it; an answer may come before its news. */
  #reconciled(stat: Stat): Stat {
    const stack = this.#stacks.get(stat.ino);
    const known = stack === undefined ? null : this.#replica.stat(stat.ino);
    // What is on its way stands here by itself.
    if (stack === undefined || known === null || this.#replica.isPendingNode(stat.ino)) return stat;
    if (!this.#isThere(stack)) {
      this.#passedOver.addNode(stat.ino);
      this.#replica.moveBefore(stat);
      return known;
    }
    // What is left of ours only waits for the server's disk; theirs came after it.
    if (known.content !== stat.content) {
      this.#forgetStack(stat.ino);
      this.#notifier?.invalidateInode(stat.ino, true);
    }
    return stat;
  }
  /** What was removed here has a name again: somebody had changed it, or put something into it. */
  #cameBack(ino: number): void {
    const unnamed = this.#unnamed.get(ino);
    if (unnamed === undefined && !this.#gone.has(ino)) return;
    if (this.#replica.tree.anyName(ino) === null) return;
    this.#dropUnnamed(ino);
    this.#gone.delete(ino);
    const stack = this.#stacks.get(ino);
    const node = this.#replica.stat(ino);
    if (unnamed === undefined || stack === undefined || stack.open === null || node === null) return;
    // What was written while it had no name.
    const { mtimeSec, mtimeNsec } = unnamed.stat;
    this.#replica.putFresh({ ...node, size: stack.size, mtimeSec, mtimeNsec });
    if (!this.#open.has(ino)) this.#flushSoon(ino);
  }
  /** Not in the middle of a settlement. */
  #flushSoon(ino: number): void {
    void Promise.resolve().then(() => this.#stacks.get(ino)?.open ? this.#flushNode(ino, false) : undefined)
      .catch((error) => this.#o.log(toFsError(error).message));
  }
  #nodeChanged({ seq, ino, stat }: PushedChange): void {
    if (!this.#isOlder(ino, seq)) return this.#nodeNow(ino, stat);
    this.#passedOver.addNode(ino);
    this.#catchUp();
  }
  /** What the server says of a node, null: it is gone. */
  #nodeNow(ino: number, stat: Stat | null): void {
    for (const { nodes } of this.#asking) nodes.add(ino);
    const unnamed = this.#unnamed.get(ino);
    // For who holds it, it is what it was here.
    if (unnamed !== undefined && (stat === null || unnamed.givenUp.length > 0)) return;
    const stack = this.#stacks.get(ino);
    if (this.#replica.isPendingNode(ino) || (stack !== undefined && !this.#isThere(stack))) {
      this.#passedOver.addNode(ino);
      if (stat !== null) this.#replica.moveBefore(stat);
      return;
    }
    // What is left of ours only waits for the server's disk; theirs came after it.
    if (stack !== undefined) this.#forgetStack(ino);
    const before = this.#replica.tree.stat(ino);
    if (stat === null) {
      if (before !== null && this.#open.has(ino)) this.#lostLast(this.#asUnnamed(before), this.#time());
      this.#replica.unlearn(ino);
      this.#notifier?.invalidateInode(ino, false);
      return;
    }
    // Who has a name here is known here.
    if (before === null && this.#replica.tree.anyName(ino) === null) return;
    this.#replica.learn(stat);
    this.#replica.forgetXattrs(ino);
    const open = this.#open.get(ino);
    if (open !== undefined) {
      open.plain = stat.xattrs === 0;
      this.#retain(open, stat);
    }
    this.#notifier?.invalidateInode(ino, before?.content !== stat.content);
  }

  /** Does everybody see all that was written here? */
  #isThere(stack: LayerStack): boolean {
    return stack.open === null && this.#delivery.list().every((out) => out.stack !== stack || out.state === "visible");
  }
  #missed({ entries, nodes }: Touched): void {
    for (const ino of nodes) this.#passedOver.addNode(ino);
    for (const { parent, name, ino } of entries) {
      this.#passedOver.addEntry(parent, name);
      if (ino !== 0) this.#passedOver.addNode(ino);
    }
  }
  /** Asks for what was passed over, as far as nothing of ours is on its way there any more. */
  #catchUp(): void {
    const missed = this.#passedOver;
    if (missed.isEmpty || this.#modes.mode !== "online") return;
    // Without the connection it is asked at the next start of one.
    const told = (asked: Promise<boolean>) =>
      asked.then((again) => again && this.#catchUp(), (error) => {
        if (this.#modes.mode !== "online") return;
        this.#o.log(`asking again for what others changed: ${toFsError(error).message}`);
      });
    for (const [key, { parent, name }] of missed.entries) {
      if (this.#replica.isPendingEntry(parent, name)) continue;
      void told(missed.askEntry(key, (entry) => this.#entryAgain(entry)));
    }
    for (const ino of missed.nodes) {
      const stack = this.#stacks.get(ino);
      if (this.#replica.isPendingNode(ino) || (stack !== undefined && !this.#isThere(stack))) continue;
      void told(missed.askNode(ino, () => this.#nodeAgain(ino)));
    }
  }
  /** Asks what a name names by now. True: what was heard meanwhile is newer than the answer, and may have been of ours alone. */
  #entryAgain({ parent, name }: MissedEntry): Promise<boolean> {
    return this.#ask(() => this.#o.link.call("lookup", { parent, name }), (answer, since) => {
      if (this.#replica.isPendingEntry(parent, name) || since.entries.has(`${parent}/${name}`)) return true;
      this.#entryNow(parent, name, answer);
      if (answer !== null) this.#changedSince(since, answer.ino);
      return false;
    });
  }
  /** The same for a node. */
  #nodeAgain(ino: number): Promise<boolean> {
    return this.#ask(() => this.#o.link.call("stat", { ino }), (answer, since) => {
      if (since.nodes.has(ino)) return true;
      this.#nodeNow(ino, answer);
      return false;
    });
  }
  /** An answer told of a node that there was newer news of, and is what is known now: the node is asked for once more. */
  #changedSince(since: Since, ino: number): void {
    if (!since.nodes.has(ino)) return;
    this.#passedOver.addNode(ino);
    this.#catchUp();
  }

  #folderLost(): void {
    this.#o.log(`${this.#o.folder} was removed while it was in use: it is made anew`);
    makeFolderNow(`${this.#o.folder}/staging`);
    this.#replica.begin(`${this.#o.folder}/replica.db`);
    this.#o.onFolderLost?.();
  }

  // --- delivery's news ---

  #visible(out: Outgoing, stats: readonly Stat[], seq: number): void {
    this.#replica.delivered(out.touched);
    for (const { entries, nodes } of this.#asking) {
      for (const { parent, name } of out.touched.entries) entries.add(`${parent}/${name}`);
      for (const ino of out.touched.nodes) nodes.add(ino);
    }
    for (const stat of stats) {
      this.#replica.moveBefore(stat);
      if (this.#replica.isPendingNode(stat.ino)) continue;
      const stack = this.#stacks.get(stat.ino);
      if (stack !== undefined && (stack.open !== null || stack.layers.at(-1) !== out.layer)) continue;
      const before = this.#replica.tree.stat(stat.ino);
      if (before === null) continue;
      this.#replica.learn(stat);
      // As many as there are: a settlement may have made the file anew.
      if (!before.xattrs && !stat.xattrs) continue;
      if (this.#replica.tree.xattrUse(stat.ino).count !== (stat.xattrs ?? 0)) this.#replica.forgetXattrs(stat.ino);
    }
    // What was merged into a later record is told with that.
    if (out.data !== null && out.prepared !== null && out.mergedInto === null) {
      const { content, size, holes } = out.prepared;
      // Other operations on the node may still be on their way, so `stats` was not taken over: its content must be.
      if (out.stack?.layers.at(-1) === out.layer) {
        const node = this.#replica.tree.stat(out.data.ino);
        const unnamed = this.#unnamed.get(out.data.ino);
        if (node !== null && node.content !== content) {
          this.#replica.touch();
          this.#putLocal({ ...node, content, size, holes });
        } else if (unnamed !== undefined) unnamed.stat = { ...unnamed.stat, content, size, holes };
      } else {
        // Should what lies above be lost in a crash, this is what the file is.
        const before = this.#replica.before(out.data.ino);
        if (before !== null && before.content !== content) {
          this.#replica.moveBefore({ ...before, content, size, holes });
        }
      }
    }
    // The number moves on by the feed alone: there may be changes before ours that were not told yet.
    for (const { parent, name } of out.touched.entries) this.#applied.set(`${parent}/${name}`, seq);
    for (const ino of out.touched.nodes) this.#applied.set(ino, seq);
    this.#catchUp();
  }
  #delivered(out: Outgoing): void {
    this.#release(out);
    this.#announced.end(out);
  }
  /** What the record kept here may go. */
  #release(out: Outgoing): void {
    if (this.#delivery.pending.records === 0) {
      this.#gone.clear();
      for (const ino of this.#lastNames.keys()) if (!this.#stacks.has(ino)) this.#dropLastName(ino);
    }
    const { data, stack, layer } = out;
    const made = madeBy(out);
    if (data === null || stack === null || layer === null) {
      this.#catchUp();
      return;
    }
    const place = stack.layers.indexOf(layer);
    const unnamed = this.#unnamed.get(data.ino);
    if (unnamed !== undefined && made === null && out.state !== "visible" && place >= 0) {
      layer.givenUp = true;
      unnamed.givenUp.push(layer);
    } else {
      if (made !== null && place >= 0 && out.state === "visible") this.#keepChanged(out, stack, made);
      // What was given up leaves those before it as they are.
      if (place >= 0 && out.state === "visible") stack.layers.splice(0, place + 1);
      else if (place >= 0) stack.layers.splice(place, 1);
      if (made === null) layer.dispose();
      else this.#becomesBase(out, stack, layer, made);
    }
    if (stack.isEmpty && this.#stacks.get(data.ino) === stack) {
      this.#forgetStack(data.ino);
      const holder = this.#open.get(data.ino);
      const stat = this.#statOr(data.ino);
      if (stat !== null) this.#lastContent.set(data.ino, stat.content);
      if (holder !== undefined && stat !== null) this.#retain(holder, stat);
      // Of what was changed in part only that part was here.
      this.#pins.changed(data.ino);
    }
    this.#catchUp();
  }

  /** Of a large file that was changed in part, what is here of the content before and of the layers is what is here of the new one. */
  #keepChanged(out: Outgoing, stack: LayerStack, made: Prepared): void {
    const { content, size } = made;
    const carrier = carrierOf(out);
    const count = carrier.layer === null ? 0 : stack.layers.indexOf(carrier.layer) + 1;
    if (content === null || size <= SMALL_CONTENT || content === stack.base || carrier.stack !== stack || count === 0) {
      return;
    }
    // What is not known to be just these layers over that base.
    if (
      stack.unresolved || out.had || carrier.had || carrier.salvage ||
      stack.layers.slice(0, count).some(({ givenUp }) => givenUp)
    ) return;
    if (this.#isWhole(carrier, size)) return;
    const ino = carrier.data?.ino ?? 0;
    const holders = [this.#open.get(ino), this.#unnamed.get(ino)].flatMap((holder) =>
      holder !== undefined && holder.retained !== null && holder.retained.hash === stack.base ? [holder] : []
    );
    for (const holder of holders) this.#retainContent(holder, null);
    const from = stack.base === null ? null : { hash: stack.base, size: stack.baseSize };
    const lost = this.#cache.derive(content, size, from, stack.sources(0, size, count));
    for (const holder of holders) this.#retainContent(holder, { hash: content, size });
    if (lost) this.#pins.lost();
  }
  /** Is the record's layer a file with all bytes of the content? */
  #isWhole(out: Outgoing, size: number): boolean {
    const { layer } = out;
    return layer !== null && layer.stagingPath !== null && size > SMALL_CONTENT && out.mergedInto === null &&
      !out.had &&
      layer.extents.covers(0, size);
  }
  /** A delivered layer's bytes go into the cache, as the content that the layers above it lie on. */
  #becomesBase(out: Outgoing, stack: LayerStack, layer: Layer, made: Prepared): void {
    const { content, size, whole: bytes } = made;
    if (content !== null && bytes !== null && !out.superseded) this.#cache.putSmall(content, bytes);
    let path = content !== null && this.#isWhole(out, size) ? layer.stagingPath : null;
    try {
      if (path !== null) ftruncateFd(layer.stagingFd, size);
    } catch (error) {
      // Somebody removed the folder: it will be fetched when it is wanted.
      this.#o.log(`the staging file could not be kept: ${toFsError(error).message}`);
      path = null;
    }
    layer.dispose(path !== null);
    if (path !== null && content !== null) this.#cache.adopt(content, size, path);
    stack.base = content;
    stack.baseSize = size;
    stack.baseHoles = made.holes;
    const ino = out.data?.ino ?? 0;
    const unnamed = this.#unnamed.get(ino);
    if (unnamed !== undefined && this.#stacks.get(ino) === stack) {
      this.#retainContent(unnamed, content === null ? null : { hash: content, size });
    }
    // The delivery has counted what was only estimated.
    if (layer.sparse) this.#notifier?.invalidateInode(ino, false);
  }
  #forgetStack(ino: number): void {
    this.#stacks.delete(ino);
    this.#dropLastName(ino);
    this.#replica.dropBefore(ino);
  }
  #keepLastName(ino: number, place: Place): void {
    this.#lastNames.set(ino, place);
    this.#replica.setMeta(`${LAST_NAME}${ino}`, JSON.stringify(place));
  }
  #dropLastName(ino: number): void {
    if (this.#lastNames.delete(ino)) this.#replica.dropMeta(`${LAST_NAME}${ino}`);
  }

  // --- our changes ---

  #time(): Time {
    return this.#times.now();
  }
  #writable(): void {
    if (this.#o.readOnly) throw new FsError("read_only", "the mount is read-only");
  }
  /** Applies operations here, journals them, sends them on their way. */
  #commit(ops: readonly Op[]): Outgoing {
    this.#writable();
    // Removals make room: for them there is the reserve.
    if (ops.some((op) => op.t !== "unlink" && op.t !== "rmdir")) this.#room.need(0);
    this.#replica.secure();
    const request = this.#delivery.takeRequest();
    let place: JournalPlace | null = null;
    const touched = this.#replica.apply(ops, () => place = this.#journal.append({ request, ops, data: null }, []));
    if (place === null) throw new FsError("internal", "the journal took nothing");
    this.#replica.guard(touched);
    for (const { parent } of touched.entries) this.#listSoon(parent);
    return this.#delivery.add({ request, ops, data: null, place, stack: null, layer: null, touched });
  }
  /**
   * Folders that are worked in are listed while there is a connection: without one, a name that is not known can't be
   * told from one that is free, so nothing new could be made there.
   */
  #listSoon(dir: number): void {
    if (this.#toList.has(dir) || this.#modes.mode !== "online" || this.#replica.isComplete(dir)) return;
    this.#toList.add(dir);
    if (this.#toList.size > 1) return;
    this.#cancelListing = this.#o.clock.after(LIST_AFTER_MS, () => void this.#listWorked(), true);
  }
  async #listWorked(): Promise<void> {
    for (const dir of this.#toList) {
      try {
        await this.#complete(dir);
      } catch {
        // Cut off: asked for again with the next connection. Removed, or too slow: the next change there asks again.
        if (this.#modes.mode !== "online") return;
      }
      this.#toList.delete(dir);
    }
  }
  #putLocal(stat: Stat): void {
    this.#replica.tree.put(stat);
  }

  // --- knowledge ---

  attach(notifier: KernelNotifier): void {
    this.#notifier = notifier;
  }
  /** The node's attributes; from the server when they are unknown. */
  #stat(ino: number): Awaitable<Stat> {
    return this.#statOr(ino) ?? this.#fetchStat(ino);
  }
  /** Null: it is not known here. Nobody is asked: an answer that nobody waits for would be an error of the whole mount. */
  #statOr(ino: number): Stat | null {
    return this.#unnamed.get(ino)?.stat ?? this.#replica.stat(ino);
  }
  #fetchStat(ino: number): Promise<Stat> {
    return this.#ask(() => this.#o.link.call("stat", { ino }), (stat, since) => {
      this.#changedSince(since, ino);
      if (stat === null) throw errorFromErrno(ino === ROOT_INO ? Errno.EIO : Errno.ESTALE, "the file no longer exists");
      this.#replica.learn(stat);
      return this.#replica.tree.stat(ino) ?? stat;
    });
  }
  #lookup(parent: number, name: string): Awaitable<Stat | null> {
    const known = this.#replica.tree.lookup(parent, name);
    if (known !== null) return known;
    if (this.#unnamed.has(parent)) return null;
    if (this.#replica.isComplete(parent) || this.#replica.isPendingEntry(parent, name)) return null;
    return this.#fetchEntry(parent, name);
  }
  #fetchEntry(parent: number, name: string): Promise<Stat | null> {
    return this.#ask(
      () => this.#o.link.call("lookup", { parent, name }),
      (stat, since): Awaitable<Stat | null> => {
        if (this.#replica.isPendingEntry(parent, name)) return this.#replica.tree.lookup(parent, name);
        if (since.entries.has(`${parent}/${name}`)) return this.#lookup(parent, name);
        if (stat === null) {
          this.#replica.unlearnEntry(parent, name);
          return null;
        }
        this.#learnEntry(parent, { name, stat });
        this.#changedSince(since, stat.ino);
        return this.#replica.tree.lookup(parent, name);
      },
    );
  }
  /** The folder's whole listing is here afterwards. */
  #complete(dir: number): Awaitable<void> {
    if (this.#replica.isComplete(dir)) return;
    let loading = this.#loading.get(dir);
    if (loading === undefined) {
      loading = this.#load(dir).finally(() => this.#loading.delete(dir));
      loading.catch(() => {});
      this.#loading.set(dir, loading);
    }
    return loading;
  }
  async #load(dir: number): Promise<void> {
    await this.#stat(dir);
    for (;;) {
      const run = this.#welcome?.run;
      let after: string | null = null;
      for (;;) {
        const page = await this.#page(dir, after);
        const last = page.at(-1);
        if (last === undefined || page.length < DIR_PAGE) break;
        if (dir === ROOT_INO) this.#rootListed.resolve();
        after = last.name;
      }
      // Cut off in between, the first pages may be older than what was missed: once more.
      if (run === this.#welcome?.run && this.#modes.mode === "online") break;
      if (this.#modes.mode !== "online") throw new FsError("unavailable", "the connection was lost while listing");
    }
    this.#replica.setComplete(dir, true);
    if (dir === ROOT_INO) this.#rootListed.resolve();
    this.#catchUp();
  }

  #page(dir: number, after: string | null): Promise<DirEntry[]> {
    return this.#ask(() => this.#o.link.call("readDir", { parent: dir, after, limit: DIR_PAGE }), (page, since) => {
      for (const entry of page) {
        if (since.nodes.has(entry.stat.ino)) this.#passedOver.addNode(entry.stat.ino);
        if (since.entries.has(`${dir}/${entry.name}`)) {
          this.#passedOver.addEntry(dir, entry.name);
        } else this.#learnEntry(dir, entry);
      }
      return page;
    });
  }

  // --- names ---

  lookup(parent: number, name: string, _caller: Caller): Awaitable<Stat | null> {
    if (name.length > 63 && nameByteLength(name) > 255) {
      throw errorFromErrno(Errno.ENAMETOOLONG, "the name is longer than 255 bytes");
    }
    const stat = this.#lookup(parent, name);
    return stat instanceof Promise ? stat.then((s) => s && this.#accessed.seen(s)) : stat && this.#accessed.seen(stat);
  }
  forget(ino: number): void {
    this.#lastContent.delete(ino);
    if (!this.#unnamed.has(ino) || this.#open.has(ino)) return;
    this.#dropUnnamed(ino);
    this.#dropOpenLayer(ino);
  }
  getattr(ino: number, _fh: number | undefined): Awaitable<Stat> {
    const stat = this.#stat(ino);
    return stat instanceof Promise ? stat : this.#shown(stat);
  }
  #shown(node: Stat): Stat {
    const stat = this.#accessed.seen(node);
    const stack = this.#stacks.size === 0 ? undefined : this.#stacks.get(stat.ino);
    return stack === undefined || stack.unresolved || !stack.sparse ? stat : { ...stat, holes: holeBytes(stack) };
  }
  async #parentFor(parent: number, name: string): Promise<Stat> {
    checkName(name);
    const dir = await this.#stat(parent);
    if (!isDir(dir)) throw new FsError("not_a_directory", "not a directory");
    if (await this.#lookup(parent, name) !== null) {
      throw new FsError("already_exists", "the name is taken", { path: name });
    }
    return dir;
  }
  async #make(
    parent: number,
    name: string,
    mode: number,
    rdev: number,
    caller: Caller,
    target?: string,
    exclusive = true,
  ): Promise<Stat> {
    this.#writable();
    const dir = await this.#parentFor(parent, name);
    if (exclusive) await this.#reserve(parent, name);
    const { gid, bits } = inherited(dir, mode, caller);
    const ino = this.#replica.allotIno();
    this.#commit([{
      t: "create",
      parent,
      name,
      ino,
      mode: bits,
      uid: caller.uid,
      gid,
      rdev,
      ...(target === undefined ? {} : { target }),
      time: this.#time(),
    }]);
    return this.#mustStat(ino);
  }
  /**
   * Who makes a name that must not exist yet (O_EXCL, mkdir, symlink, link) may take it for a lock: while others are
   * connected the server is asked whether this mount is the first. Throws already_exists.
   */
  async #reserve(parent: number, name: string): Promise<void> {
    if (this.#modes.mode !== "online" || this.#others === 0) return;
    const { link } = this.#o;
    let answer: { free: boolean; ino: number };
    try {
      answer = await link.call("reserveName", { parent, name, from: this.#delivery.nextRequest });
    } catch (error) {
      // Cut off: from here on it is as without a connection.
      if (toFsError(error).code === "unavailable") return;
      throw error;
    }
    const here = this.#replica.tree.entry(parent, name);
    // What the server still has and we have removed is on its way out, and the name stays ours.
    const going = answer.ino !== 0 && here === 0 && this.#replica.isPendingEntry(parent, name);
    if (answer.free && here === 0 && (answer.ino === 0 || going)) return;
    if (answer.free) void link.call("freeName", { parent, name }).catch(() => {});
    throw new FsError("already_exists", "the name is taken", { path: name });
  }
  #mustStat(ino: number): Stat {
    const stat = this.#replica.stat(ino);
    if (stat === null) throw new FsError("internal", `inode ${ino} is not where it was just put`);
    return stat;
  }
  symlink(parent: number, name: string, target: string, caller: Caller): Awaitable<Stat> {
    return this.#make(parent, name, S_IFLNK | 0o777, 0, caller, target);
  }
  mknod(parent: number, name: string, mode: number, rdev: number, caller: Caller): Awaitable<Stat> {
    return this.#make(parent, name, mode, rdev, caller);
  }
  mkdir(parent: number, name: string, mode: number, caller: Caller): Awaitable<Stat> {
    return this.#make(parent, name, S_IFDIR | (mode & 0o7777), 0, caller);
  }
  async readlink(ino: number): Promise<string> {
    const node = this.#o.readOnly ? null : this.#statOr(ino);
    if (node !== null) this.#read(node);
    const gone = this.#unnamed.get(ino)?.target ?? null;
    if (gone !== null) return gone;
    const kept = this.#replica.tree.stat(ino) === null ? "" : this.#replica.tree.readLink(ino);
    if (kept !== "") return kept;
    const target = await this.#o.link.call("readLink", { ino });
    const stat = this.#replica.tree.stat(ino);
    if (stat !== null) this.#replica.tree.put(stat, target);
    return target;
  }
  /** The extended attributes of a node that is about to lose its last name, as far as they are known here. */
  #xattrsOf(node: Stat): UnnamedXattrs {
    if (node.xattrs === 0) return new UnnamedXattrs();
    return new UnnamedXattrs(this.#replica.tree.xattrs(node.ino));
  }
  /** What the node will be once its last name is gone; asked for while the replica has it. */
  #asUnnamed(node: Stat): UnnamedNode {
    const target = (node.mode & S_IFMT) === S_IFLNK ? this.#replica.tree.readLink(node.ino) : "";
    return {
      stat: { ...this.#accessed.seen(node), nlink: 0 },
      xattrs: this.#xattrsOf(node),
      target: target === "" ? null : target,
      temporary: false,
      retained: null,
      givenUp: [],
    };
  }
  /** A node has lost its last name. A process may still hold it; once the kernel forgets it, it concerns nobody. */
  #lostLast(unnamed: UnnamedNode, time: Time): void {
    const { ino } = unnamed.stat;
    this.#accessed.forget(ino);
    if (!this.#open.has(ino) && this.#notifier?.holds?.(ino) === false) {
      this.#dropOpenLayer(ino);
      return;
    }
    unnamed.stat = { ...unnamed.stat, ctimeSec: time.sec, ctimeNsec: time.nsec };
    this.#unnamed.set(ino, unnamed);
  }
  /** It has a name again, or nobody can come back to it. */
  #dropUnnamed(ino: number): void {
    const unnamed = this.#unnamed.get(ino);
    if (unnamed === undefined) return;
    this.#unnamed.delete(ino);
    this.#retainContent(unnamed, null);
    const stack = this.#stacks.get(ino);
    for (const layer of unnamed.givenUp) {
      const place = stack?.layers.indexOf(layer) ?? -1;
      if (place >= 0) stack?.layers.splice(place, 1);
      layer.dispose();
      if (stack?.isEmpty === true) this.#forgetStack(ino);
    }
  }
  /** What is not known of them is asked for before it is gone for everybody. */
  async #xattrsToKeep(ino: number): Promise<void> {
    if (!this.#xattrsKnown(ino)) await this.#loadXattrs(ino).catch(() => {});
  }
  async unlink(parent: number, name: string, _caller: Caller): Promise<void> {
    this.#writable();
    const node = await this.#lookup(parent, name);
    if (node === null) throw new FsError("not_found", "no such file", { path: name });
    await this.#stat(parent);
    await this.#xattrsToKeep(node.ino);
    await this.#sure(node.ino);
    const now = this.#replica.stat(node.ino) ?? node;
    const seen = this.#seen(now);
    const expected = now.nlink > 1 ? { others: true } : seen === undefined ? {} : { baseContent: seen };
    const time = this.#time();
    const removed = this.#asUnnamed(now);
    this.#commit([{ t: "unlink", parent, name, ino: node.ino, ...expected, time }]);
    this.#lostName(now, removed, time);
  }
  /** Right after a start or a new connection a file's content may have to be asked for again. */
  async #sure(ino: number): Promise<void> {
    if (!this.#passedOver.nodes.has(ino) || this.#modes.mode !== "online" || this.#stacks.has(ino)) return;
    await this.#ask(() => this.#o.link.call("stat", { ino }).catch(() => null), (stat, since) => {
      if (stat !== null && !since.nodes.has(ino) && !this.#stacks.has(ino)) this.#nodeNow(ino, stat);
    });
  }
  /** The content of a file as it was seen here, null for none, as the server has it: undefined when that is not known. */
  #seen(node: Stat): string | null | undefined {
    const stack = this.#stacks.get(node.ino);
    if (stack === undefined) return node.content;
    return stack.unresolved ? undefined : stack.base;
  }
  /** A name of the node is gone; `removed` is what it is without any. */
  #lostName(node: Stat, removed: UnnamedNode, time: Time): void {
    if (node.nlink > 1 && !isDir(node)) {
      this.#notifier?.invalidateInode(node.ino, false);
      return;
    }
    if (this.#stacks.has(node.ino)) this.#gone.add(node.ino);
    this.#lostLast(removed, time);
  }
  #dropOpenLayer(ino: number): void {
    const stack = this.#stacks.get(ino);
    const top = stack?.open;
    if (stack === undefined || top === null || top === undefined) return;
    stack.layers.pop();
    top.dispose();
    if (stack.isEmpty) this.#forgetStack(ino);
  }
  async rmdir(parent: number, name: string, _caller: Caller): Promise<void> {
    this.#writable();
    const node = await this.#lookup(parent, name);
    if (node === null) throw new FsError("not_found", "no such directory", { path: name });
    if (!isDir(node)) throw new FsError("not_a_directory", "not a directory", { path: name });
    await this.#stat(parent);
    await this.#complete(node.ino);
    await this.#xattrsToKeep(node.ino);
    const time = this.#time();
    const now = this.#replica.stat(node.ino) ?? node;
    const removed = this.#asUnnamed(now);
    this.#commit([{ t: "rmdir", parent, name, ino: node.ino, time }]);
    this.#lostName(now, removed, time);
  }
  async rename(
    parent: number,
    name: string,
    newParent: number,
    newName: string,
    flags: number,
    caller: Caller,
  ): Promise<void> {
    this.#writable();
    checkName(newName);
    const node = await this.#lookup(parent, name);
    if (node === null) throw new FsError("not_found", "no such file", { path: name });
    await this.#stat(parent);
    await this.#stat(newParent);
    const there = await this.#lookup(newParent, newName);
    if (there !== null && (flags & RENAME_NOREPLACE) !== 0) {
      throw new FsError("already_exists", "the name is taken", { path: newName });
    }
    // Two names of one node: nothing happens (rename(2)). Other devices may see them otherwise than we do.
    if (there?.ino === node.ino && (flags & RENAME_EXCHANGE) === 0) return;
    if (there !== null && isDir(there)) await this.#complete(there.ino);
    if (there !== null) {
      await this.#xattrsToKeep(there.ino);
      await this.#sure(there.ino);
    }
    const time = this.#time();
    const replaces = (flags & RENAME_EXCHANGE) === 0;
    const now = there === null ? null : this.#replica.stat(there.ino) ?? there;
    const seen = now === null ? undefined : this.#seen(now);
    const others = now !== null && now.nlink > 1 && !isDir(now);
    const over = {
      overIno: there?.ino ?? 0,
      ...(others ? { overOthers: true } : seen === undefined ? {} : { overContent: seen }),
    };
    const plain = flags & ~RENAME_WHITEOUT;
    const ops: Op[] = [
      { t: "rename", parent, name, newParent, newName, flags: plain, ino: node.ino, ...(replaces ? over : {}), time },
    ];
    if ((flags & RENAME_WHITEOUT) !== 0) {
      const { uid, gid } = caller;
      ops.push({ t: "create", parent, name, ino: this.#replica.allotIno(), mode: S_IFCHR, uid, gid, rdev: 0, time });
    }
    const removed = replaces && now !== null ? this.#asUnnamed(now) : null;
    this.#commit(ops);
    if (now !== null && removed !== null) this.#lostName(now, removed, time);
  }
  async link(ino: number, newParent: number, newName: string, _caller: Caller): Promise<Stat> {
    this.#writable();
    await this.#parentFor(newParent, newName);
    await this.#reserve(newParent, newName);
    await this.#stat(ino);
    const unnamed = this.#unnamed.get(ino);
    if (unnamed !== undefined) return await this.#nameFirst(ino, unnamed, newParent, newName);
    this.#commit([{ t: "link", ino, parent: newParent, name: newName, time: this.#time() }]);
    return this.#shown(this.#mustStat(ino));
  }
  /** The first name of a file made without one: name, attributes and bytes appear together, also after a crash. */
  async #nameFirst(ino: number, unnamed: UnnamedNode, parent: number, name: string): Promise<Stat> {
    const layer = this.#stacks.get(ino)?.open ?? null;
    if (layer !== null && layer.staging !== null) await layer.sync();
    await this.#parentFor(parent, name);
    const { stat } = unnamed;
    if (this.#unnamed.get(ino) !== unnamed || !unnamed.temporary) {
      throw new FsError("not_found", "the file has no name any more");
    }
    const now = this.#time();
    const { uid, gid, mode } = stat;
    const atime = { sec: stat.atimeSec, nsec: stat.atimeNsec };
    const mtime = { sec: stat.mtimeSec, nsec: stat.mtimeNsec };
    const ops: Op[] = [
      { t: "create", parent, name, ino, mode, uid, gid, rdev: 0, time: now },
      { t: "attr", ino, atime, mtime, time: now },
      ...unnamed.xattrs.asOps(ino, now),
    ];
    const size = this.#stacks.get(ino)?.size ?? 0;
    this.#unnamed.delete(ino);
    try {
      if (this.#stacks.get(ino)?.open) {
        this.#journalTop(ino, ops, { ...stat, nlink: 1, ctimeSec: now.sec, ctimeNsec: now.nsec, size });
      } else this.#commit(ops);
    } catch (error) {
      this.#unnamed.set(ino, unnamed);
      throw error;
    }
    this.#retainContent(unnamed, null);
    const open = this.#open.get(ino);
    if (open !== undefined) open.plain = false;
    return this.#shown(this.#mustStat(ino));
  }
  opendir(ino: number, flags: number): { keepCache: boolean; counts: boolean } {
    if (this.#o.readOnly || (flags & O_NOATIME) !== 0) return { keepCache: true, counts: false };
    const dir = this.#statOr(ino);
    // Of a listing the kernel has by itself nothing is heard here, and this one is to be.
    return { keepCache: dir === null || !this.#accessed.isDue(dir), counts: true };
  }
  parentOf(ino: number): number | null {
    return ino === ROOT_INO ? ROOT_INO : this.#replica.tree.anyName(ino)?.parent ?? null;
  }
  readdir(ino: number, after: string | null, limit: number, counts = true): Awaitable<ListedEntry[]> {
    return this.#listing(ino, after === null && counts, () => {
      const entries = this.#replica.tree.list(ino, after, limit);
      if (!this.#accessed.empty) { for (const entry of entries) entry.stat = this.#accessed.seen(entry.stat); }
      return entries;
    });
  }
  readnames(ino: number, after: string | null, limit: number, counts = true): Awaitable<ListedName[]> {
    return this.#listing(ino, after === null && counts, () => this.#replica.tree.listNames(ino, after, limit));
  }
  /** What `page` reads once the whole folder is here. `counts`: it is access of the folder. */
  #listing<T>(ino: number, counts: boolean, page: () => T[]): Awaitable<T[]> {
    if (this.#unnamed.has(ino)) return [];
    const list = () => {
      const dir = counts && !this.#o.readOnly ? this.#replica.stat(ino) : null;
      if (dir !== null) this.#read(dir);
      return page();
    };
    const complete = this.#complete(ino);
    return complete instanceof Promise ? complete.then(list) : list();
  }
  fsyncdir(_ino: number): Promise<void> {
    return this.#journal.sync();
  }
  async syncfs(): Promise<void> {
    for (const ino of [...this.#stacks.keys()]) await this.#flushNode(ino, false);
    await this.#journal.sync();
  }

  // --- attributes ---

  async setattr(ino: number, change: AttrChange, fh: number | undefined, caller: Caller): Promise<Stat> {
    return this.#shown(await this.#setattr(ino, change, fh, caller));
  }
  async #setattr(ino: number, change: AttrChange, fh: number | undefined, caller: Caller): Promise<Stat> {
    this.#writable();
    const node = await this.#stat(ino);
    if (change.size !== undefined) await this.#truncate(node, change.size, fh === undefined);
    const now = this.#time();
    const time = (t: AttrChange["atime"]): Time | undefined => t === "now" ? now : t;
    let mode = change.mode;
    // An empty request is chown(-1, -1), of anybody: the kernel asks no permission, so only the owner's counts. Others have
    // it sent by fallocate and copy_file_range, which clear setuid themselves.
    const empty = Object.keys(change).length === 0 && (caller.uid === 0 || caller.uid === node.uid);
    const given = empty || change.uid !== undefined || change.gid !== undefined;
    if (mode === undefined && (change.killSuidgid === true || (given && !isDir(node)))) {
      const cleared = withoutSetid(node.mode);
      if (cleared !== (node.mode & 0o7777)) mode = cleared;
    }
    const op: { -readonly [K in keyof (Op & { t: "attr" })]: (Op & { t: "attr" })[K] } = {
      t: "attr",
      ino,
      time: change.ctime ?? now,
    };
    if (mode !== undefined) op.mode = mode & 0o7777;
    if (change.uid !== undefined) op.uid = change.uid;
    if (change.gid !== undefined) op.gid = change.gid;
    const atime = time(change.atime);
    const mtime = time(change.mtime);
    if (atime !== undefined) {
      op.atime = atime;
      this.#accessed.forget(ino);
    }
    if (mtime !== undefined) op.mtime = mtime;
    const changes = op.mode !== undefined || op.uid !== undefined || op.gid !== undefined || atime !== undefined ||
      mtime !== undefined || empty;
    const unnamed = this.#unnamed.get(ino);
    if (unnamed !== undefined) {
      if (changes) unnamed.stat = changedBy(unnamed.stat, op);
      return unnamed.stat;
    }
    const stack = this.#stacks.get(ino);
    if (changes && stack !== undefined && stack.open !== null) {
      // With unflushed bytes: one record brings both, the attributes after the content.
      const attr: JournaledAttr = { ...stack.attr };
      if (op.mode !== undefined) attr.mode = op.mode;
      if (op.uid !== undefined) attr.uid = op.uid;
      if (op.gid !== undefined) attr.gid = op.gid;
      if (atime !== undefined) attr.atime = atime;
      if (mtime !== undefined) attr.mtime = mtime;
      const next = { ...withAttr(this.#mustStat(ino), attr), ctimeSec: op.time.sec, ctimeNsec: op.time.nsec };
      stack.attr = attr;
      this.#replica.putFresh(next);
      return next;
    }
    if (changes) {
      // Times set on a file with unflushed bytes must come after its content: that sets the time of the write.
      if (mtime !== undefined) await this.#freeze(ino);
      this.#commit([op]);
    }
    return this.#mustStat(ino);
  }
  async #truncate(node: Stat, size: number, flush: boolean): Promise<void> {
    if (isDir(node)) throw new FsError("is_a_directory", "a directory has no length");
    if (!isFile(node)) throw new FsError("invalid_input", "not a regular file");
    if (size > MAX_FILE_SIZE) throw errorFromErrno(Errno.EFBIG, "the file would be too large", { requested: size });
    const stack = this.#stackFor(node);
    stack.top().truncate(size);
    this.#wrote(node.ino, stack, false);
    // truncate(2) without a descriptor has no close that would make it durable.
    if (flush && !this.#open.has(node.ino)) await this.#flushNode(node.ino, true);
  }

  // --- files ---

  #stackFor(node: Stat): LayerStack {
    let stack = this.#stacks.get(node.ino);
    if (stack === undefined) {
      stack = new LayerStack(node.content, node.content === null ? 0 : node.size, node.holes ?? 0);
      this.#stacks.set(node.ino, stack);
      this.#replica.keepBefore(node);
    }
    return stack;
  }
  /** The file's size and times after a write or truncation. */
  #wrote(ino: number, stack: LayerStack, killSuidgid: boolean): void {
    const time = mtimeOf(this.#time());
    const node = this.#statOr(ino);
    if (node === null) return;
    const mode = killSuidgid ? (node.mode & S_IFMT) | withoutSetid(node.mode) : node.mode;
    const unnamed = this.#unnamed.get(ino);
    if (unnamed !== undefined) {
      unnamed.stat = { ...node, size: stack.size, mode, ...time };
      return;
    }
    // The time of this write counts, not one that was set before it.
    if (stack.attr !== null) delete stack.attr.mtime;
    this.#replica.putFresh({ ...node, size: stack.size, mode, ...time });
    if (mode !== node.mode) this.#commit([{ t: "attr", ino, mode: mode & 0o7777, time: this.#time() }]);
  }
  #retain(holder: { retained: RetainedContent | null }, stat: Stat): void {
    const { ino, content, size } = stat;
    this.#retainContent(holder, content === null || this.#stacks.has(ino) ? null : { hash: content, size });
  }
  #retainContent(holder: { retained: RetainedContent | null }, wanted: RetainedContent | null): void {
    const before = holder.retained;
    if (before?.hash === wanted?.hash) return;
    if (wanted !== null) this.#cache.retain(wanted.hash, wanted.size);
    if (before !== null) this.#cache.release(before.hash, before.size);
    holder.retained = wanted;
  }
  #openHandle(node: Stat, flags: number): OpenResult {
    let open = this.#open.get(node.ino);
    if (open === undefined) {
      open = { ino: node.ino, opens: 0, running: 0, plain: false, retained: null };
      this.#open.set(node.ino, open);
    }
    open.opens++;
    open.plain = node.xattrs === 0;
    this.#retain(open, node);
    if (open.retained !== null && this.#modes.mode === "online" && this.#o.prefetch !== false) {
      const { hash, size } = open.retained;
      if (this.#sequence.expects(node.ino) || !this.#cache.isComplete(hash, size)) this.#sequence.opened(node.ino);
    }
    const fh = this.#nextFh++;
    const counts = !this.#o.readOnly && (flags & O_NOATIME) === 0;
    const runs = (flags & FMODE_EXEC) !== 0;
    if (runs) open.running++;
    this.#handles.set(fh, { ino: node.ino, created: null, counts, runs });
    // The kernel's pages are of this content, or were written through us: they may stay.
    const seen = this.#lastContent.get(node.ino);
    const keepCache = seen !== undefined && (this.#stacks.has(node.ino) || seen === node.content);
    this.#lastContent.set(node.ino, node.content);
    return { fh, keepCache };
  }
  open(
    ino: number,
    flags: number,
    caller: Caller,
    killSuidgid = false,
    signal?: AbortSignal,
  ): Awaitable<OpenResult> {
    const writes = (flags & (O_ACCMODE | O_TRUNC)) !== 0;
    if (writes && this.#o.readOnly) throw new FsError("read_only", "the mount is read-only");
    const node = this.#statOr(ino);
    if (node === null || this.#busy.has(ino) || (flags & O_TRUNC) !== 0 || this.#mayBeBehind(ino)) {
      return this.#openSlowly(ino, flags, caller, killSuidgid, signal);
    }
    return this.#reader(ino, flags, this.#openHandle(node, flags));
  }
  /** What another client closed a moment ago may not have been told yet: an open asks, as close-to-open demands. */
  #mayBeBehind(ino: number): boolean {
    if (this.#modes.mode !== "online" || this.#others === 0) return false;
    // What only waits for the server's disk is no newer than what others wrote since.
    const stack = this.#stacks.get(ino);
    return stack === undefined || this.#isThere(stack);
  }
  async #openSlowly(
    ino: number,
    flags: number,
    caller: Caller,
    killSuidgid: boolean,
    signal: AbortSignal | undefined,
  ): Promise<OpenResult> {
    // News travels in order: with the answer everything is here that was visible when we asked.
    if (this.#mayBeBehind(ino)) await this.#catchUpWithServer();
    if (this.#busy.has(ino) && this.#modes.mode === "online") {
      const timeoutMs = (this.#o.requestTimeoutMs ?? REQUEST_MS) * BUSY_WAIT_PART;
      await this.#o.link.call("waitDelivered", { ino, timeoutMs }, { timeoutMs: timeoutMs + 500 }).catch(() => false);
    }
    const node = await this.#stat(ino);
    // With O_RDONLY the kernel looks whether the program runs after it has had the file truncated.
    if ((flags & O_TRUNC) !== 0 && (this.#open.get(ino)?.running ?? 0) > 0) {
      throw errorFromErrno(Errno.ETXTBSY, "the program runs");
    }
    const result = this.#openHandle(node, flags);
    if ((flags & O_TRUNC) === 0 || !isFile(node)) return this.#reader(ino, flags, result);
    try {
      // Who was told that it failed must not find the file empty: from here on nothing waits for others.
      const now = await this.#stat(ino);
      signal?.throwIfAborted();
      if (killSuidgid) await this.#setattr(ino, { killSuidgid }, result.fh, caller);
      await this.#empty(now, result.fh, caller);
    } catch (error) {
      this.release(ino, result.fh, 0n, false);
      throw error;
    }
    return { ...result, keepCache: false };
  }
  /** A server that is silent holds up one open for long, not each of them. */
  async #catchUpWithServer(): Promise<void> {
    const timeoutMs = this.#silent ? SILENT_PING_MS : (this.#o.requestTimeoutMs ?? REQUEST_MS) * PING_PART;
    try {
      await this.#o.link.call("ping", null, { timeoutMs });
      this.#silent = false;
    } catch (error) {
      this.#silent = toFsError(error).code === "timeout";
    }
  }
  /** What O_TRUNC does. */
  async #empty(node: Stat, fh: number, caller: Caller): Promise<void> {
    const stack = this.#stackFor(node);
    if (stack.size > 0) {
      stack.top().truncate(0);
      this.#wrote(node.ino, stack, false);
    } else {
      if (stack.isEmpty) this.#forgetStack(node.ino);
      await this.setattr(node.ino, { mtime: "now" }, fh, caller);
    }
  }
  #reader(ino: number, flags: number, result: OpenResult): OpenResult {
    if ((flags & O_ACCMODE) === O_WRONLY) return result;
    // Of what is read from the kernel's pages nothing is heard here, and this read is to be.
    if (result.keepCache && this.#handles.get(result.fh)?.counts === true) {
      const node = this.#statOr(ino);
      if (node !== null && this.#accessed.isDue(node)) Object.assign(result, { keepCache: false, onlyToHear: true });
    }
    if ((flags & O_ACCMODE) !== O_RDONLY) return result;
    if (this.#locks.indifferent(ino)) result.noFlush = true;
    const retained = this.#o.passthrough === true ? this.#open.get(ino)?.retained ?? null : null;
    const fd = retained === null ? null : this.#cache.plainFile(retained.hash, retained.size);
    if (retained !== null && fd !== null) result.backing = { fd, key: retained.hash };
    return result;
  }
  async create(
    parent: number,
    name: string,
    mode: number,
    flags: number,
    caller: Caller,
  ): Promise<{ stat: Stat; open: OpenResult }> {
    const exclusive = (flags & O_EXCL) !== 0;
    const stat = await this.#make(parent, name, S_IFREG | (mode & 0o7777), 0, caller, undefined, exclusive);
    const open = this.#openHandle(stat, flags);
    const handle = this.#handles.get(open.fh);
    // Close of a file that stays empty has to make its creation durable.
    if (handle !== undefined) handle.created = this.#delivery.list().at(-1) ?? null;
    return { stat, open };
  }

  async tmpfile(
    parent: number,
    mode: number,
    flags: number,
    caller: Caller,
  ): Promise<{ stat: Stat; open: OpenResult }> {
    this.#writable();
    const dir = await this.#stat(parent);
    if (!isDir(dir)) throw new FsError("not_a_directory", "not a directory");
    if (this.#unnamed.has(parent)) throw errorFromErrno(Errno.EPERM, "the directory was removed");
    const { gid, bits } = inherited(dir, S_IFREG | (mode & 0o7777), caller);
    const stat = { ...blankStat(this.#replica.allotIno(), bits, this.#time()), uid: caller.uid, gid, nlink: 0 };
    const xattrs = new UnnamedXattrs();
    this.#unnamed.set(stat.ino, { stat, xattrs, target: null, temporary: true, retained: null, givenUp: [] });
    return { stat, open: this.#openHandle(stat, flags) };
  }

  /** The node is read now. The kernel asks for the times again by itself. */
  #read(node: Stat): void {
    const unnamed = this.#unnamed.get(node.ino);
    if (unnamed === undefined) this.#accessed.read(node);
    else if (this.#accessed.isDue(node)) {
      const { sec, nsec } = this.#time();
      unnamed.stat = { ...unnamed.stat, atimeSec: sec, atimeNsec: nsec };
    }
  }
  read(ino: number, fh: number, offset: number, into: Uint8Array): number | Promise<Uint8Array> {
    const counts = this.#handles.get(fh)?.counts === true;
    const stack = this.#stacks.get(ino);
    const buffer = into as Uint8Array<ArrayBuffer>;
    const node = counts || stack === undefined ? this.#statOr(ino) : null;
    if (counts && node !== null) this.#read(node);
    if (stack !== undefined) return this.#readLayers(stack, offset, buffer);
    if (node === null) return this.#fetchStat(ino).then((stat) => this.#readContent(stat, offset, into.length));
    const length = Math.max(0, Math.min(into.length, node.size - offset));
    if (length === 0) return 0;
    if (node.content === null) {
      into.fill(0, 0, length);
      return length;
    }
    if (
      this.#cache.readNow(node.content, node.size, offset, length === into.length ? buffer : buffer.subarray(0, length))
    ) return length;
    return this.#readContent(node, offset, into.length);
  }
  async #readContent(node: Stat, offset: number, wanted: number): Promise<Uint8Array> {
    const length = Math.max(0, Math.min(wanted, node.size - offset));
    if (length === 0 || node.content === null) return new Uint8Array(length);
    return await this.#cache.read(node.content, node.size, offset, length);
  }
  #readLayers(stack: LayerStack, offset: number, into: Uint8Array<ArrayBuffer>): number | Promise<Uint8Array> {
    if (stack.unresolved) {
      throw new FsError("unavailable", "the server has to be asked for the rest of this file first");
    }
    const length = Math.max(0, Math.min(into.length, stack.size - offset));
    if (length === 0) return 0;
    const sources = stack.sources(offset, offset + length);
    for (const source of sources) {
      const part = into.subarray(source.start - offset, source.end - offset);
      if (source.kind === "layer") source.layer.read(source.start, part);
      else if (source.kind === "zero" || stack.base === null) part.fill(0);
      else if (!this.#cache.readNow(stack.base, stack.baseSize, source.start, part)) {
        return this.#readLayersSlowly(stack, offset, length);
      }
    }
    return length;
  }
  async #readLayersSlowly(stack: LayerStack, offset: number, length: number): Promise<Uint8Array> {
    const into = new Uint8Array(length);
    // Fetch first, then read all in one go: writes in between would mix old bytes and new.
    for (const source of stack.sources(offset, offset + length)) {
      if (source.kind !== "base" || stack.base === null) continue;
      await this.#cache.read(stack.base, stack.baseSize, source.start, source.end - source.start);
    }
    for (const source of stack.sources(offset, offset + length)) {
      const part = into.subarray(source.start - offset, source.end - offset);
      if (source.kind === "layer") source.layer.read(source.start, part);
      else if (source.kind === "base" && stack.base !== null) {
        if (!this.#cache.readNow(stack.base, stack.baseSize, source.start, part)) {
          part.set(await this.#cache.read(stack.base, stack.baseSize, source.start, part.length));
        }
      }
    }
    return into;
  }

  write(ino: number, fh: number, offset: number, data: Uint8Array, flags: WriteFlags): Awaitable<number> {
    this.#needLock(fh);
    const node = this.#stat(ino);
    if (node instanceof Promise) {
      const copy = data.slice();
      return node.then((stat) => this.#write(stat, offset, copy, flags));
    }
    return this.#write(node, offset, data, flags);
  }
  #write(node: Stat, offset: number, data: Uint8Array, flags: WriteFlags): number {
    const stack = this.#stackFor(node);
    const at = flags.append === true ? Math.max(offset, stack.size) : offset;
    if (at + data.length > MAX_FILE_SIZE) throw errorFromErrno(Errno.EFBIG, "the file would be too large");
    this.#room.need(data.length);
    this.#needSpace(stack, data.length);
    try {
      stack.top().write(at, data, () => this.#stagingPath());
    } finally {
      if (stack.top().isUntouched && stack.layers.length === 1 && stack.size === stack.baseSize) {
        this.#dropOpenLayer(node.ino);
      }
    }
    this.#wrote(node.ino, stack, flags.killSuidgid);
    return data.length;
  }
  /**
   * Refuses what the server has no room for: a write that could only wait in the journal for ever is better refused
   * while the program can still be told. What the server said last counts; offline nothing is refused.
   */
  #needSpace(stack: LayerStack, length: number): void {
    if (this.#modes.mode !== "online" || this.#statFs === null) return;
    const { at, value } = this.#statFs;
    const coming = this.#delivery.pending.bytes + (stack.open?.extents.total ?? 0) + length;
    // Asked again the sooner the less is left.
    if (this.#o.clock.monotonic() - at > (coming * 4 > value.free ? 500 : 10_000)) {
      void this.#askSpace().catch(() => {});
    }
    if (coming > value.free) {
      throw new FsError("no_space", `the server has ${value.free} bytes left`, {
        usage: value.total,
        requested: coming,
      });
    }
  }
  async #askSpace(): Promise<StatFs> {
    // Before the answer, so that a burst of writes asks once.
    if (this.#statFs !== null) this.#statFs = { ...this.#statFs, at: this.#o.clock.monotonic() };
    const value = await this.#o.link.call("statFs", null, { timeoutMs: 3000 });
    this.#statFs = { at: this.#o.clock.monotonic(), value };
    return value;
  }
  #stagingPath(): string {
    makeFolderNow(`${this.#o.folder}/staging`);
    return `${this.#o.folder}/staging/${this.#stagingNumber++}`;
  }

  /**
   * Freezes the file's unflushed bytes into a journal record. Null: there are none, or nobody can want them. With `ops`
   * the record begins with those, which make the file, and `made` is what it is then.
   */
  #journalTop(ino: number, ops: readonly Op[] = [], made: Stat | null = null): Outgoing | null {
    const stack = this.#stacks.get(ino);
    const layer = stack?.open ?? null;
    if (stack === undefined || layer === null) return null;
    const node = made ?? this.#replica.stat(ino);
    if (node === null) return null;
    const earlier = stack.layers.length > 1;
    const mtime = { sec: node.mtimeSec, nsec: node.mtimeNsec };
    const data: JournaledData = {
      ino,
      size: layer.size,
      floor: layer.floor,
      ranges: layer.extents.toArray(),
      ...(layer.holes.isEmpty ? {} : { holes: layer.holes.toArray() }),
      staging: layer.staging,
      ...(earlier ? {} : { base: stack.base }),
      baseSize: stack.baseSize,
      ...(stack.attr === null && made === null ? {} : { attr: { mtime, ...stack.attr } }),
      time: stack.attr === null && made === null ? mtime : { sec: node.ctimeSec, nsec: node.ctimeNsec },
    };
    let touched = touchedBy(ops, ino);
    this.#replica.secure();
    const request = this.#delivery.takeRequest();
    let place: JournalPlace | null = null;
    const append = () => place = this.#journal.append({ request, ops, data }, layer.pieces() ?? []);
    if (made === null) append();
    else {
      touched = this.#replica.apply(ops, append);
      this.#replica.moveBefore(this.#mustStat(ino));
      this.#replica.putFresh({ ...this.#mustStat(ino), size: made.size, ...timesOf(made) });
    }
    if (place === null) throw new FsError("internal", "the journal took nothing");
    layer.freeze(request, place, this.#journal);
    stack.attr = null;
    this.#replica.guard(touched);
    return this.#delivery.add({ request, ops, data, place, stack, layer, touched });
  }
  /** Journals the file's unflushed bytes. Null: there were none, or somebody else has just done it. */
  async #freeze(ino: number): Promise<Outgoing | null> {
    const layer = this.#stacks.get(ino)?.open ?? null;
    if (layer === null) return null;
    if (layer.staging !== null) {
      // Bytes first, then the record that speaks of them.
      await layer.sync();
      if (this.#stacks.get(ino)?.open !== layer) return null;
    }
    return this.#journalTop(ino);
  }
  async #flushNode(ino: number, wait: boolean): Promise<void> {
    const stack = this.#stacks.get(ino);
    const layer = stack?.open ?? null;
    if (stack === undefined || layer === null) {
      // Somebody else journaled it a moment ago: it has to be on the disk all the same.
      await this.#journal.sync();
      if (stack !== undefined && wait) await this.#awaitSeen(ino, stack);
      return;
    }
    if (this.#unnamed.has(ino) || this.#replica.stat(ino) === null) return;
    const out = await this.#freeze(ino);
    if (out === null) return await this.#flushNode(ino, wait);
    const synced = this.#journal.sync();
    if (!wait) return await synced;
    const seen = this.#awaitVisible(out);
    await synced;
    await seen;
  }
  /** Close of a file whose bytes an fsync has already journaled. */
  async #awaitSeen(ino: number, stack: LayerStack): Promise<void> {
    const last = stack.layers.at(-1);
    const out = this.#delivery.list().findLast((o) => o.layer === last && o.data?.ino === ino);
    if (out !== undefined && out.state !== "visible") await this.#awaitVisible(out);
  }
  async #awaitVisible(out: Outgoing): Promise<void> {
    if (this.#o.policy === "through") {
      await this.#withTime(out.durable.opened, 60_000, true);
      return;
    }
    // Nobody else is connected: nobody can miss it, and it is on its way.
    if (this.#modes.mode !== "online" || this.#others === 0) return;
    const few = this.#delivery.pending.bytes <= VISIBLE_WAIT_BYTES;
    if (few) await this.#withTime(out.visible.opened, VISIBLE_WAIT_MS, false);
    // Others who open it are told to wait for it.
    if (this.#modes.mode !== "online" || (out.state !== "queued" && out.state !== "sent")) return;
    if (out.data === null) return;
    const told = this.#announced.add(out.data.ino, out);
    if (!few) await told;
  }
  async #withTime(promise: Promise<void>, ms: number, strict: boolean): Promise<void> {
    let cancel = () => {};
    const late = new Promise<"late">((resolve) => cancel = this.#o.clock.after(ms, () => resolve("late"), true));
    try {
      const result = await Promise.race([promise.then(() => "done" as const), late]);
      if (result === "late" && strict) {
        throw new FsError("timeout", "the server did not confirm the write in time; it is kept and will be delivered");
      }
    } finally {
      cancel();
    }
  }
  flush(ino: number, fh: number, owner: bigint): Awaitable<void> {
    const flushed = this.#flushFile(ino, fh);
    if (!(flushed instanceof Promise)) return this.#locks.closed(ino, owner);
    return flushed.finally(() => this.#locks.closed(ino, owner));
  }
  #flushFile(ino: number, fh: number): Awaitable<void> {
    if (this.#stacks.has(ino)) return this.#flushNode(ino, true);
    const handle = this.#handles.get(fh);
    const created = handle?.created ?? null;
    if (handle === undefined || created === null) return;
    handle.created = null;
    // Like mkdir: in the journal at once, on the disk within a second; fsync waits for that. There are no bytes to lose.
    if (created.state === "visible" && this.#o.policy === "back") return;
    return this.#awaitVisible(created);
  }
  /** Whoever has lost a lock must not go on as if he had it. */
  #needLock(fh: number): void {
    if (this.#locks.isLost(fh)) throw errorFromErrno(Errno.EIO, "a lock taken through this descriptor was lost");
  }
  async fsync(ino: number, fh: number, _dataOnly: boolean): Promise<void> {
    this.#needLock(fh);
    await this.#flushNode(ino, this.#o.policy === "through");
    await this.#journal.sync();
  }
  release(ino: number, fh: number, _owner: bigint, _flock: boolean): void {
    const handle = this.#handles.get(fh);
    this.#handles.delete(fh);
    this.#locks.released(fh);
    const open = this.#open.get(ino);
    if (open === undefined) return;
    open.opens--;
    if (handle?.runs === true) open.running--;
    if (open.opens > 0) return;
    this.#open.delete(ino);
    const unnamed = this.#unnamed.get(ino);
    if (unnamed !== undefined) {
      // Who holds it without having it open (O_PATH) may open it again. What lies below bytes that were written is
      // retained already, and is not what was opened.
      if (unnamed.retained !== null && this.#stacks.has(ino)) this.#retainContent(open, null);
      else if (open.retained !== null) {
        this.#retainContent(unnamed, null);
        unnamed.retained = open.retained;
      }
      return;
    }
    if (open.retained !== null) this.#cache.release(open.retained.hash, open.retained.size);
    // A descriptor that was never closed by its program (a killed one) has no flush: its bytes go out all the same.
    if (this.#stacks.get(ino)?.open) {
      this.#flushNode(ino, false).catch((error) => this.#o.log(toFsError(error).message));
    }
  }

  async fallocate(
    ino: number,
    fh: number,
    mode: number,
    offset: number,
    length: number,
    caller: Caller,
  ): Promise<void> {
    this.#writable();
    const node = await this.#stat(ino);
    const stack = this.#stackFor(node);
    const end = offset + length;
    const keepSize = (mode & FALLOC_FL_KEEP_SIZE) !== 0;
    if (end > MAX_FILE_SIZE) throw errorFromErrno(Errno.EFBIG, "the file would be too large", { requested: end });
    switch (mode & ~FALLOC_FL_KEEP_SIZE) {
      case 0:
        if (end > stack.size) this.#needSpace(stack, end - stack.size);
        break;
      case FALLOC_FL_PUNCH_HOLE:
        if (!keepSize) throw new FsError("not_supported", "a hole is punched with FALLOC_FL_KEEP_SIZE only");
        stack.top().punch(offset, end);
        break;
      case FALLOC_FL_ZERO_RANGE:
        stack.top().punch(offset, end);
        break;
      default:
        throw new FsError("not_supported", "this kind of fallocate is not supported");
    }
    const grows = !keepSize && end > stack.size;
    if (grows) stack.top().truncate(end);
    if (grows || (mode & ~FALLOC_FL_KEEP_SIZE) !== 0) return this.#wrote(ino, stack, caller.uid !== 0);
    // Only its times change: bytes that are on their way to the server would not bring them.
    if (stack.isEmpty) this.#forgetStack(ino);
    await this.setattr(ino, { mtime: "now", killSuidgid: caller.uid !== 0 }, fh, caller);
  }
  /** SEEK_DATA and SEEK_HOLE, in blocks of 4 KiB. */
  async lseek(ino: number, _fh: number, offset: number, whence: number): Promise<number> {
    const node = await this.#stat(ino);
    const stack = this.#stacks.get(ino);
    const size = stack?.size ?? node.size;
    const data = stack === undefined || stack.unresolved
      ? await this.#holes.dataIn(node.content, node.size, node.holes ?? 0)
      : await this.#holes.dataOf(stack);
    const at = seek(data, size, offset, whence);
    if (at === null) throw errorFromErrno(Errno.ENXIO, "there is nothing from here on");
    return at;
  }
  /**
   * A whole file onto one that is no longer: it gets the same content, and no byte moves. Anything else is EXDEV, upon
   * which the kernel copies by itself.
   */
  async copyFileRange(
    from: number,
    _fhIn: number,
    offsetIn: number,
    to: number,
    _fhOut: number,
    offsetOut: number,
    length: number,
    caller: Caller,
  ): Promise<number> {
    this.#writable();
    const otherwise = errorFromErrno(Errno.EXDEV, "the kernel copies");
    if (offsetIn !== 0 || offsetOut !== 0 || from === to) throw otherwise;
    if ((await this.#stat(from)).size > SMALL_CONTENT) await this.#makeVisible(from);
    const source = await this.#stat(from);
    const target = await this.#stat(to);
    if (!isFile(source) || !isFile(target) || source.content === null || source.nlink === 0 || target.nlink === 0) {
      throw otherwise;
    }
    if (length < source.size || target.size > source.size) throw otherwise;
    const sourceStack = this.#stacks.get(from);
    if (sourceStack !== undefined && (sourceStack.unresolved || !this.#isThere(sourceStack))) throw otherwise;
    const stack = this.#stacks.get(to);
    if (stack !== undefined && (stack.attr !== null || stack.unresolved || stack.layers.some((l) => l.frozen))) {
      throw otherwise;
    }
    let base = target.content;
    if (stack !== undefined) {
      // The node may still tell of the content before the last delivered one.
      base = stack.base;
      // All of it is replaced, what was written or cut before included.
      if (stack.open !== null) this.#dropOpenLayer(to);
      else this.#forgetStack(to);
    }
    const { content, size, holes = 0 } = source;
    this.#replica.touch();
    this.#putLocal({ ...this.#mustStat(to), content: base });
    const mode = withoutSetid(target.mode);
    const killed = caller.uid !== 0 && mode !== (target.mode & 0o7777) ? { mode } : {};
    this.#commit([
      { t: "content", ...killed, ino: to, base: null, baseContent: base, content, size, holes, time: this.#time() },
    ]);
    const open = this.#open.get(to);
    if (open !== undefined) this.#retain(open, this.#mustStat(to));
    return size;
  }
  /** Everybody sees what was written to the file so far, as far as the server can be told within two seconds. */
  async #makeVisible(ino: number): Promise<void> {
    if (!this.#stacks.has(ino) || this.#modes.mode !== "online") return;
    await this.#flushNode(ino, false);
    const stack = this.#stacks.get(ino);
    const out = this.#delivery.list().findLast((o) => o.stack === stack);
    if (out === undefined || out.state === "visible") return;
    this.#delivery.hurry();
    await this.#withTime(out.visible.opened, VISIBLE_WAIT_MS, false);
  }

  // --- locks ---

  getlk(ino: number, _fh: number, lock: LockRequest): Awaitable<LockRequest | null> {
    return this.#locks.getlk(ino, lock);
  }
  setlk(ino: number, fh: number, lock: LockRequest, wait: boolean, signal: AbortSignal): Awaitable<void> {
    return this.#locks.setlk(ino, fh, lock, wait, signal);
  }
  /** Journals the file's bytes; `visible` resolves when everybody sees them, and all that was journaled before. */
  async #settleWrites(ino: number): Promise<{ visible: Promise<void> }> {
    if (this.#stacks.get(ino)?.open) await this.#flushNode(ino, false);
    // A rename or removal belongs to what a program did before it unlocked (the end of a SQLite transaction is one).
    const last = this.#delivery.list().findLast((out) => out.state !== "visible");
    if (last === undefined) return { visible: Promise.resolve() };
    this.#delivery.hurry();
    return { visible: last.visible.opened };
  }
  /** What the server told before it answered is taken over already; the kernel has to have heard of it too. */
  async #asTheServerHasIt(ino: number): Promise<void> {
    if (this.#passedOver.nodes.has(ino) && await this.#passedOver.askNode(ino, () => this.#nodeAgain(ino))) {
      this.#catchUp();
    }
    await this.#notifier?.told?.(ino);
  }

  // --- the rest ---

  async statfs(): Promise<StatFs> {
    const now = this.#o.clock.monotonic();
    if (this.#statFs !== null && now - this.#statFs.at < 10_000) return this.#statFs.value;
    try {
      return await this.#askSpace();
    } catch {
      if (this.#statFs === null) return statVfs(this.#o.folder);
    }
    return this.#statFs.value;
  }
  #xattrsKnown(ino: number): boolean {
    return this.#replica.xattrsKnown(ino) || this.#replica.stat(ino)?.xattrs === 0;
  }
  async #loadXattrs(ino: number): Promise<void> {
    for (let left = XATTR_TRIES;; left--) {
      if (this.#replica.xattrsKnown(ino)) return;
      if (this.#replica.stat(ino)?.xattrs === 0) {
        // Kept, for when one is set: then the number alone says nothing any more.
        this.#replica.learnXattrs(ino, []);
        return;
      }
      await this.#ask(() => this.#askXattrs(ino), (values, since) => {
        // Who asked at the same time may have set one since.
        if (this.#replica.xattrsKnown(ino)) return;
        // Of a file that never stays as it is, the next news says that this is out of date.
        if (!since.nodes.has(ino) || left <= 1) this.#replica.learnXattrs(ino, values);
      });
    }
  }
  async #askXattrs(ino: number): Promise<[string, Uint8Array][]> {
    const link = this.#o.link;
    const values: [string, Uint8Array][] = [];
    const names = await link.call("listXattr", { ino });
    for (let at = 0; at < names.length; at += XATTRS_AT_ONCE) {
      const some = names.slice(at, at + XATTRS_AT_ONCE);
      const found = await Promise.all(some.map((name) => link.call("getXattr", { ino, name })));
      for (const [i, name] of some.entries()) {
        const value = found[i];
        if (value) values.push([name, value]);
      }
    }
    return values;
  }
  getxattr(ino: number, name: string): Awaitable<Uint8Array> {
    if (name === "user.anyfs.tiers") return this.#tiers(ino);
    if (name === "user.anyfs.state") {
      const state = ino === ROOT_INO ? mountState(this.#scene, this.#modes.mode) : fileState(this.#scene, ino);
      return new TextEncoder().encode(state);
    }
    checkXattrName(name);
    const unnamed = this.#unnamed.get(ino);
    if (unnamed !== undefined) return unnamed.xattrs.get(name);
    if (this.#open.get(ino)?.plain) throw name === LABEL ? NO_LABEL : NO_SYSTEM_ATTRIBUTE;
    const loaded = this.#xattrsKnown(ino) ? undefined : this.#loadXattrs(ino);
    const get = () => {
      const value = this.#replica.tree.getXattr(ino, name);
      if (value === null) throw name === LABEL ? NO_LABEL : noAttribute(name);
      return value;
    };
    return loaded === undefined ? get() : loaded.then(get);
  }
  async #tiers(ino: number): Promise<Uint8Array> {
    const stat = await this.#stat(ino);
    const mask = await this.#o.link.call("tiersOf", { content: stat.content });
    return new TextEncoder().encode(`0x${mask.toString(16)}`);
  }
  async setxattr(ino: number, name: string, value: Uint8Array, flags: number): Promise<void> {
    if (name.startsWith("user.anyfs.")) throw new FsError("permission_denied", `${name} tells, it can't be set`);
    checkXattrName(name);
    await this.#stat(ino);
    const open = this.#open.get(ino);
    if (open !== undefined) open.plain = false;
    const unnamed = this.#unnamed.get(ino);
    if (unnamed !== undefined) {
      checkXattrRoom(unnamed.xattrs.use(name), name, value.length);
      unnamed.xattrs.set(name, value.slice(), flags);
      return this.#changedUnnamed(unnamed);
    }
    await this.#loadXattrs(ino);
    if (this.#delivery.pendingValues + value.length > WAITING_VALUES) await this.#roomForValue(value.length);
    checkXattrRoom(this.#replica.tree.xattrUse(ino, name), name, value.length);
    this.#commit([{ t: "setxattr", ino, name, value: value.slice(), flags, time: this.#time() }]);
  }
  /** Throws no_space when too many values wait and the server does not take them now. */
  async #roomForValue(length: number): Promise<void> {
    const last = this.#delivery.list().at(-1);
    if (this.#modes.mode === "online" && last !== undefined) {
      this.#delivery.hurry();
      await this.#withTime(last.durable.opened, this.#o.requestTimeoutMs ?? REQUEST_MS, false);
    }
    const { pendingValues } = this.#delivery;
    if (pendingValues + length <= WAITING_VALUES) return;
    throw new FsError("no_space", `${pendingValues} bytes of extended attributes wait for delivery to the server`, {
      limit: WAITING_VALUES,
      usage: pendingValues,
      requested: length,
    });
  }
  async listxattr(ino: number, caller: Caller): Promise<string[]> {
    const unnamed = this.#unnamed.get(ino);
    if (unnamed === undefined) await this.#loadXattrs(ino);
    return (unnamed?.xattrs.names() ?? this.#replica.tree.listXattr(ino)).filter((name) => isVisibleTo(name, caller));
  }
  async removexattr(ino: number, name: string): Promise<void> {
    checkXattrName(name);
    const unnamed = this.#unnamed.get(ino);
    if (unnamed !== undefined) {
      unnamed.xattrs.remove(name);
      return this.#changedUnnamed(unnamed);
    }
    await this.#loadXattrs(ino);
    this.#commit([{ t: "removexattr", ino, name, time: this.#time() }]);
  }

  #changedUnnamed(unnamed: UnnamedNode): void {
    const { sec, nsec } = this.#time();
    unnamed.stat = { ...unnamed.stat, ctimeSec: sec, ctimeNsec: nsec };
  }

  /** For people and programs: what is not delivered yet, and how the cache does. */
  status() {
    return {
      mode: this.#modes.mode,
      ...this.#modes.status(),
      /** How many other mounts the server has now; null: not known, as offline. */
      other_clients: this.#others,
      pending: this.#delivery.pending,
      blocked: this.#delivery.blocked,
      conflicts: this.#found.open().length,
      /** The highest number the server confirmed to be on its disk, as it is kept here. */
      confirmed: Number(this.#replica.getMeta("durable") ?? 0),
      cache: this.#cache.stats(),
      openFiles: this.#open.size,
      locks: this.#locks.status(),
    };
  }
  /** Entries of the tables that must not grow for ever. */
  held(): Readonly<Record<string, number>> {
    return {
      stacks: this.#stacks.size,
      handles: this.#handles.size,
      contents: this.#lastContent.size,
      gone: this.#gone.size,
      announced: this.#announced.size,
      loading: this.#loading.size,
      missedNodes: this.#passedOver.nodes.size,
      missedEntries: this.#passedOver.entries.size,
      unnamed: this.#unnamed.size,
      asking: this.#asking.size,
      lastNames: this.#lastNames.size,
    };
  }
  /** True: the connection is ended and none is tried until this is called with false. */
  setOffline(offline: boolean): void {
    if (offline) {
      this.#modes.unwanted();
      this.#o.link.pause();
    } else {
      this.#modes.wanted();
      this.#o.link.resume();
    }
  }
  /** What happened to the connection, numbers above `after`; waits up to `waitMs` for the first. */
  events(after: number, waitMs: number): Promise<ModeEvent[]> {
    return this.#modes.events(after, waitMs);
  }
  /** Tries at once what would be tried later. */
  retry(): void {
    this.#o.link.check();
    this.#delivery.hurry();
  }
  /** The node at a path of the tree. Throws not_found, unavailable. */
  async #atPath(path: string): Promise<number> {
    let ino = ROOT_INO;
    for (const name of path.split("/").filter((each) => each !== "")) {
      const stat = await this.#lookup(ino, name);
      if (stat === null) throw new FsError("not_found", `there is no ${path}`, { path });
      ino = stat.ino;
    }
    return ino;
  }
  /** Keeps what is at the path complete here; returns its path without detours. Throws not_found, already_exists. */
  async pin(path: string): Promise<string> {
    const ino = await this.#atPath(path);
    const canonical = this.#replica.tree.pathOf(ino) ?? path;
    this.#pins.add(ino, canonical);
    return canonical;
  }
  async unpin(path: string): Promise<void> {
    this.#pins.remove(await this.#atPath(path).catch(() => 0), path);
  }
  listPins(): Promise<PinStatus[]> {
    return this.#pins.list();
  }
  /**
   * Goes on with a server that has another past than the one we knew. `keep-mine` first sends again what is here and not
   * there, and in what meets ours holds. Throws conflict when there is nothing to decide, unavailable.
   */
  async resolveEpoch(keep: "keep-mine" | "keep-server"): Promise<{ files: number; missing: string[] }> {
    const welcome = this.#welcome;
    if (this.#stopped === null || welcome === null) throw new FsError("conflict", "there is nothing to decide");
    if (!this.#raw.connected) throw new FsError("unavailable", "the server is away; decide when it is back");
    const sent = { files: 0, missing: [] as string[] };
    if (keep === "keep-mine") {
      this.#forced = "client-wins";
      await sendAgain({
        tree: this.#replica.tree,
        link: this.#raw,
        cache: this.#cache,
        isOurs: (ino) => this.#stacks.has(ino) || this.#replica.isPendingNode(ino),
        missing: (path) => void sent.missing.push(path),
        make: (op) => this.#journalOnly([op]),
        write: async (node, create) => {
          await this.#writeAgain(node, create);
          sent.files++;
        },
      });
      await this.#journal.sync();
    }
    this.#stopped = null;
    this.#replica.setMeta("durable", String(welcome.lastRequest));
    this.#welcome = { ...welcome, reset: true };
    this.#begin(this.#welcome);
    if (keep === "keep-mine") void this.#delivery.drained().then(() => void (this.#forced = null));
    return sent;
  }
  /** A record of what the replica has already. */
  #journalOnly(ops: readonly Op[]): void {
    const touched = touchedBy(ops);
    const request = this.#delivery.takeRequest();
    const place = this.#journal.append({ request, ops, data: null }, []);
    this.#replica.guard(touched);
    this.#delivery.add({ request, ops, data: null, place, stack: null, layer: null, touched });
  }
  /** All bytes of the file as if they were written now. */
  async #writeAgain(node: Stat, create: readonly Op[]): Promise<void> {
    const stack = this.#stackFor({ ...node, content: null, size: 0 });
    const { content, size } = node;
    for (let at = 0; content !== null && at < size; at += SEND_AGAIN_PIECE) {
      const bytes = await this.#cache.read(content, size, at, Math.min(SEND_AGAIN_PIECE, size - at));
      stack.top().write(at, bytes, () => this.#stagingPath());
    }
    await stack.top().sync();
    this.#journalTop(node.ino, create);
  }
  /** What is not delivered, oldest first; numbers above `after`. */
  journal(after = 0, limit = 1000): { items: JournalItem[]; conflicts: Conflict[] } {
    return { items: journalItems(this.#scene, after, limit), conflicts: this.#found.open() };
  }
  /** Gives up one undelivered change. Throws not_found, conflict when it has been sent. */
  dropJournal(request: number): void {
    this.#delivery.drop(request);
  }
  /**
   * Settles a conflict of policy `manual`: `theirs`: what stands there holds; `ours`: the other version takes the name, and
   * what stood there goes where that was; `both`: the other version goes beside it. Nothing is removed.
   */
  async resolveConflict(id: number, keep: "ours" | "theirs" | "both"): Promise<void> {
    const conflict = this.#found.mustBeOpen(id);
    if (keep !== "theirs") await settleByHand(conflict, keep, this, this.#replica.tree);
    this.#found.settle(conflict);
    this.#replica.commit();
  }
  clearCache(): number {
    return this.#cache.clear();
  }
  /** Waits until everything was delivered, at most `ms`; false: something is left (it stays in the journal). */
  async drain(ms: number): Promise<boolean> {
    if (this.#delivery.pending.records === 0) return true;
    let done = false;
    await this.#withTime(
      this.#delivery.drained().then(() => {
        done = true;
      }),
      ms,
      false,
    );
    return done;
  }
  async destroy(): Promise<void> {
    this.#accessed.flush();
    for (const ino of [...this.#stacks.keys()]) {
      await this.#flushNode(ino, false).catch((e) => this.#o.log(toFsError(e).message));
    }
    await this.#journal.sync();
    this.#replica.commit();
  }
  /** After destroy. */
  async close(): Promise<void> {
    this.#stopSync();
    this.#locks.close();
    this.#modes.close();
    this.#pins.close();
    this.#cancelListing();
    this.#accessed.close();
    await this.#delivery.stop();
    await this.#journal.close();
    this.#replica.close();
    this.#cache.close();
  }
}

const withoutSetid = (mode: number): number => {
  const S_IXGRP = 0o010;
  let bits = mode & 0o7777 & ~0o4000;
  if ((bits & S_IXGRP) !== 0) bits &= ~0o2000;
  return bits;
};
/** Group and mode of a new node: in a setgid directory the group is the directory's, and subdirectories are setgid too. */
function inherited(dir: Stat, mode: number, caller: Caller): { gid: number; bits: number } {
  const S_ISGID = 0o2000;
  if ((dir.mode & S_ISGID) === 0) return { gid: caller.gid, bits: mode };
  return { gid: dir.gid, bits: (mode & S_IFMT) === S_IFDIR ? mode | S_ISGID : mode };
}
function timesOf(s: Stat): Partial<Stat> {
  const { atimeSec, atimeNsec, mtimeSec, mtimeNsec, ctimeSec, ctimeNsec } = s;
  return { atimeSec, atimeNsec, mtimeSec, mtimeNsec, ctimeSec, ctimeNsec };
}
function mtimeOf(t: Time): Pick<Stat, "mtimeSec" | "mtimeNsec" | "ctimeSec" | "ctimeNsec"> {
  return { mtimeSec: t.sec, mtimeNsec: t.nsec, ctimeSec: t.sec, ctimeNsec: t.nsec };
}
/** What journaled operations touch, and a file whose bytes change with them, for the guard. */
function touchedBy(ops: readonly Op[], written?: number): Touched {
  const entries: Touched["entries"] = [];
  const nodes = new Set<number>(written === undefined ? [] : [written]);
  for (const op of ops) {
    if ("ino" in op && op.ino !== 0 && op.t !== "atime") nodes.add(op.ino);
    if (op.t === "create" || op.t === "link") entries.push({ parent: op.parent, name: op.name, ino: op.ino });
    if (op.t === "unlink" || op.t === "rmdir") entries.push({ parent: op.parent, name: op.name, ino: 0 });
    if (op.t === "rename") {
      entries.push({ parent: op.parent, name: op.name, ino: 0 });
      entries.push({ parent: op.newParent, name: op.newName, ino: op.ino });
    }
  }
  return { entries: entries.slice(), nodes: [...nodes] };
}

const sameStat = (a: Stat, b: Stat): boolean =>
  a.content === b.content && a.size === b.size && a.mode === b.mode && a.nlink === b.nlink && a.uid === b.uid &&
  a.gid === b.gid && a.mtimeSec === b.mtimeSec && a.mtimeNsec === b.mtimeNsec && a.ctimeSec === b.ctimeSec &&
  a.ctimeNsec === b.ctimeNsec;
