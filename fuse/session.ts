/** The request loop: reads the kernel's requests, asks the InodeFs, writes the answers. One thread, never waiting in a call. */
import { Errno, FsError } from "../core/fs/error.ts";
import { decodeName, encodeName } from "../core/fs/names.ts";
import {
  type AttrChange,
  type Awaitable,
  type Caller,
  type InodeFs,
  type LockRequest,
  type OpenResult,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  RENAME_WHITEOUT,
} from "../core/fs/inode_fs.ts";
import { type NodeAttr, S_IFDIR, S_IFMT, S_IFREG, type Stat } from "../core/fs/stat.ts";
import type { StatFs } from "../core/fs/contract.ts";
import type { Clock } from "../core/platform/clock.ts";
import {
  ATTR_OUT,
  AttrFlag,
  DIRENT,
  ENTRY_OUT,
  F_RDLCK,
  F_UNLCK,
  F_WRLCK,
  FSYNC_FDATASYNC,
  FUSE_MAJOR,
  FUSE_MINOR,
  GETATTR_FH,
  IN_HEADER,
  INIT2_HAS_EXPIRE_ONLY,
  INIT2_PASSTHROUGH,
  INIT_OUT,
  InitFlag,
  LK_FLOCK,
  MAX_BACKGROUND,
  MAX_TRANSFER,
  MINOR_INC_EPOCH,
  O_APPEND,
  O_TRUNC,
  Opcode,
  OPCODE_LIMIT,
  opcodeName,
  OPEN_KILL_SUIDGID,
  OPEN_OUT,
  OpenFlag,
  OUT_HEADER,
  PAGE_SIZE,
  RELEASE_FLOCK_UNLOCK,
  STATFS_OUT,
  STATX_MASK,
  STATX_OUT,
  TWO32,
  UNKNOWN_INO,
  WANTED_FLAGS,
  WRITE_CACHE,
  WRITE_DATA,
  WRITE_KILL_SUIDGID,
} from "./abi.ts";
import { BackingFiles } from "./backing.ts";
import { Directory } from "./directory.ts";
import { LookupCounts } from "./inodes.ts";
import { addressOf, alignedBuffer, errno, libc, POLLIN } from "./libc.ts";
import { Notifier, type NotifierStats } from "./notifier.ts";
import { interruption, READING } from "./signals.ts";

/** Requests answered in one turn of the event loop at most; then timers, sockets and settled promises have theirs. */
const TURN_REQUESTS = 128;
/**
 * How often an empty device is read again before going to sleep: a lone client asks its next question within some 20 µs,
 * while a sleep and its wake-up on another CPU cost 50. Measured with 0 / 40, one client: stat 26k / 61k a second,
 * open+read+close 12k / 20k, create 2.8k / 6.7k; eight clients alike (tests/bench/fuse_bench.ts).
 */
const SPINS = 40;
/** How often late answers are waited for, and for how many microtasks each time, before the kernel is asked to wake us. */
const LATE_ROUNDS = 8;
const MICROTASKS = 24;
/** So many reads in a row that fail in no expected way end the session. */
const ODD_ERRORS = 1000;
/** After so many turns whose spinning was in vain, only one turn in as many spins. */
const SPIN_PATIENCE = 8;
/** Bytes moved in one turn at most (16 transfers of 1 MiB take about 3 ms). */
const TURN_BYTES = 16 << 20;
/** Before kernels that can expire everything at once (6.16), a name that nobody invalidated is trusted at most so long. */
const OLD_KERNEL_TIMEOUT_SEC = 30;
/** From this size an answer that lies in a buffer of its own goes out by writev(2) instead of a copy. */
const WRITEV_BYTES = 16384;
/** How often a request whose caller took a signal is looked at again: a later SIGKILL sends no second INTERRUPT. */
const RECHECK_MS = 200;
/** How often new requests are refused while the end waits. */
const REFUSE_MS = 20;
/** How often requests are looked through for those whose time is up. */
const SWEEP_MS = 250;
/** A READ that was late is asked at once a second time by the kernel, for the first page alone: that one is not waited for. */
const AGAIN_MS = 1000;

/** Bytes of a struct fuse_direntplus whose name has up to eight. */
const SHORTEST_PLUS = ENTRY_OUT + DIRENT + 8;

/** st_blocks: units of 512 bytes that hold something. */
const blocksOf = (stat: NodeAttr): number => Math.ceil((stat.size - (stat.holes ?? 0)) / 512);

/** Setuid and setgid. */
const SUIDGID = 0o6000;

/** What a session is told. Times in seconds. */
export interface SessionOptions {
  readonly fs: InodeFs;
  readonly clock: Clock;
  readonly entryTimeoutSec: number;
  readonly attrTimeoutSec: number;
  readonly negativeTimeoutSec: number;
  /** Let the kernel read backing files by itself where the filesystem names them; needs root. */
  readonly passthrough?: boolean;
  /** What only asks is answered ETIMEDOUT after so many milliseconds; READ has its own limit. Infinity: never. */
  readonly requestTimeoutMs: number;
  readonly readTimeoutMs: number;
  /** Called once, after INIT was answered. */
  readonly onReady: () => void;
  /** An unexpected failure (not an FsError): a bug of the filesystem or of ours. The caller got EIO. */
  readonly onError: (error: unknown, operation: string, ino: number) => void;
}

/** What a session has done and holds. */
export interface SessionStats {
  /** Requests by name since the mount. */
  readonly requests: Record<string, number>;
  /** Answers that were an errno. */
  readonly errors: number;
  readonly interrupted: number;
  /** Bytes of READ answers and WRITE requests. */
  readonly bytesRead: number;
  readonly bytesWritten: number;
  /** Nodes the kernel holds, and the bytes their table takes. */
  readonly inodes: number;
  readonly inodeTableBytes: number;
  /** Nodes that the kernel reads from backing files now. */
  readonly passthrough: number;
  /** Requests waiting for the filesystem. */
  readonly inFlight: number;
  readonly openDirectories: number;
  readonly notifications: NotifierStats;
  /** Protocol minor of the kernel. */
  readonly kernelMinor: number;
}

/** A request whose answer comes later. */
class Pending {
  answered = false;
  /** Told when the request is given up. */
  controller: AbortController | null = null;
  /** It is given up at any signal: it waits for others. */
  waits = false;
  /** Of a READ: how many had come with it. */
  reads = 0;
  /** Monotonic milliseconds; Infinity: it may take as long as it takes. */
  deadline = Infinity;
  constructor(
    readonly lo: number,
    readonly hi: number,
    readonly op: number,
    readonly ino: number,
    readonly pid: number,
    readonly tick: number,
  ) {}
}

/** Seconds as the whole and nanosecond parts of a timeout. */
function splitSeconds(seconds: number): [number, number] {
  const whole = Math.floor(seconds);
  return [whole, Math.floor((seconds - whole) * 1e9)];
}

export class Session {
  readonly notifier: Notifier;
  #fd: number;
  readonly #wakeFd: number;
  readonly #fs: InodeFs;
  readonly #options: SessionOptions;
  readonly #inodes = new LookupCounts();
  readonly #directories = new Map<number, Directory>();
  #nextDirectory = 1;

