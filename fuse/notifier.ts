/** The way back into the kernel: invalidations, queued, merged and written from other threads so that the request loop never waits. */
import { encodeName } from "../core/fs/names.ts";
import type { KernelNotifier } from "../core/fs/inode_fs.ts";
import {
  EXPIRE_ONLY,
  MINOR_INC_EPOCH,
  NOTIFY_INC_EPOCH,
  NOTIFY_INVAL_ENTRY,
  NOTIFY_INVAL_INODE,
  OUT_HEADER,
  ROOT_ID,
  TWO32,
} from "./abi.ts";

/** Writes in flight at most: each may sit on a thread of the pool while the kernel waits for an answer of ours. */
const PARALLEL = 8;
/** Queued invalidations at most; beyond, all are replaced by one of everything. */
export const QUEUE_LIMIT = 65536;
/** Invalidations remembered for `touchedSince`. */
const RECENT = 256;
/** In the list of recent ones: everything. */
const ALL = 0;
/** Folders remembered as looked in; more are taken for all. */
const LOOKED_IN = 4096;
/** How long ago a name may have been looked up for its answer to be on its way still; when it is expired once more. */
const ANSWER_MS = 1000;
const ONCE_MORE_MS = 250;
/** Waits before what the kernel had not heard of is told again: doubled from the first to the last. */
const FIRST_AGAIN_MS = 1;
const LAST_AGAIN_MS = 512;
const MESSAGE_BYTES = OUT_HEADER + 16 + 256;

/** What the notifier needs of its session. */
export interface NotifierPort {
  /** Writes one message on another thread; resolves with the result of write(2). */
  write(message: Uint8Array<ArrayBuffer>, length: number): Promise<number>;
  /** Calls back once after `ms`. */
  after(ms: number, callback: () => void): void;
  /** Monotonic milliseconds. */
  now(): number;
  /** Every node the kernel holds. */
  knownInodes(): Float64Array<ArrayBuffer>;
  isKnown(ino: number): boolean;
  /** How many READs have come so far. */
  readonly reads: number;
  /** Is one of the first `reads` READs, of this node, still without an answer? */
  isBeingRead(ino: number, reads: number): boolean;
}

/** Counters since the mount. */
export interface NotifierStats {
  readonly queued: number;
  readonly sent: number;
  readonly merged: number;
  /** How often the kernel did not know yet what it had been given, and was told again. */
  readonly again: number;
  /** How often everything was invalidated at once. */
  readonly all: number;
}

/** An invalidation of a node that is due. */
interface InodeDue {
  data: boolean;
  readonly number: number;
  /** READs that had come when the bytes were to be dropped. */
  reads: number;
}

/** A message that is being written. */
interface Writing {
  readonly number: number;
  /** Node whose pages it drops, 0: none. */
  readonly dropping: number;
  /** Node it is about, 0: it is about no node alone. */
  readonly ino: number;
  readonly data: boolean;
}

/** An invalidation of a node that the kernel did not know when it was written. */
interface Unheard extends InodeDue {
  readonly waitMs: number;
  isDue: boolean;
}

const NOTHING: Writing = { number: 0, dropping: 0, ino: 0, data: false };

/** Somebody waits for what was asked for up to `number`. */
interface Waiting {
  readonly number: number;
  /** For all that no reader holds up. */
  readonly all: boolean;
  /** For dropping this node's pages, readers or not; 0: for none. */
  readonly ino: number;
  readonly resolve: () => void;
}

/**
 * A kernel write of a notification blocks while a request on the same directory or range is unanswered, so none is ever
 * written from the thread that owes the answers (fs/fuse/dev.c, fuse_notify). And pages are dropped when those who were
 * reading the node have their bytes: the kernel waits for each page where nothing can end it, for minutes when a server
 * does not answer, a thread of ours would wait with it, and its end with that. All others pass meanwhile.
 *
 * An answer is taken in by the process that asked, when it runs again, and an invalidation may overtake it on a busy
 * machine. Of a node that comes with its first answer the kernel then knows nothing (ENOENT): it is told again until it
 * does. A name that was looked up a moment before is expired a second time.
 */
