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
const MESSAGE_BYTES = OUT_HEADER + 16 + 256;

/** What the notifier needs of its session. */
export interface NotifierPort {
  /** Writes one message on another thread; resolves with the result of write(2). */
  write(message: Uint8Array<ArrayBuffer>, length: number): Promise<number>;
  /** Every node the kernel holds. */
  knownInodes(): Float64Array<ArrayBuffer>;
  isKnown(ino: number): boolean;
}

/** Counters since the mount. */
export interface NotifierStats {
  readonly queued: number;
  readonly sent: number;
  readonly merged: number;
  /** How often everything was invalidated at once. */
  readonly all: number;
}

/**
 * A kernel write of a notification blocks while a request on the same directory or range is unanswered, so none is ever
 * written from the thread that owes the answers (fs/fuse/dev.c, fuse_notify).
 */
export class Notifier implements KernelNotifier {
  /** Grows with every invalidation asked for. */
  tick = 0;
  /** The node (of an entry: its directory) of invalidation t at t modulo RECENT. */
  readonly #recent = new Float64Array(RECENT);
  readonly #port: NotifierPort;
  readonly #inodes = new Map<number, { data: boolean; number: number }>();
  readonly #entries = new Map<string, { parent: number; name: string; number: number }>();
  /** Numbers of what was asked for: of the last, of the sweep that is due or under way, of writes that have not returned. */
  #asked = 0;
  #sweepNumber = Infinity;
  #taken = 0;
  readonly #writing = new Map<Uint8Array<ArrayBuffer>, number>();
  #waiting: { number: number; resolve: () => void }[] = [];
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
    this.#sweep = null;
    this.#epoch = false;
    this.#sweepNumber = Infinity;
    this.#tell();
    return this.settled();
  }

  /** Resolves when the queue is empty and every write has returned. */
  settled(): Promise<void> {
    if (this.#inFlight === 0 && this.#queued() === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  /** Resolves when everything that was asked for so far has been written to the kernel, whatever comes after it. */
  told(): Promise<void> {
    const number = this.#asked;
    if (number < this.#oldest()) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ number, resolve }));
  }
  /** Number of the oldest that is queued or being written. */
  #oldest(): number {
    let oldest = this.#sweepNumber;
    for (const { number } of this.#entries.values()) {
      oldest = Math.min(oldest, number);
      break;
    }
    for (const { number } of this.#inodes.values()) {
      oldest = Math.min(oldest, number);
      break;
    }
    for (const number of this.#writing.values()) oldest = Math.min(oldest, number);
    return oldest;
  }
  #tell(): void {
    if (this.#waiting.length === 0) return;
    const oldest = this.#oldest();
    const waiting = this.#waiting;
    this.#waiting = waiting.filter(({ number }) => number >= oldest);
    for (const { number, resolve } of waiting) if (number < oldest) resolve();
  }

  stats(): NotifierStats {
    return { queued: this.#queued(), sent: this.#sent, merged: this.#merged, all: this.#all };
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
      this.#inodes.set(ino, { data, number: ++this.#asked });
      this.#pump();
      return;
    }
    this.#merged++;
    if (data) before.data = true;
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
    return this.#inodes.size + this.#entries.size + sweep + (this.#epoch ? 1 : 0);
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
      this.#port.write(buffer, length).then(() => this.#done(buffer), () => this.#done(buffer));
    }
    if (this.#inFlight === 0 && this.#queued() === 0) {
      for (const resolve of this.#idle.splice(0)) resolve();
    }
  }

  #done(buffer: Uint8Array<ArrayBuffer>): void {
    // Whatever it returned: "not cached" (ENOENT) is the only failure the kernel has for a well-formed message.
    this.#inFlight--;
    this.#writing.delete(buffer);
    this.#free.push(buffer);
    this.#pump();
    this.#tell();
  }

  /** Takes the next message off the queue; its length, 0 when there is none. */
  #next(buffer: Uint8Array<ArrayBuffer>): number {
    if (this.#epoch) {
      this.#epoch = false;
      this.#sweep = this.#port.knownInodes();
      this.#sweepNext = 0;
      this.#taken = this.#sweepNumber;
      this.#inodes.set(ROOT_ID, { data: true, number: ++this.#asked });
      if (this.#minor >= MINOR_INC_EPOCH) return header(buffer, NOTIFY_INC_EPOCH, 0);
    }
    const [firstInode] = this.#inodes.values();
    for (const [key, entry] of this.#entries) {
      if (firstInode !== undefined && firstInode.number < entry.number) break;
      this.#entries.delete(key);
      this.#taken = entry.number;
      return entryMessage(buffer, entry.parent, entry.name, this.#entryFlags);
    }
    for (const [ino, { data, number }] of this.#inodes) {
      this.#inodes.delete(ino);
      this.#taken = number;
      return inodeMessage(buffer, ino, data);
    }
    const sweep = this.#sweep;
    if (sweep === null) return 0;
    const ino = sweep[this.#sweepNext++];
    if (ino === undefined) {
      this.#sweep = null;
      this.#sweepNumber = Infinity;
      return 0;
    }
    this.#taken = this.#sweepNumber;
    return inodeMessage(buffer, ino, false);
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