  readonly #in8 = alignedBuffer(MAX_TRANSFER + PAGE_SIZE + WRITE_DATA, WRITE_DATA);
  readonly #in32 = new Uint32Array(this.#in8.buffer, this.#in8.byteOffset, 512);
  readonly #out8 = alignedBuffer(MAX_TRANSFER + PAGE_SIZE + OUT_HEADER, OUT_HEADER);
  readonly #out32 = new Uint32Array(this.#out8.buffer, this.#out8.byteOffset, (MAX_TRANSFER + OUT_HEADER) / 4);
  readonly #vector = new BigUint64Array(4);
  readonly #vector8 = new Uint8Array(this.#vector.buffer);
  readonly #out8Address = addressOf(this.#out8);
  #inLength = 0;

  /** Whom the next answer is for: of the request at hand, or of the pending one that settles now. */
  #lo = 0;
  #hi = 0;
  /** When the request at hand was read, in the notifier's ticks; was its node invalidated since? Then nothing of the answer is to be cached. */
  #tick = 0;
  #stale = false;

  /** Files whose mode the kernel was told with setuid or setgid: few. */
  readonly #suidgid = new Set<number>();
  readonly #pending = new Map<number, Pending>();
  #answeredLate = 0;
  #oddErrors = 0;
  readonly #watched = new Set<Pending>();
  #stopSweep: (() => void) | null = null;
  /** Nodes of which a READ was late a moment ago, until when. */
  readonly #readLate = new Map<number, number>();
  /** READs that had no answer at once, so far; and who waits for those of a node. */
  #reads = 0;
  #afterReads: { ino: number; reads: number; resolve: () => void }[] = [];
  #idle: (() => void)[] = [];
  #entrySec = 0;
  #entryNsec = 0;
  #attrSec = 0;
  #attrNsec = 0;
  #negativeSec = 0;
  #negativeNsec = 0;
  #negativeCached = false;
  #minor = 0;
  #backing: BackingFiles | null = null;
  #stopped = false;
  #destroyed: Promise<void> | null = null;
  #caller: Caller = { uid: 0, gid: 0, pid: 0 };

  readonly #counts = new Float64Array(OPCODE_LIMIT);
  #errors = 0;
  #interrupted = 0;
  #bytesRead = 0;
  #bytesWritten = 0;
  #turnBytes = 0;
  #turns = 0;
  #vainTurns = 0;

  /** `fd` is /dev/fuse, mounted, nonblocking; `wakeFd` an eventfd that `stop` signals. Both stay the caller's. */
  constructor(fd: number, wakeFd: number, options: SessionOptions) {
    this.#fd = fd;
    this.#wakeFd = wakeFd;
    this.#fs = options.fs;
    this.#options = options;
    const readsOf = () => this.#reads;
    this.notifier = new Notifier({
      write: (message, length) => libc.write_elsewhere(fd, message, length),
      after: (ms, callback) => void options.clock.after(ms, callback, true),
      now: () => options.clock.monotonic(),
      knownInodes: () => this.#inodes.keys(),
      isKnown: (ino) => this.#inodes.has(ino),
      isBeingRead: (ino, reads) => this.#isBeingRead(ino, reads),
      get reads() {
        return readsOf();
      },
    });
    this.#fs.attach(this.notifier);
  }