export class Notifier implements KernelNotifier {
  /** Grows with every invalidation asked for. */
  tick = 0;
  /** The node (of an entry: its directory) of invalidation t at t modulo RECENT. */
  readonly #recent = new Float64Array(RECENT);
  readonly #port: NotifierPort;
  readonly #inodes = new Map<number, InodeDue>();
  readonly #entries = new Map<string, { parent: number; name: string; number: number }>();
  /** Numbers of what was asked for: of the last, of the sweep that is due or under way, of writes that have not returned. */
  #asked = 0;
  #sweepNumber = Infinity;
  #taken: Writing = NOTHING;
  readonly #writing = new Map<Uint8Array<ArrayBuffer>, Writing>();
  readonly #unheard = new Map<number, Unheard>();
  #again = 0;
  /** Folders in which names were looked up lately, and before; null: in any. When the former began. */
  #lookedIn: Set<number> | null = new Set();
  #lookedInBefore: Set<number> | null = new Set();
  #lookedSince = 0;
  readonly #onceMore = new Map<string, { parent: number; name: string }>();
  #waiting: Waiting[] = [];
  readonly #free: Uint8Array<ArrayBuffer>[] = [];
  /** Nodes whose attributes a pending invalidateAll still has to expire; next index to send. */
  #sweep: Float64Array<ArrayBuffer> | null = null;
  #sweepNext = 0;
  #epoch = false;
  #inFlight = 0;
  #minor = 0;
  #entryFlags = 0;
  #open = false;
  #closed = false;
  #sent = 0;
  #merged = 0;
  #all = 0;
  #idle: (() => void)[] = [];

  constructor(port: NotifierPort) {
    this.#port = port;
  }

  /** The kernel has said what it can (INIT): what was queued before may go. */
  start(minor: number, expireOnly: boolean): void {
    this.#minor = minor;
    this.#entryFlags = expireOnly ? EXPIRE_ONLY : 0;
    this.#open = true;
    this.#pump();
  }

  /** Nothing more is written; resolves when the last write has returned. */
  close(): Promise<void> {
    this.#closed = true;
    this.#inodes.clear();
    this.#entries.clear();
    this.#unheard.clear();
    this.#onceMore.clear();
    this.#sweep = null;
    this.#epoch = false;
    this.#sweepNumber = Infinity;
    this.#tell();
    return this.settled();
  }

  /** Resolves when the queue is empty and every write has returned. */
  settled(): Promise<void> {
    if (this.#isIdle()) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  /**
   * Resolves when everything that was asked for so far has been written to the kernel, whatever comes after it. Not waited
   * for is what waits for readers, unless it is of the node `ino`: an open of that node waits by itself.
   */
  told(ino = 0): Promise<void> {
    return this.#wait(true, ino);
  }
  #wait(all: boolean, ino: number): Promise<void> {
    return new Promise((resolve) => {
      const waiting = { number: this.#asked, all, ino, resolve };
      if (this.#isTold(waiting)) resolve();
      else this.#waiting.push(waiting);
    });
  }
  #isTold({ number, all, ino }: Waiting): boolean {
    return (!all || number < this.#oldest()) && (ino === 0 || number < this.#dropDue(ino));
  }
  /** Number of the oldest that is queued, and held up by no reader, or being written. */
  #oldest(): number {
    let oldest = this.#sweepNumber;
    for (const { number } of this.#entries.values()) {
      oldest = Math.min(oldest, number);
      break;
    }
    for (const [ino, due] of this.#inodes) {
      if (this.#waitsForReaders(ino, due)) continue;
      oldest = Math.min(oldest, due.number);
      break;
    }
    for (const { number } of this.#writing.values()) oldest = Math.min(oldest, number);
    for (const [ino, due] of this.#unheard) {
      if (!this.#waitsForReaders(ino, due)) oldest = Math.min(oldest, due.number);
    }
    return oldest;
  }
  /** Number of the oldest dropping of the node's pages that is not over; Infinity: none. */
  #dropDue(ino: number): number {
    let oldest = Infinity;
    for (const due of [this.#inodes.get(ino), this.#unheard.get(ino)]) {
      if (due?.data === true) oldest = Math.min(oldest, due.number);
    }
    for (const { number, dropping } of this.#writing.values()) if (dropping === ino) oldest = Math.min(oldest, number);
    return oldest;
  }
  /** Are pages of the node to be dropped still? */
  isDropping(ino: number): boolean {
    return this.#dropDue(ino) !== Infinity;
  }
  /** May the kernel have pages or attributes of the node that it is to drop still? */
  isBehind(ino: number): boolean {
    if (this.#sweepNumber !== Infinity || this.#inodes.has(ino) || this.#unheard.has(ino)) return true;
    for (const writing of this.#writing.values()) if (writing.ino === ino) return true;
    return false;
  }
  #waitsForReaders(ino: number, { data, reads }: InodeDue): boolean {
    return data && this.#port.isBeingRead(ino, reads);
  }
  /** A READ has its answer. */
  readAnswered(): void {
    if (this.#inodes.size > 0 || this.#unheard.size > 0) this.#pump();
  }
  #tell(): void {
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const each of waiting) {
      if (this.#isTold(each)) each.resolve();
      else this.#waiting.push(each);
    }
  }

  stats(): NotifierStats {
    return { queued: this.#queued(), sent: this.#sent, merged: this.#merged, again: this.#again, all: this.#all };
  }

  /**
   * May an answer about node `ino` that was begun at `tick` be outdated? The kernel guards what it has cached against
   * replies older than an invalidation, but not a node or name it is only about to learn.
   */
  touchedSince(tick: number, ino: number): boolean {
    if (this.tick - tick > RECENT) return true;
    for (let t = tick; t < this.tick; t++) {
      const touched = this.#recent[t % RECENT];
      if (touched === ino || touched === ALL) return true;
    }
    return false;
  }

  #touch(ino: number): void {
    this.#recent[this.tick % RECENT] = ino;
    this.tick++;
  }

  invalidateInode(ino: number, data: boolean): void {
    this.#touch(ino);
    if (this.#closed) return;
    const before = this.#inodes.get(ino);
    if (before === undefined) {
      if (this.#full()) return;
      this.#inodes.set(ino, { data, number: ++this.#asked, reads: this.#port.reads });
      this.#pump();
      return;
    }
    this.#merged++;
    if (!data) return;
    before.data = true;
    before.reads = this.#port.reads;
  }

  /** Has the kernel drop the pages it has of the file, and resolves when it has; false when that can't be told. */
  async dropPages(ino: number): Promise<boolean> {
    this.invalidateInode(ino, true);
    if (!this.#open || !this.isDropping(ino)) return false;
    await this.#wait(false, ino);
    return !this.#closed;
  }

  invalidateEntry(parent: number, name: string): void {
    this.#touch(parent);
    if (this.#closed) return;
    const key = `${parent}/${name}`;
    if (this.#entries.has(key)) {
      this.#merged++;
      return;
    }
    if (this.#full()) return;
    this.#entries.set(key, { parent, name, number: ++this.#asked });
    if (this.#entryFlags !== 0 && this.#wasLookedIn(parent)) {
      if (this.#onceMore.size === 0) this.#port.after(ONCE_MORE_MS, () => this.#expireOnceMore());
      this.#onceMore.set(key, { parent, name });
    }
    this.#pump();
  }

  /** A name in the folder is being looked up. */
  lookedUp(parent: number): void {
    const lookedIn = this.#lookedIn;
    if (lookedIn === null || lookedIn.has(parent)) return;
    if (lookedIn.size < LOOKED_IN) lookedIn.add(parent);
    else this.#lookedIn = null;
  }
  /**
   * Was a name in the folder looked up within `ANSWER_MS`, or perhaps? A name the kernel has and asks for again is not
   * guarded by the folder's lock (fs/fuse/dir.c, fuse_dentry_revalidate): what is expired in between lives on.
   */
  #wasLookedIn(parent: number): boolean {
    const now = this.#port.now();
    if (now - this.#lookedSince > ANSWER_MS) {
      this.#lookedInBefore = this.#lookedIn;
      this.#lookedIn = new Set();
      this.#lookedSince = now;
    }
    return [this.#lookedIn, this.#lookedInBefore].some((folders) => folders === null || folders.has(parent));
  }
  #expireOnceMore(): void {
    if (this.#closed) return;
    for (const [key, { parent, name }] of this.#onceMore) {
      if (!this.#entries.has(key)) this.#entries.set(key, { parent, name, number: ++this.#asked });
    }
    this.#onceMore.clear();
    this.#pump();
  }

  holds(ino: number): boolean {
    return this.#port.isKnown(ino);
  }

  /**
   * Entries by a new epoch (Linux 6.16; on older kernels they age out, see `session.ts`), and the attributes of every
   * node the kernel holds, which a process may reach without a lookup: open files, current directories. Attributes
   * suffice: with AUTO_INVAL_DATA a changed size or mtime drops the pages.
   */
  invalidateAll(): void {
    this.#touch(ALL);
    if (this.#closed) return;
    this.#all++;
    this.#epoch = true;
    this.#sweepNumber = Math.min(this.#oldest(), ++this.#asked);
    this.#entries.clear();
    this.#sweep = null;
    this.#sweepNext = 0;
    this.#pump();
  }

  #queued(): number {
    const sweep = this.#sweep === null ? 0 : this.#sweep.length - this.#sweepNext;
    return this.#inodes.size + this.#entries.size + this.#unheard.size + sweep + (this.#epoch ? 1 : 0);
  }

  #full(): boolean {
    if (this.#inodes.size + this.#entries.size < QUEUE_LIMIT) return false;
    this.#sweepNumber = this.#oldest();
    this.#inodes.clear();
    this.invalidateAll();
    return true;
  }

  #pump(): void {
    while (this.#open && !this.#closed && this.#inFlight < PARALLEL) {
      const buffer = this.#free.pop() ?? new Uint8Array(MESSAGE_BYTES);
      const length = this.#next(buffer);
      if (length === 0) {
        this.#free.push(buffer);
        break;
      }
      this.#writing.set(buffer, this.#taken);
      this.#inFlight++;
      this.#sent++;
      this.#port.write(buffer, length).then((result) => this.#done(buffer, result), () => this.#done(buffer, 0));
    }
    this.#tellIdle();
  }

  #isIdle(): boolean {
    return this.#inFlight === 0 && this.#queued() === 0;
  }

  #tellIdle(): void {
    if (this.#isIdle()) { for (const resolve of this.#idle.splice(0)) resolve(); }
  }

  #done(buffer: Uint8Array<ArrayBuffer>, result: number): void {
    const written = this.#writing.get(buffer);
    this.#inFlight--;
    this.#writing.delete(buffer);
    this.#free.push(buffer);
    if (written !== undefined && written.ino !== 0) this.#heard(written, result >= 0);
    this.#pump();
    this.#tell();
  }

  /** The kernel has answered a message about a node. "Not known" is the only failure it has for a well-formed one. */
  #heard({ ino, data, number }: Writing, known: boolean): void {
    const before = this.#unheard.get(ino);
    if (known || this.#closed || !this.#port.isKnown(ino)) {
      if (before?.number === number) this.#unheard.delete(ino);
      return;
    }
    const waitMs = Math.min(before === undefined ? FIRST_AGAIN_MS : before.waitMs * 2, LAST_AGAIN_MS);
    const unheard = {
      data: data || before?.data === true,
      number: Math.min(number, before?.number ?? Infinity),
      reads: this.#port.reads,
      waitMs,
      isDue: false,
    };
    this.#unheard.set(ino, unheard);
    this.#port.after(waitMs, () => {
      unheard.isDue = true;
      this.#pump();
    });
  }

  /** Takes the next message off the queue; its length, 0 when there is none. */
  #next(buffer: Uint8Array<ArrayBuffer>): number {
    if (this.#epoch) {
      this.#epoch = false;
      this.#sweep = this.#port.knownInodes();
      this.#sweepNext = 0;
      this.#taken = { ...NOTHING, number: this.#sweepNumber };
      this.#inodes.set(ROOT_ID, { data: true, number: ++this.#asked, reads: 0 });
      if (this.#minor >= MINOR_INC_EPOCH) return header(buffer, NOTIFY_INC_EPOCH, 0);
    }
    for (const [ino, unheard] of this.#unheard) {
      if (!unheard.isDue || this.#waitsForReaders(ino, unheard)) continue;
      unheard.isDue = false;
      this.#again++;
      return this.#aboutNode(buffer, ino, unheard.data, unheard.number);
    }
    let firstInode = 0;
    let first: InodeDue | undefined;
    for (const [ino, due] of this.#inodes) {
      if (this.#waitsForReaders(ino, due)) continue;
      [firstInode, first] = [ino, due];
      break;
    }
    for (const [key, entry] of this.#entries) {
      if (first !== undefined && first.number < entry.number) break;
      this.#entries.delete(key);
      this.#taken = { ...NOTHING, number: entry.number };
      return entryMessage(buffer, entry.parent, entry.name, this.#entryFlags);
    }
    if (first !== undefined) {
      this.#inodes.delete(firstInode);
      return this.#aboutNode(buffer, firstInode, first.data, first.number);
    }
    const sweep = this.#sweep;
    if (sweep === null) return 0;
    const ino = sweep[this.#sweepNext++];
    if (ino === undefined) {
      this.#sweep = null;
      this.#sweepNumber = Infinity;
      return 0;
    }
    return this.#aboutNode(buffer, ino, false, this.#sweepNumber);
  }
  #aboutNode(buffer: Uint8Array<ArrayBuffer>, ino: number, data: boolean, number: number): number {
    this.#taken = { number, dropping: data ? ino : 0, ino, data };
    return inodeMessage(buffer, ino, data);
  }
}

/** struct fuse_out_header with the code in place of an error and unique 0. Returns the message's length. */
function header(buffer: Uint8Array<ArrayBuffer>, code: number, payload: number): number {
  const words = new Uint32Array(buffer.buffer, buffer.byteOffset, 4);
  words[0] = OUT_HEADER + payload;
  words[1] = code;
  words[2] = 0;
  words[3] = 0;
  return OUT_HEADER + payload;
}

/** struct fuse_notify_inval_inode_out: offset 0 length 0 is the whole file, offset -1 the attributes alone. */
function inodeMessage(buffer: Uint8Array<ArrayBuffer>, ino: number, data: boolean): number {
  const words = new Uint32Array(buffer.buffer, buffer.byteOffset, 10);
  words[4] = ino;
  words[5] = ino / TWO32;
  words[6] = words[7] = data ? 0 : 0xffffffff;
  words[8] = words[9] = 0;
  return header(buffer, NOTIFY_INVAL_INODE, 24);
}

/** struct fuse_notify_inval_entry_out, then the name and a NUL that namelen doesn't count. */
function entryMessage(buffer: Uint8Array<ArrayBuffer>, parent: number, name: string, flags: number): number {
  const words = new Uint32Array(buffer.buffer, buffer.byteOffset, 8);
  const bytes = encodeName(name).subarray(0, 255);
  words[4] = parent;
  words[5] = parent / TWO32;
  words[6] = bytes.length;
  words[7] = flags;
  buffer.set(bytes, OUT_HEADER + 16);
  buffer[OUT_HEADER + 16 + bytes.length] = 0;
  return header(buffer, NOTIFY_INVAL_ENTRY, 16 + bytes.length + 1);
}