  stats(): SessionStats {
    const requests: Record<string, number> = {};
    this.#counts.forEach((count, op) => {
      if (count > 0) requests[opcodeName(op)] = count;
    });
    return {
      requests,
      errors: this.#errors,
      interrupted: this.#interrupted,
      bytesRead: this.#bytesRead,
      bytesWritten: this.#bytesWritten,
      inodes: this.#inodes.size,
      inodeTableBytes: this.#inodes.bytes,
      inFlight: this.#pending.size,
      passthrough: this.#backing?.through ?? 0,
      openDirectories: this.#directories.size,
      notifications: this.notifier.stats(),
      kernelMinor: this.#minor,
    };
  }

  /** Resolves when no request waits for the filesystem. */
  idle(): Promise<void> {
    if (this.#pending.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  /** Ends `run` without waiting for the unmount; users of the mount get ENOTCONN once the descriptor is closed. */
  stop(): void {
    this.#stopped = true;
    const one = new Uint8Array(8);
    one[0] = 1;
    libc.write(this.#wakeFd, one, 8);
  }

  /** Serves until the filesystem is unmounted (or `stop`). */
  async run(): Promise<void> {
    const pollSet = new Uint8Array(16);
    const words = new Int32Array(pollSet.buffer);
    words[0] = this.#fd;
    words[1] = POLLIN;
    words[2] = this.#wakeFd;
    words[3] = POLLIN;
    let alive = true;
    while (alive) {
      await libc.poll(pollSet, 2n, -1);
      alive = !this.#stopped && this.#drain(false);
      // Most late answers need only a few microtasks: look for the next request right after them, without asking the
      // kernel to wake us. Bounded, so that timers and sockets get their turn.
      for (let round = 0; alive && round < LATE_ROUNDS && this.#pending.size > 0; round++) {
        const answered = this.#answeredLate;
        for (let i = 0; i < MICROTASKS && this.#pending.size > 0; i++) await null;
        if (this.#answeredLate === answered) break;
        alive = !this.#stopped && this.#drain(true);
      }
    }
    await this.#end();
  }

  async #end(): Promise<void> {
    for (const pending of this.#pending.values()) if (!pending.answered) this.#cancel(pending, Errno.ENOTCONN);
    this.#stopSweep?.();
    this.#stopSweep = null;
    // Notifications may wait in the kernel for answers, and who waits there holds up the end of this process.
    let closed = false;
    const closing = this.notifier.close().then(() => {
      closed = true;
    });
    while (!closed && this.#refuse()) await Promise.race([closing, this.#options.clock.sleep(REFUSE_MS)]);
    await closing;
    await this.#destroy();
    // What settles from now on must not write to a descriptor number that may be another's soon.
    this.#fd = -1;
  }

  #destroy(): Promise<void> {
    this.#destroyed ??= (async () => {
      try {
        await this.#fs.destroy();
      } catch (error) {
        this.#options.onError(error, "destroy", 0);
      }
    })();
    return this.#destroyed;
  }

  /** Answers everything that waits with ENOTCONN, as the kernel will once the descriptor is closed. False: unmounted. */
  #refuse(): boolean {
    for (;;) {
      const length = libc.read(this.#fd, this.#in8, this.#in8.length);
      if (length < 0) {
        const code = errno();
        if (code === Errno.ENOENT || code === Errno.EINTR) continue;
        return code === Errno.EAGAIN;
      }
      const op = this.#in32[1] ?? 0;
      if (op === Opcode.FORGET || op === Opcode.BATCH_FORGET || op === Opcode.INTERRUPT) continue;
      this.#lo = this.#in32[2] ?? 0;
      this.#hi = this.#in32[3] ?? 0;
      this.#sendErrno(Errno.ENOTCONN);
    }
  }

  /** Answers what waits, at most a turn's worth. `expectant`: a request is likely to come at once. False: unmounted. */
  #drain(expectant: boolean): boolean {
    this.#turnBytes = 0;
    let spins = 0;
    this.#turns++;
    // Settled promises wait while this spins: not when some are due.
    const maySpin = this.#pending.size === 0 &&
      (this.#vainTurns < SPIN_PATIENCE || this.#turns % SPIN_PATIENCE === 0);
    for (let i = 0; i < TURN_REQUESTS && this.#turnBytes < TURN_BYTES; i++) {
      const length = libc.read(this.#fd, this.#in8, this.#in8.length);
      if (length < 0) {
        const code = errno();
        if (code === Errno.EAGAIN) {
          if ((i === 0 && !expectant) || !maySpin || this.#pending.size > 0) return true;
          if (spins++ >= SPINS) {
            this.#vainTurns++;
            return true;
          }
          i--;
          libc.sched_yield();
          continue;
        }
        // ENOENT: the request was interrupted before it was read. Both: read on.
        if (code === Errno.ENOENT || code === Errno.EINTR) continue;
        if (code === Errno.ENODEV) return false;
        // The garbage collector may run between the call and the look at errno, and leave its own number there: what is
        // not known to be the end is not taken for it.
        if (++this.#oddErrors < ODD_ERRORS) return true;
        this.#options.onError(new Error(`reading requests fails with errno ${code}`), "read", 0);
        return false;
      }
      this.#oddErrors = 0;
      this.#inLength = length;
      if (spins > 0) {
        spins = 0;
        this.#vainTurns = 0;
      }
      this.#handle();
    }
    return true;
  }

  #handle(): void {
    const words = this.#in32;
    const op = words[1] ?? 0;
    const ino = this.#u64(4);
    this.#lo = words[2] ?? 0;
    this.#hi = words[3] ?? 0;
    this.#tick = this.notifier.tick;
    this.#stale = false;
    this.#counts[op < OPCODE_LIMIT ? op : 0] = (this.#counts[op < OPCODE_LIMIT ? op : 0] ?? 0) + 1;
    try {
      this.#dispatch(op, ino);
    } catch (error) {
      this.#fail(error, op, ino);
    }
  }

  // --- reading a request ---

  /** The 32-bit word at index `i` of the request. */
  #u32(i: number): number {
    return this.#in32[i] ?? 0;
  }

  /** The 64-bit number at word `i`; exact below 2^53. */
  #u64(i: number): number {
    const words = this.#in32;
    return (words[i] ?? 0) + (words[i + 1] ?? 0) * TWO32;
  }

  /** The signed 64-bit number at word `i`. */
  #i64(i: number): number {
    return this.#u32(i) + (this.#u32(i + 1) | 0) * TWO32;
  }

  #big(i: number): bigint {
    return BigInt(this.#u32(i)) | (BigInt(this.#u32(i + 1)) << 32n);
  }

  /** The byte after the NUL-terminated string at `start`. */
  #after(start: number): number {
    return this.#in8.indexOf(0, start) + 1;
  }

  #name(start: number): string {
    return decodeName(this.#in8, start, this.#in8.indexOf(0, start));
  }

  #who(): Caller {
    const last = this.#caller;
    const uid = this.#u32(6);
    const gid = this.#u32(7);
    const pid = this.#u32(8);
    if (last.uid === uid && last.gid === gid && last.pid === pid) return last;
    return this.#caller = { uid, gid, pid };
  }

  // --- writing an answer ---

  /** Sends the answer whose payload of `bytes` lies in the output buffer. False: nobody waits for it any more. */
  #send(bytes: number): boolean {
    const out = this.#out32;
    const total = OUT_HEADER + bytes;
    out[0] = total;
    out[1] = 0;
    out[2] = this.#lo;
    out[3] = this.#hi;
    return libc.write(this.#fd, this.#out8, total) === total;
  }

  #sendErrno(code: number): void {
    const out = this.#out32;
    this.#errors++;
    out[0] = OUT_HEADER;
    out[1] = -code;
    out[2] = this.#lo;
    out[3] = this.#hi;
    libc.write(this.#fd, this.#out8, OUT_HEADER);
  }

  #sendEmpty = (): void => {
    this.#send(0);
  };

  /** Any thrown value as an errno. ENOSYS from the filesystem would switch the operation off for the whole mount. */
  #fail(error: unknown, op: number, ino: number): void {
    let code: number = Errno.EIO;
    if (error instanceof FsError) {
      code = error.errno;
      if (code === Errno.ENOSYS) code = Errno.EOPNOTSUPP;
      if (!Number.isInteger(code) || code <= 0 || code > 511) code = Errno.EIO;
    }
    this.#sendErrno(code);
    if (!(error instanceof FsError) || (error.code === "internal" && error.details.errno === undefined)) {
      this.#options.onError(error, opcodeName(op), ino);
    }
  }

  /** Keeps what is needed of the request at hand until `answer` settles. `undo` takes back what nobody will hear of. */
  #later<T>(
    answer: Promise<T>,
    reply: (value: T) => void,
    undo?: (value: T) => void,
    controller?: AbortController,
    waits = false,
  ): void {
    const pending = new Pending(
      this.#lo,
      this.#hi,
      this.#u32(1),
      this.#u64(4),
      this.#u32(8),
      this.notifier.tick,
    );
    if (controller !== undefined) pending.controller = controller;
    pending.waits = waits;
    if (pending.op === Opcode.READ) pending.reads = ++this.#reads;
    const key = pending.lo + pending.hi * TWO32;
    this.#pending.set(key, pending);
    this.#limit(pending);
    answer.then(
      (value) => {
        if (this.#settle(key, pending)) {
          try {
            reply(value);
          } catch (error) {
            this.#fail(error, pending.op, pending.ino);
          }
        } else undo?.(value);
      },
      (error) => {
        if (this.#settle(key, pending)) this.#fail(error, pending.op, pending.ino);
      },
    );
  }

  /** A filesystem that does not answer must not hold its caller for ever, whatever it waits for. */
  #limit(pending: Pending): void {
    if (!READING.has(pending.op) && !(pending.op === Opcode.SETLK && pending.waits)) return;
    const { clock, requestTimeoutMs, readTimeoutMs } = this.#options;
    let limit = pending.op === Opcode.READ ? readTimeoutMs : requestTimeoutMs;
    // Within the time of one request it is noticed that the server is gone, and then the lock is taken here.
    if (pending.op === Opcode.SETLK) limit *= 2;
    if (limit === Infinity) return;
    const now = clock.monotonic();
    if (pending.op === Opcode.READ && (this.#readLate.get(pending.ino) ?? -Infinity) > now) limit = 0;
    pending.deadline = now + limit;
    if (this.#stopSweep !== null) return;
    this.#stopSweep = clock.every(SWEEP_MS, () => {
      const now = clock.monotonic();
      for (const waiting of this.#pending.values()) {
        if (waiting.deadline > now || waiting.answered) continue;
        if (waiting.op === Opcode.READ) this.#readLate.set(waiting.ino, now + AGAIN_MS);
        this.#cancel(waiting, Errno.ETIMEDOUT);
      }
      if (this.#pending.size > 0) return;
      this.#readLate.clear();
      this.#stopSweep?.();
      this.#stopSweep = null;
    });
  }

  /** Makes `pending` the request at hand; false when it was answered already (interrupted). */
  #settle(key: number, pending: Pending): boolean {
    this.#pending.delete(key);
    this.#answeredLate++;
    if (this.#pending.size === 0) { for (const resolve of this.#idle.splice(0)) resolve(); }
    if (pending.answered) return false;
    pending.answered = true;
    if (pending.op === Opcode.READ) this.#readAnswered();
    this.#watched.delete(pending);
    this.#lo = pending.lo;
    this.#hi = pending.hi;
    this.#tick = pending.tick;
    this.#stale = this.notifier.touchedSince(pending.tick, pending.ino);
    return true;
  }

  #isBeingRead(ino: number, reads: number): boolean {
    for (const pending of this.#pending.values()) {
      if (pending.op === Opcode.READ && pending.ino === ino && pending.reads <= reads && !pending.answered) return true;
    }
    return false;
  }

  /** Resolves when the READs of the node that wait now have their answers; null: none waits. */
  #whenRead(ino: number): Promise<void> | null {
    const reads = this.#reads;
    if (!this.#isBeingRead(ino, reads)) return null;
    return new Promise((resolve) => this.#afterReads.push({ ino, reads, resolve }));
  }

  #readAnswered(): void {
    this.notifier.readAnswered();
    if (this.#afterReads.length === 0) return;
    this.#afterReads = this.#afterReads.filter(({ ino, reads, resolve }) => {
      if (this.#isBeingRead(ino, reads)) return true;
      resolve();
      return false;
    });
  }

  #put64(word: number, value: number): void {
    const out = this.#out32;
    out[word] = value;
    out[word + 1] = Math.floor(value / TWO32);
  }

  /** struct fuse_attr at word `w`. */
  #putAttr(w: number, stat: NodeAttr): void {
    const out = this.#out32;
    this.#put64(w, stat.ino);
    this.#put64(w + 2, stat.size);
    this.#put64(w + 4, blocksOf(stat));
    this.#put64(w + 6, stat.atimeSec);
    this.#put64(w + 8, stat.mtimeSec);
    this.#put64(w + 10, stat.ctimeSec);
    out[w + 12] = stat.atimeNsec;
    out[w + 13] = stat.mtimeNsec;
    out[w + 14] = stat.ctimeNsec;
    out[w + 15] = stat.mode;
    if ((stat.mode & SUIDGID) !== 0) this.#sawSuidgid(stat);
    out[w + 16] = stat.nlink;
    out[w + 17] = stat.uid;
    out[w + 18] = stat.gid;
    out[w + 19] = stat.rdev;
    out[w + 20] = PAGE_SIZE;
    out[w + 21] = 0;
  }

  #sawSuidgid(stat: NodeAttr): void {
    if ((stat.mode & S_IFMT) === S_IFREG) this.#suidgid.add(stat.ino);
  }

  /**
   * A write or truncation by a user without CAP_FSETID: the filesystem clears setuid and setgid, but the kernel goes on
   * trusting the mode it knows (fs/fuse/file.c invalidates only size and times), so it is told when there was one.
   */
  #killsSuidgid(ino: number): void {
    if (this.#suidgid.delete(ino)) this.notifier.invalidateInode(ino, false);
  }

  /** struct fuse_entry_out at word `w`. */
  #putEntry(w: number, stat: NodeAttr): void {
    const out = this.#out32;
    const fresh = !this.#stale && !this.notifier.touchedSince(this.#tick, stat.ino);
    this.#put64(w, stat.ino);
    out[w + 2] = 0;
    out[w + 3] = 0;
    out[w + 4] = fresh ? this.#entrySec : 0;
    out[w + 5] = 0;
    out[w + 6] = fresh ? this.#attrSec : 0;
    out[w + 7] = 0;
    out[w + 8] = fresh ? this.#entryNsec : 0;
    out[w + 9] = fresh ? this.#attrNsec : 0;
    this.#putAttr(w + 10, stat);
  }

  /** Sends an answer that gives the kernel a reference on `ino`. */
  #sendReference(bytes: number, ino: number): boolean {
    if (this.#send(bytes)) {
      this.#inodes.add(ino);
      return true;
    }
    this.#unheard(ino);
    return false;
  }

  /** The filesystem has given a reference nobody took. */
  #unheard(ino: number): void {
    if (!this.#inodes.has(ino)) this.#fs.forget(ino);
  }

  #entry = (stat: Stat): void => {
    this.#putEntry(4, stat);
    this.#sendReference(ENTRY_OUT, stat.ino);
  };

  #undoEntry = (stat: Stat): void => this.#unheard(stat.ino);

  #lookup = (stat: Stat | null): void => {
    if (stat !== null) {
      this.#entry(stat);
      return;
    }
    if (this.#stale || !this.#negativeCached) {
      this.#sendErrno(Errno.ENOENT);
      return;
    }
    const out = this.#out32;
    out.fill(0, 4, 4 + ENTRY_OUT / 4);
    out[8] = this.#negativeSec;
    out[12] = this.#negativeNsec;
    this.#send(ENTRY_OUT);
  };

  #undoLookup = (stat: Stat | null): void => {
    if (stat !== null) this.#unheard(stat.ino);
  };

  #attr = (stat: Stat): void => {
    const out = this.#out32;
    out[4] = this.#stale ? 0 : this.#attrSec;
    out[5] = 0;
    out[6] = this.#stale ? 0 : this.#attrNsec;
    out[7] = 0;
    this.#putAttr(8, stat);
    this.#send(ATTR_OUT);
  };

  #statx = (stat: Stat): void => {
    const out = this.#out32;
    out.fill(0, 4, 4 + STATX_OUT / 4);
    out[4] = this.#stale ? 0 : this.#attrSec;
    out[6] = this.#stale ? 0 : this.#attrNsec;
    // struct fuse_statx begins at byte 32 of the payload, word 12.
    out[12] = STATX_MASK;
    out[13] = PAGE_SIZE;
    out[16] = stat.nlink;
    out[17] = stat.uid;
    out[18] = stat.gid;
    out[19] = stat.mode;
    this.#put64(20, stat.ino);
    this.#put64(22, stat.size);
    this.#put64(24, blocksOf(stat));
    this.#put64(28, stat.atimeSec);
    out[30] = stat.atimeNsec;
    this.#put64(32, stat.btimeSec);
    out[34] = stat.btimeNsec;
    this.#put64(36, stat.ctimeSec);
    out[38] = stat.ctimeNsec;
    this.#put64(40, stat.mtimeSec);
    out[42] = stat.mtimeNsec;
    // new_encode_dev: 12 bits of major above the low 8 of minor, the rest of minor on top.
    out[44] = (stat.rdev & 0xfff00) >>> 8;
    out[45] = (stat.rdev & 0xff) | ((stat.rdev >>> 12) & 0xfff00);
    this.#send(STATX_OUT);
  };

  /** Sends `bytes` as they are. */
  #bytes = (bytes: Uint8Array): void => {
    this.#out8.set(bytes, OUT_HEADER);
    this.#send(bytes.length);
  };

  #statfs = (info: StatFs): void => {
    const out = this.#out32;
    out.fill(0, 4, 4 + STATFS_OUT / 4);
    this.#put64(4, Math.floor(info.total / PAGE_SIZE));
    this.#put64(6, Math.floor(info.free / PAGE_SIZE));
    this.#put64(8, Math.floor(info.free / PAGE_SIZE));
    this.#put64(10, info.files);
    this.#put64(12, info.freeFiles);
    out[14] = PAGE_SIZE;
    out[15] = 255;
    out[16] = PAGE_SIZE;
    this.#send(STATFS_OUT);
  };

  /** struct fuse_open_out at word `w`. */
  #putOpen(w: number, ino: number, open: OpenResult): void {
    const out = this.#out32;
    let answer = 0;
    let backingId = 0;
    const mode = this.#backing?.open(ino, open.fh, open.backing);
    if (mode?.kind === "through") {
      answer |= OpenFlag.PASSTHROUGH;
      backingId = mode.id;
    } else {
      if (mode?.kind === "direct") {
        answer |= OpenFlag.DIRECT_IO | OpenFlag.PASSTHROUGH;
        backingId = mode.id;
      } else if (open.directIo === true) answer |= OpenFlag.DIRECT_IO;
      else if (open.keepCache) answer |= OpenFlag.KEEP_CACHE;
    }
    if (open.noFlush === true) answer |= OpenFlag.NOFLUSH;
    this.#put64(w, open.fh);
    out[w + 2] = answer;
    out[w + 3] = backingId;
  }

  #open(open: OpenResult, ino: number, kill: boolean): void {
    this.#putOpen(4, ino, open);
    if (!this.#send(OPEN_OUT)) {
      this.#backing?.release(open.fh);
      this.#fs.release(ino, open.fh, 0n, false);
    }
    if (kill) this.#killsSuidgid(ino);
  }

  #create = (created: { stat: Stat; open: OpenResult }): void => {
    this.#putEntry(4, created.stat);
    this.#putOpen(4 + ENTRY_OUT / 4, created.stat.ino, created.open);
    if (this.#send(ENTRY_OUT + OPEN_OUT)) this.#inodes.add(created.stat.ino);
    else this.#undoCreate(created);
  };

  #undoCreate = (created: { stat: Stat; open: OpenResult }): void => {
    this.#backing?.release(created.open.fh);
    this.#fs.release(created.stat.ino, created.open.fh, 0n, false);
    this.#unheard(created.stat.ino);
  };

  /** READ from a buffer of the filesystem's: copied when small, else sent from where it lies. */
  #data = (data: Uint8Array): void => {
    this.#bytesRead += data.length;
    if (data.length < WRITEV_BYTES || !(data.buffer instanceof ArrayBuffer)) {
      this.#bytes(data);
      return;
    }
    const out = this.#out32;
    const total = OUT_HEADER + data.length;
    out[0] = total;
    out[1] = 0;
    out[2] = this.#lo;
    out[3] = this.#hi;
    const vector = this.#vector;
    vector[0] = this.#out8Address;
    vector[1] = BigInt(OUT_HEADER);
    vector[2] = addressOf(data as Uint8Array<ArrayBuffer>);
    vector[3] = BigInt(data.length);
    libc.writev(this.#fd, this.#vector8, 2);
  };

  #written = (count: number): void => {
    const out = this.#out32;
    this.#bytesWritten += count;
    out[4] = count;
    out[5] = 0;
    this.#send(8);
  };

  #number = (value: number): void => {
    this.#put64(4, value);
    this.#send(8);
  };

  /** GETXATTR and LISTXATTR: the length alone when `room` is 0, ERANGE when it doesn't fit. */
  #sized(value: Uint8Array, room: number): void {
    if (room === 0) {
      const out = this.#out32;
      out[4] = value.length;
      out[5] = 0;
      this.#send(8);
    } else if (value.length > room) this.#sendErrno(Errno.ERANGE);
    else this.#bytes(value);
  }

  #nameList(names: string[], room: number): void {
    const parts = names.map(encodeName);
    const list = new Uint8Array(parts.reduce((sum, part) => sum + part.length + 1, 0));
    let at = 0;
    for (const part of parts) {
      list.set(part, at);
      at += part.length + 1;
    }
    this.#sized(list, room);
  }

  #lockAnswer = (lock: LockRequest | null): void => {
    const out = this.#out32;
    out.fill(0, 4, 10);
    if (lock === null) out[8] = F_UNLCK;
    else {
      this.#put64(4, lock.start);
      if (lock.end >= Number.MAX_SAFE_INTEGER) {
        out[6] = 0xffffffff;
        out[7] = 0x7fffffff;
      } else this.#put64(6, lock.end);
      out[8] = lock.type === "read" ? F_RDLCK : F_WRLCK;
      out[9] = lock.pid;
    }
    this.#send(24);
  };

  // --- requests ---

  #dispatch(op: number, ino: number): void {
    const fs = this.#fs;
    switch (op) {
      case Opcode.LOOKUP: {
        const answer = fs.lookup(ino, this.#name(IN_HEADER), this.#who());
        this.notifier.lookedUp(ino);
        if (answer instanceof Promise) this.#later(answer, this.#lookup, this.#undoLookup);
        else this.#lookup(answer);
        return;
      }
      case Opcode.FORGET:
        this.#forget(ino, this.#u64(10));
        return;
      case Opcode.BATCH_FORGET: {
        const count = this.#u32(10);
        const words = new Uint32Array(this.#in8.buffer, this.#in8.byteOffset + IN_HEADER + 8, count * 4);
        for (let i = 0; i < words.length; i += 4) {
          this.#forget(
            (words[i] ?? 0) + (words[i + 1] ?? 0) * TWO32,
            (words[i + 2] ?? 0) + (words[i + 3] ?? 0) * TWO32,
          );
        }
        return;
      }
      case Opcode.GETATTR: {
        const fh = (this.#u32(10) & GETATTR_FH) !== 0 ? this.#u64(12) : undefined;
        const answer = fs.getattr(ino, fh);
        if (answer instanceof Promise) this.#later(answer, this.#attr);
        else this.#attr(answer);
        return;
      }
      case Opcode.STATX: {
        const fh = (this.#u32(10) & GETATTR_FH) !== 0 ? this.#u64(12) : undefined;
        const answer = fs.getattr(ino, fh);
        if (answer instanceof Promise) this.#later(answer, this.#statx);
        else this.#statx(answer);
        return;
      }
      case Opcode.SETATTR: {
        const fh = (this.#u32(10) & AttrFlag.FH) !== 0 ? this.#u64(12) : undefined;
        const change = this.#attrChange();
        const who = this.#who();
        const controller = new AbortController();
        const set = () => fs.setattr(ino, change, fh, who);
        const answer = change.size === undefined ? set() : this.#afterReaders(ino, set, controller.signal);
        if (answer instanceof Promise) this.#later(answer, this.#attr, undefined, controller);
        else this.#attr(answer);
        return;
      }
      case Opcode.READLINK: {
        const answer = fs.readlink(ino);
        if (answer instanceof Promise) this.#later(answer, (target) => this.#bytes(encodeName(target)));
        else this.#bytes(encodeName(answer));
        return;
      }
      case Opcode.SYMLINK: {
        const name = this.#name(IN_HEADER);
        const target = this.#name(this.#after(IN_HEADER));
        this.#made(fs.symlink(ino, name, target, this.#who()));
        return;
      }
      case Opcode.MKNOD:
        this.#made(fs.mknod(ino, this.#name(56), this.#u32(10), this.#u32(11), this.#who()));
        return;
      case Opcode.MKDIR:
        this.#made(fs.mkdir(ino, this.#name(48), this.#u32(10) & 0o7777, this.#who()));
        return;
      case Opcode.LINK:
        this.#made(fs.link(this.#u64(10), ino, this.#name(48), this.#who()));
        return;
      case Opcode.UNLINK:
        this.#finish(fs.unlink(ino, this.#name(IN_HEADER), this.#who()));
        return;
      case Opcode.RMDIR:
        this.#finish(fs.rmdir(ino, this.#name(IN_HEADER), this.#who()));
        return;
      case Opcode.RENAME:
        this.#finish(
          fs.rename(ino, this.#name(48), this.#u64(10), this.#name(this.#after(48)), 0, this.#who()),
        );
        return;
      case Opcode.RENAME2: {
        const flags = this.#u32(12);
        if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) !== 0) {
          this.#sendErrno(Errno.EINVAL);
          return;
        }
        this.#finish(
          fs.rename(ino, this.#name(56), this.#u64(10), this.#name(this.#after(56)), flags, this.#who()),
        );
        return;
      }
      case Opcode.OPEN:
        this.#openFile(ino);
        return;
      case Opcode.CREATE: {
        const flags = this.#u32(10);
        this.#created(fs.create(ino, this.#name(56), this.#u32(11) & 0o7777, flags, this.#who()));
        return;
      }
      case Opcode.TMPFILE: {
        if (fs.tmpfile === undefined) break;
        const flags = this.#u32(10);
        this.#created(fs.tmpfile(ino, this.#u32(11) & 0o7777, flags, this.#who()));
        return;
      }
      case Opcode.READ:
        this.#inodes.markPages(ino);
        this.#readFile(ino);
        return;
      case Opcode.WRITE:
        this.#inodes.markPages(ino);
        this.#writeFile(ino);
        return;
      case Opcode.FLUSH:
        this.#finish(fs.flush(ino, this.#u64(10), this.#big(14)));
        return;
      case Opcode.FSYNC:
        this.#finish(fs.fsync(ino, this.#u64(10), (this.#u32(12) & FSYNC_FDATASYNC) !== 0));
        return;
      case Opcode.RELEASE:
        this.#backing?.release(this.#u64(10));
        fs.release(ino, this.#u64(10), this.#big(14), (this.#u32(13) & RELEASE_FLOCK_UNLOCK) !== 0);
        this.#send(0);
        return;
      case Opcode.OPENDIR:
        this.#openDirectory(ino);
        return;
      case Opcode.READDIR:
        this.#readDirectory(false);
        return;
      case Opcode.READDIRPLUS:
        this.#readDirectory(true);
        return;
      case Opcode.RELEASEDIR:
        this.#directories.delete(this.#u64(10));
        this.#send(0);
        return;
      case Opcode.FSYNCDIR:
        this.#finish(fs.fsyncdir(ino));
        return;
      case Opcode.STATFS: {
        const answer = fs.statfs();
        if (answer instanceof Promise) this.#later(answer, this.#statfs);
        else this.#statfs(answer);
        return;
      }
      case Opcode.GETXATTR: {
        const room = this.#u32(10);
        const answer = fs.getxattr(ino, this.#name(48));
        if (answer instanceof Promise) this.#later(answer, (value) => this.#sized(value, room));
        else this.#sized(answer, room);
        return;
      }
      case Opcode.LISTXATTR: {
        const room = this.#u32(10);
        const answer = fs.listxattr(ino, this.#who());
        if (answer instanceof Promise) this.#later(answer, (names) => this.#nameList(names, room));
        else this.#nameList(answer, room);
        return;
      }
      case Opcode.SETXATTR: {
        const start = this.#after(48);
        const value = this.#in8.slice(start, start + this.#u32(10));
        this.#finish(fs.setxattr(ino, this.#name(48), value, this.#u32(11)));
        return;
      }
      case Opcode.REMOVEXATTR:
        this.#finish(fs.removexattr(ino, this.#name(IN_HEADER)));
        return;
      case Opcode.FALLOCATE:
        if (fs.fallocate === undefined) break;
        this.#finish(fs.fallocate(ino, this.#u64(10), this.#u32(16), this.#u64(12), this.#u64(14), this.#who()));
        return;
      case Opcode.LSEEK: {
        if (fs.lseek === undefined) break;
        const answer = fs.lseek(ino, this.#u64(10), this.#i64(12), this.#u32(14));
        if (answer instanceof Promise) this.#later(answer, this.#number);
        else this.#number(answer);
        return;
      }
      case Opcode.COPY_FILE_RANGE:
      case Opcode.COPY_FILE_RANGE_64:
        if (fs.copyFileRange === undefined) break;
        this.#copyRange(ino, op);
        return;
      case Opcode.GETLK: {
        if (fs.getlk === undefined) break;
        const answer = fs.getlk(ino, this.#u64(10), this.#lock());
        if (answer instanceof Promise) this.#later(answer, this.#lockAnswer);
        else this.#lockAnswer(answer);
        return;
      }
      case Opcode.SETLK:
      case Opcode.SETLKW: {
        if (fs.setlk === undefined) break;
        this.#setLock(ino, op === Opcode.SETLKW);
        return;
      }
      case Opcode.SYNCFS:
        if (fs.syncfs === undefined) break;
        this.#finish(fs.syncfs());
        return;
      case Opcode.ACCESS:
        this.#send(0);
        return;
      case Opcode.INTERRUPT:
        this.#interrupt(this.#u64(10));
        return;
      case Opcode.INIT:
        this.#init();
        return;
      case Opcode.DESTROY:
        this.#later(this.#destroy(), this.#sendEmpty);
        return;
      case Opcode.NOTIFY_REPLY:
        return;
      default:
    }
    this.#sendErrno(Errno.ENOSYS);
  }

  /** An operation that makes or names a node. */
  #made(answer: Awaitable<Stat>): void {
    if (answer instanceof Promise) this.#later(answer, this.#entry, this.#undoEntry);
    else this.#entry(answer);
  }

  /** An operation without a result. */
  #finish(answer: Awaitable<void>): void {
    if (answer instanceof Promise) this.#later(answer, this.#sendEmpty);
    else this.#send(0);
  }

  #created(answer: Awaitable<{ stat: Stat; open: OpenResult }>): void {
    if (answer instanceof Promise) this.#later(answer, this.#create, this.#undoCreate);
    else this.#create(answer);
  }

  #forget(ino: number, count: number): void {
    if (!this.#inodes.drop(ino, count)) return;
    this.#suidgid.delete(ino);
    this.#fs.forget(ino);
  }

  #attrChange(): AttrChange {
    const valid = this.#u32(10);
    const change: AttrChange = {};
    if ((valid & AttrFlag.MODE) !== 0) change.mode = this.#u32(27) & 0o7777;
    if ((valid & AttrFlag.UID) !== 0) change.uid = this.#u32(29);
    if ((valid & AttrFlag.GID) !== 0) change.gid = this.#u32(30);
    if ((valid & AttrFlag.SIZE) !== 0) change.size = this.#u64(14);
    if ((valid & AttrFlag.ATIME_NOW) !== 0) change.atime = "now";
    else if ((valid & AttrFlag.ATIME) !== 0) change.atime = { sec: this.#i64(18), nsec: this.#u32(24) };
    if ((valid & AttrFlag.MTIME_NOW) !== 0) change.mtime = "now";
    else if ((valid & AttrFlag.MTIME) !== 0) change.mtime = { sec: this.#i64(20), nsec: this.#u32(25) };
    if ((valid & AttrFlag.CTIME) !== 0) change.ctime = { sec: this.#i64(22), nsec: this.#u32(26) };
    if ((valid & AttrFlag.KILL_SUIDGID) !== 0) change.killSuidgid = true;
    return change;
  }

  #openFile(ino: number): void {
    const flags = this.#u32(10);
    const who = this.#who();
    const undo = (open: OpenResult) => this.#fs.release(ino, open.fh, 0n, false);
    if ((flags & O_TRUNC) !== 0) {
      const kill = (this.#u32(11) & OPEN_KILL_SUIDGID) !== 0;
      const controller = new AbortController();
      const open = () => this.#fs.open(ino, flags, who, kill, controller.signal);
      const answer = this.#afterReaders(ino, open, controller.signal);
      if (answer instanceof Promise) this.#later(answer, (opened) => this.#open(opened, ino, kill), undo, controller);
      else this.#open(answer, ino, kill);
      return;
    }
    const tick = this.#tick;
    const answer = this.#fs.open(ino, flags, who, false);
    const fresh = answer instanceof Promise
      ? answer.then((open) => this.#freshPages(open, ino, tick))
      : this.#freshPages(answer, ino, tick);
    if (fresh instanceof Promise) this.#later(fresh, (open) => this.#open(open, ino, false), undo);
    else this.#open(fresh, ino, false);
  }

  /**
   * What shortens a file is done when those who were reading it have their answers: until then the kernel has their pages
   * locked, and after our answer it waits for those where nothing ends it (truncate_pagecache). Here it can be interrupted.
   */
  #afterReaders<T>(ino: number, change: () => Awaitable<T>, signal: AbortSignal): Awaitable<T> {
    const read = this.#whenRead(ino);
    if (read === null) return change();
    return read.then(() => {
      signal.throwIfAborted();
      return change();
    });
  }

  /**
   * Without FOPEN_KEEP_CACHE the kernel drops the file's pages inside of open(2) (fuse_open, fs/fuse/file.c), where it waits
   * for those that another process is reading, and nothing ends that wait, not even SIGKILL. So old pages and attributes go
   * before the answer, for which the caller waits so that it can be interrupted, and the kernel is told to keep what it has by then.
   */
  #freshPages(open: OpenResult, ino: number, tick: number): Awaitable<OpenResult> {
    if (open.backing !== undefined || open.directIo === true) return open;
    const kept = open.keepCache ? open : { ...open, keepCache: true };
    // Without pages too: a size of nothing that the kernel still takes for new is the end of the file.
    const stale = this.notifier.touchedSince(tick, ino) || this.notifier.isBehind(ino);
    // One that is under way has been heard of.
    const heard = open.onlyToHear === true && this.#isBeingRead(ino, this.#reads);
    if (!stale && (open.keepCache || heard || !this.#inodes.mayHavePages(ino))) return kept;
    return this.notifier.dropPages(ino).then((dropped) => dropped ? kept : { ...open, keepCache: false });
  }

  #readFile(ino: number): void {
    const size = Math.min(this.#u32(14), MAX_TRANSFER);
    const into = this.#out8.subarray(OUT_HEADER, OUT_HEADER + size);
    this.#turnBytes += size;
    const answer = this.#fs.read(ino, this.#u64(10), this.#u64(12), into);
    if (typeof answer !== "number") {
      this.#later(answer, this.#data);
      return;
    }
    this.#bytesRead += answer;
    this.#send(answer);
  }

  #writeFile(ino: number): void {
    const size = this.#u32(14);
    const flags = this.#u32(15);
    const fromCache = (flags & WRITE_CACHE) !== 0;
    const killSuidgid = (flags & WRITE_KILL_SUIDGID) !== 0;
    this.#turnBytes += size;
    const answer = this.#fs.write(
      ino,
      this.#u64(10),
      this.#u64(12),
      this.#in8.subarray(WRITE_DATA, WRITE_DATA + size),
      {
        killSuidgid,
        fromCache,
        append: !fromCache && (this.#u32(18) & O_APPEND) !== 0,
      },
    );
    if (answer instanceof Promise) {
      this.#later(answer, (count) => {
        this.#written(count);
        if (killSuidgid) this.#killsSuidgid(ino);
      });
      return;
    }
    this.#written(answer);
    if (killSuidgid) this.#killsSuidgid(ino);
  }

  #copyRange(ino: number, op: number): void {
    const copy = this.#fs.copyFileRange?.(
      ino,
      this.#u64(10),
      this.#u64(12),
      this.#u64(14),
      this.#u64(16),
      this.#u64(18),
      // 47 answers with 32 bits: ask for no more than it can say.
      op === Opcode.COPY_FILE_RANGE ? Math.min(this.#u64(20), 0x7ffff000) : this.#u64(20),
      this.#who(),
    );
    if (copy instanceof Promise) this.#later(copy, this.#number);
    else if (copy !== undefined) this.#number(copy);
  }

  #lock(): LockRequest {
    const type = this.#u32(18);
    const endHigh = this.#u32(17);
    return {
      owner: this.#big(12),
      start: this.#u64(14),
      end: endHigh >= 0x200000 ? Number.MAX_SAFE_INTEGER : this.#u64(16),
      type: type === F_RDLCK ? "read" : type === F_WRLCK ? "write" : "unlock",
      pid: this.#u32(19),
      flock: (this.#u32(20) & LK_FLOCK) !== 0,
    };
  }

  #setLock(ino: number, wait: boolean): void {
    const fs = this.#fs;
    const fh = this.#u64(10);
    const lock = this.#lock();
    const controller = new AbortController();
    const answer = fs.setlk?.(ino, fh, lock, wait, controller.signal);
    if (!(answer instanceof Promise)) {
      this.#send(0);
      return;
    }
    // Got after all by a caller that was told EINTR: given back.
    const undo = () => {
      if (lock.type === "unlock") return;
      const undone = fs.setlk?.(ino, fh, { ...lock, type: "unlock" }, false, new AbortController().signal);
      if (undone instanceof Promise) undone.catch((error) => this.#options.onError(error, "SETLK", ino));
    };
    // Until it is taken nothing has happened; what unlocks is done all the same.
    const taking = lock.type !== "unlock";
    this.#later(answer, this.#sendEmpty, undo, taking ? controller : undefined, taking);
  }

  #openDirectory(ino: number): void {
    const fh = this.#nextDirectory++;
    const { keepCache, counts } = this.#fs.opendir?.(ino, this.#u32(10)) ?? { keepCache: true, counts: true };
    const fs = this.#fs;
    const readEntries = (after: string | null, limit: number) => fs.readdir(ino, after, limit, counts);
    const readNames = (after: string | null, limit: number) =>
      fs.readnames === undefined ? readEntries(after, limit) : fs.readnames(ino, after, limit, counts);
    this.#directories.set(fh, new Directory(ino, readNames, readEntries));
    const out = this.#out32;
    this.#put64(4, fh);
    out[6] = this.#fs.cacheDirs ? OpenFlag.CACHE_DIR | (keepCache ? OpenFlag.KEEP_CACHE : 0) : 0;
    out[7] = 0;
    if (!this.#send(OPEN_OUT)) this.#directories.delete(fh);
  }

  #readDirectory(plus: boolean): void {
    const directory = this.#directories.get(this.#u64(10));
    if (directory === undefined) {
      this.#sendErrno(Errno.EBADF);
      return;
    }
    const offset = this.#u64(12);
    const room = Math.min(this.#u32(14), MAX_TRANSFER);
    if (offset === 0) directory.rewind();
    const first = Math.max(offset - 2, 0);
    const loaded = plus ? directory.loadNow(first, Math.ceil(room / SHORTEST_PLUS)) : directory.load(first);
    if (loaded instanceof Promise) this.#later(loaded, () => this.#records(directory, offset, room, plus));
    else this.#records(directory, offset, room, plus);
  }

  /**
   * Records from cookie `offset` on: 0 is `.`, 1 is `..`, 2 + i is entry i. An answer ends with the page at hand, so
   * that the kernel, which asks again for what the caller's buffer had no room for, finds it still there.
   */
  #records(directory: Directory, offset: number, room: number, plus: boolean): void {
    const end = OUT_HEADER + room;
    const sent: number[] = [];
    let at = OUT_HEADER;
    let cookie = offset;
    for (;;) {
      let name: string;
      let attr: NodeAttr | null = null;
      let ino = UNKNOWN_INO;
      let mode = S_IFDIR;
      if (cookie === 0) {
        name = ".";
        ino = directory.ino;
      } else if (cookie === 1) {
        name = "..";
        ino = this.#fs.parentOf?.(directory.ino) ?? UNKNOWN_INO;
      } else {
        const entry = plus ? directory.entry(cookie - 2) : undefined;
        const named = plus ? entry : directory.name(cookie - 2);
        if (named === undefined) break;
        name = named.name;
        attr = entry?.stat ?? null;
        ({ ino, mode } = named.stat);
      }
      const next = this.#record(at, end, name, ino, mode, attr, cookie + 1, plus);
      if (next === 0) break;
      if (attr !== null) sent.push(ino);
      at = next;
      cookie++;
    }
    if (this.#send(at - OUT_HEADER)) {
      for (const ino of sent) this.#inodes.add(ino);
    }
  }

  /** struct fuse_dirent, or fuse_direntplus, at byte `at`; where the next one begins, 0 when there is no room. */
  #record(
    at: number,
    end: number,
    name: string,
    ino: number,
    mode: number,
    attr: NodeAttr | null,
    cookie: number,
    plus: boolean,
  ): number {
    const out = this.#out32;
    const bytes = this.#out8;
    const dirent = plus ? at + ENTRY_OUT : at;
    let length = name.length;
    let w = dirent + DIRENT;
    if (w + length > end) return 0;
    let ascii = true;
    for (let i = 0; i < length; i++) {
      const unit = name.charCodeAt(i);
      if (unit >= 0x80) {
        ascii = false;
        break;
      }
      bytes[w + i] = unit;
    }
    if (!ascii) {
      const encoded = encodeName(name);
      length = encoded.length;
      if (w + length > end) return 0;
      bytes.set(encoded, w);
    }
    const next = (w + length + 7) & ~7;
    if (next > end) return 0;
    for (w += length; w < next; w++) bytes[w] = 0;
    if (plus) {
      // Node 0: the kernel takes no reference (`.` and `..`).
      if (attr === null) out.fill(0, at >> 2, (at + ENTRY_OUT) >> 2);
      else this.#putEntry(at >> 2, attr);
    }
    const d = dirent >> 2;
    this.#put64(d, ino);
    this.#put64(d + 2, cookie);
    out[d + 4] = length;
    out[d + 5] = (mode >>> 12) & 15;
    return next;
  }

  /**
   * The caller of a waiting request took a signal. When it dies, or is asked to end while it only reads, it gets EINTR
   * at once; a change that is under way is answered when it is done, or the caller would think it didn't happen.
   */
  #interrupt(unique: number): void {
    const pending = this.#pending.get(unique);
    if (pending === undefined || pending.answered) return;
    if (pending.waits || interruption(pending.pid, pending.op)) {
      this.#cancel(pending);
      return;
    }
    this.#watched.add(pending);
    if (this.#watched.size === 1) this.#watch();
  }

  #cancel(pending: Pending, code: number = Errno.EINTR): void {
    pending.answered = true;
    if (pending.op === Opcode.READ) this.#readAnswered();
    if (code === Errno.EINTR) this.#interrupted++;
    this.#lo = pending.lo;
    this.#hi = pending.hi;
    this.#sendErrno(code);
    pending.controller?.abort(new FsError("cancelled", "the caller was interrupted"));
  }

  #watch(): void {
    this.#options.clock.after(RECHECK_MS, () => {
      for (const pending of this.#watched) {
        if (!pending.answered && !interruption(pending.pid, pending.op)) continue;
        this.#watched.delete(pending);
        if (!pending.answered) this.#cancel(pending);
      }
      if (this.#watched.size > 0) this.#watch();
    }, true);
  }

  #init(): void {
    const out = this.#out32;
    const major = this.#u32(10);
    const minor = this.#u32(11);
    const offered = this.#u32(13);
    const offered2 = (offered & InitFlag.INIT_EXT) !== 0 ? this.#u32(14) : 0;
    out.fill(0, 4, 4 + INIT_OUT / 4);
    if (major > FUSE_MAJOR) {
      // The kernel asks again with the major we name.
      out[4] = FUSE_MAJOR;
      this.#send(INIT_OUT);
      return;
    }
    if (major < FUSE_MAJOR || minor < 28) {
      this.#sendErrno(71); // EPROTO: older than Linux 4.20
      this.#options.onError(
        new FsError(
          "not_supported",
          `the kernel speaks FUSE ${major}.${minor}; AnyFS needs 7.28 (Linux 4.20) or newer`,
        ),
        "INIT",
        0,
      );
      return;
    }
    let wanted = WANTED_FLAGS;
    if (this.#fs.setlk !== undefined && this.#fs.getlk !== undefined) {
      wanted |= InitFlag.POSIX_LOCKS | InitFlag.FLOCK_LOCKS;
    }
    this.#minor = Math.min(minor, FUSE_MINOR);
    this.#setTimeouts();
    out[4] = FUSE_MAJOR;
    out[5] = this.#minor;
    out[6] = this.#u32(12);
    out[7] = wanted & offered;
    out[8] = MAX_BACKGROUND | ((MAX_BACKGROUND * 3 / 4) << 16);
    out[9] = MAX_TRANSFER;
    out[10] = 1;
    out[11] = MAX_TRANSFER / PAGE_SIZE;
    if (this.#options.passthrough === true && (offered2 & INIT2_PASSTHROUGH) !== 0) {
      out[12] = INIT2_PASSTHROUGH;
      out[13] = 1;
      this.#backing = new BackingFiles(this.#fd);
    }
    this.#send(INIT_OUT);
    this.notifier.start(this.#minor, (offered2 & INIT2_HAS_EXPIRE_ONLY) !== 0);
    this.#options.onReady();
  }

  #setTimeouts(): void {
    const bound = this.#minor >= MINOR_INC_EPOCH ? Infinity : OLD_KERNEL_TIMEOUT_SEC;
    [this.#entrySec, this.#entryNsec] = splitSeconds(Math.min(this.#options.entryTimeoutSec, bound));
    [this.#attrSec, this.#attrNsec] = splitSeconds(this.#options.attrTimeoutSec);
    [this.#negativeSec, this.#negativeNsec] = splitSeconds(Math.min(this.#options.negativeTimeoutSec, bound));
    this.#negativeCached = this.#negativeSec > 0 || this.#negativeNsec > 0;
  }
}
