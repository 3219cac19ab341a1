/**
 * MountLocks: the locks of this mount's programs. The server arbitrates between mounts; a file whose locks this mount owns,
 * and every file while there is no connection, it decides here. What it then believes to hold it claims at the next
 * connection; what it has lost it says, and answers with EIO. docs/decisions/0105-locks-between-mounts.md
 */
import { Errno, errorFromErrno, FsError, toFsError } from "../fs/error.ts";
import type { Awaitable, LockRequest } from "../fs/inode_fs.ts";
import { LockArbiter, type LockTicket } from "../locks/lock_arbiter.ts";
import { type FileLock, LOCK_END, type LockFamily, type LockRange, LockTable } from "../locks/lock_table.ts";
import type { Clock } from "../platform/clock.ts";
import type { LockAnswer, ServerLink, WireLock } from "../remote/protocol.ts";

export interface MountLocksOptions {
  readonly link: ServerLink;
  readonly clock: Clock;
  readonly log: (message: string) => void;
  /** Journals what programs wrote to the file; `visible` resolves when everybody sees that and all that was done before. */
  readonly settle: (ino: number) => Promise<{ visible: Promise<void> }>;
  /** Are there changes of this mount that are not visible to everybody? */
  readonly isBehind: () => boolean;
  /** Has the file changes of this mount that are not visible to everybody? */
  readonly isDirty: (ino: number) => boolean;
  /** Resolves when this mount, and its kernel, know the file as the server does. */
  readonly refresh: (ino: number) => Promise<void>;
  /** No other device is connected. */
  readonly alone: () => boolean;
}

/** How long unlock and close wait at most until the others may lock; it happens either way. */
const UNLOCK_WAIT_MS = 2000;
/** The server may hold an answer back for its grace time. */
const CALL_MS = 90_000;
/** A file that was owned without a lock for so long is given back. */
const IDLE_MS = 10_000;
const IDLE_LOOK_MS = 5_000;
const EVERYTHING: LockRange = { start: 0, end: LOCK_END };
const FAMILIES: readonly LockFamily[] = ["posix", "flock"];

/** A file some program of this mount uses locks of. */
interface LockedFile {
  /** What is sent to the server about it goes in this order. */
  line: Promise<void>;
  inLine: number;
  /** Requests the server has not answered. */
  asking: number;
  /** It was asked back while the answer to one of them was on its way. */
  recalled: boolean;
  /** It is being given back. */
  returning: boolean;
  /** A look at what was released waits in the line. */
  reconciling: Promise<void> | null;
  lastUse: number;
}
type Use = { readonly ino: number; readonly family: LockFamily; readonly owner: string };
const useKey = ({ ino, family, owner }: Use): string => `${ino} ${family} ${owner}`;

export class MountLocks {
  readonly #o: MountLocksOptions;
  /** What this mount's programs hold, by their own knowledge. */
  readonly #here = new LockArbiter();
  /** What the server gave and has not got back. */
  readonly #there = new LockTable();
  readonly #own = new Set<number>();
  readonly #files = new Map<number, LockedFile>();
  /** Programs that wait here, not at the server. */
  readonly #waiting = new Map<number, Set<() => void>>();
  readonly #lost = new Map<string, Use>();
  readonly #lostHandles = new Set<number>();
  readonly #uses = new Map<number, Map<string, Use>>();
  /** The run of the server that `#there` and `#own` are of. */
  #run: string | null = null;
  #up = false;
  #cut = Promise.withResolvers<void>();
  #claiming: Promise<void> | null = null;
  #generation = 0;
  #nextTicket = 1;
  readonly #stopIdle: () => void;

  constructor(options: MountLocksOptions) {
    this.#o = options;
    options.link.onPush("recall", ({ ino }) => void this.#giveBack(ino));
    this.#stopIdle = options.clock.every(IDLE_LOOK_MS, () => this.#giveBackIdle());
  }
  close(): void {
    this.#stopIdle();
  }

  // --- what the kernel asks ---

  /** F_GETLK. */
  getlk(ino: number, request: LockRequest): Awaitable<LockRequest | null> {
    const lock = fileLock(ino, request);
    const by = this.#here.test(lock);
    if (by !== null || this.#decidesHere(ino)) return by === null ? null : found(request, by);
    return this.#test(lock, request);
  }
  async #test(lock: FileLock, request: LockRequest): Promise<LockRequest | null> {
    await this.#claiming;
    if (this.#decidesHere(lock.ino)) return this.getlk(lock.ino, request);
    try {
      await this.#turn(lock.ino, () => Promise.resolve());
      const answer = await this.#o.link.call("testLock", wireLock(lock), { timeoutMs: CALL_MS });
      if (answer.state !== "taken") return null;
      return found(request, answer.by ?? { start: 0, end: LOCK_END, type: "write", pid: 0 });
    } catch (error) {
      if (!isCut(error)) throw error;
      const by = this.#here.test(lock);
      return by === null ? null : found(request, by);
    }
  }

  /** Throws errno EAGAIN (taken), EDEADLK, ENOLCK, EIO (lost before), and `cancelled` when `signal` aborts a wait. */
  setlk(ino: number, fh: number, request: LockRequest, wait: boolean, signal: AbortSignal): Awaitable<void> {
    const use: Use = { ino, family: request.flock ? "flock" : "posix", owner: ownerOf(request.owner) };
    if (request.type === "unlock") return this.#unlock(use, request.flock ? EVERYTHING : rangeOf(request));
    if (this.#lost.size > 0 && this.#lost.has(useKey(use))) throw lostLock();
    const uses = this.#uses.get(fh) ?? new Map<string, Use>();
    this.#uses.set(fh, uses.set(useKey(use), use));
    const lock = fileLock(ino, request);
    if (this.#decidesHere(ino) && (!wait || this.#here.test(lock) === null)) {
      this.#file(ino).lastUse = this.#o.clock.monotonic();
      return check(this.#here.acquire(lock, false));
    }
    return this.#lock(lock, wait, signal);
  }
  /**
   * May a descriptor that only reads close without FLUSH? While nobody here has had to do with locks on the file: else a
   * close through any descriptor drops the process's fcntl locks. Locks taken through it later go at its RELEASE.
   */
  indifferent(ino: number): boolean {
    return !this.#files.has(ino) && this.#lost.size === 0;
  }
  /** FLUSH: a process closed a descriptor of the file, so its fcntl locks on it go (fcntl(2)). Undefined: there were none. */
  closed(ino: number, owner: bigint): Promise<void> | undefined {
    if (!this.#files.has(ino) && this.#lost.size === 0) return;
    return this.#end({ ino, family: "posix", owner: ownerOf(owner) });
  }
  /** RELEASE: nobody has the open file any more, so its flock and OFD locks go. The kernel unlocks neither by itself. */
  released(fh: number): void {
    const uses = this.#uses.get(fh);
    this.#lostHandles.delete(fh);
    if (uses === undefined) return;
    this.#uses.delete(fh);
    for (const use of uses.values()) void this.#end(use);
  }
  #end(use: Use): Promise<void> | undefined {
    this.#forgive(use);
    const done = this.#unlock(use, EVERYTHING);
    return done instanceof Promise ? done : undefined;
  }
  /** Did a lock taken through this open file get lost? Until it is unlocked or closed, writing through it fails. */
  isLost(fh: number): boolean {
    return this.#lostHandles.size > 0 && this.#lostHandles.has(fh);
  }
  /** For people. */
  status(): { files: number; owned: number; lost: number } {
    return { files: this.#here.table.size, owned: this.#own.size, lost: this.#lost.size };
  }

  // --- taking ---

  /** Does the server leave this file's locks to us now? */
  #decidesHere(ino: number): boolean {
    if (!this.#up) return this.#claiming === null;
    return this.#own.has(ino) && this.#files.get(ino)?.returning !== true;
  }
  #file(ino: number): LockedFile {
    let file = this.#files.get(ino);
    if (file === undefined) {
      file = {
        line: Promise.resolve(),
        inLine: 0,
        asking: 0,
        recalled: false,
        returning: false,
        reconciling: null,
        lastUse: 0,
      };
      this.#files.set(ino, file);
    }
    return file;
  }
  /** Forgets a file nothing is known of any more. */
  #tidy(ino: number): void {
    const file = this.#files.get(ino);
    if (file === undefined || file.inLine > 0 || file.asking > 0 || this.#own.has(ino)) return;
    if (FAMILIES.some((f) => this.#here.table.of(ino, f).length > 0 || this.#there.of(ino, f).length > 0)) return;
    this.#files.delete(ino);
  }
  /** Runs `work` when what was to be sent about the file before has been sent. */
  async #turn<T>(ino: number, work: (file: LockedFile) => Promise<T>): Promise<T> {
    const file = this.#file(ino);
    const before = file.line;
    const mine = Promise.withResolvers<void>();
    file.line = mine.promise;
    file.inLine++;
    try {
      await before;
      return await work(file);
    } finally {
      file.inLine--;
      mine.resolve();
      this.#tidy(ino);
    }
  }

  async #lock(lock: FileLock, wait: boolean, signal: AbortSignal): Promise<void> {
    for (;;) {
      if (signal.aborted) throw cancelled();
      if (this.#lost.has(useKey(lock))) throw lostLock();
      if (this.#claiming !== null) await this.#claiming;
      if (this.#decidesHere(lock.ino)) {
        if (await this.#lockHere(lock, wait, signal)) return;
        continue;
      }
      if (!wait && this.#here.test(lock) !== null) {
        // A flock that can't be converted is given up (flock(2)).
        if (lock.family === "flock") await this.#unlock(lock, EVERYTHING);
        throw taken();
      }
      try {
        await this.#lockThere(lock, wait, signal);
        return;
      } catch (error) {
        // Cut off: from here on this mount decides, and claims what it gave.
        if (!isCut(error)) throw error;
        // The news of the loss comes with the failures, in one turn.
        if (this.#up) await this.#o.clock.sleep(50);
      }
    }
  }
  /** False: it is not ours to decide any more. */
  async #lockHere(lock: FileLock, wait: boolean, signal: AbortSignal): Promise<boolean> {
    this.#file(lock.ino).lastUse = this.#o.clock.monotonic();
    const ticket = this.#here.acquire(lock, wait);
    if (!("answer" in ticket)) {
      check(ticket);
      return true;
    }
    const kicks = this.#waiting.get(lock.ino) ?? new Set();
    const kick = () => ticket.cancel();
    this.#waiting.set(lock.ino, kicks.add(kick));
    signal.addEventListener("abort", kick, { once: true });
    const outcome = await ticket.answer;
    signal.removeEventListener("abort", kick);
    kicks.delete(kick);
    if (kicks.size === 0) this.#waiting.delete(lock.ino);
    if (outcome.state === "cancelled") return false;
    check(outcome);
    return true;
  }
  #kick(ino: number): void {
    for (const kick of [...this.#waiting.get(ino) ?? []]) kick();
  }

  async #lockThere(lock: FileLock, wait: boolean, signal: AbortSignal): Promise<void> {
    // What this mount wrote before is not to be told after what others do once they are asked.
    if (this.#o.isDirty(lock.ino)) await this.#within(this.#o.settle(lock.ino).then(({ visible }) => visible));
    const { answer, later } = await this.#turn(lock.ino, async (file) => {
      if (this.#decidesHere(lock.ino)) return { answer: null, later: null };
      // With nothing else in the air about the file, the server may leave it to us; what waits must not wait there then.
      if (file.asking === 0) {
        const first = await this.#ask(file, lock, false, true, signal);
        if (first.state !== "taken" || !wait) return { answer: first, later: null };
      }
      return { answer: null, later: this.#ask(file, lock, wait, false, signal) };
    });
    if (answer === null && later === null) return await this.#lock(lock, wait, signal);
    const outcome = answer ?? await later;
    if (outcome === null) return;
    if (outcome.state !== "granted" && lock.family === "flock") {
      this.#here.table.clear(lock.ino, "flock", lock.owner);
      this.#there.clear(lock.ino, "flock", lock.owner);
    }
    if (outcome.state === "taken") throw taken();
    if (outcome.state === "deadlock") throw deadlock();
    if (outcome.state === "cancelled") throw cancelled();
    await this.#o.refresh(lock.ino).catch((error) => {
      if (!isCut(error)) this.#o.log(`reading inode ${lock.ino} anew: ${toFsError(error).message}`);
    });
  }
  async #ask(
    file: LockedFile,
    lock: FileLock,
    wait: boolean,
    mayOwn: boolean,
    signal: AbortSignal,
  ): Promise<LockAnswer> {
    const ticket = this.#nextTicket++;
    const { link } = this.#o;
    file.asking++;
    const giveUp = () => void link.call("cancelLock", { ticket }).catch(() => {});
    try {
      const asked = link.call("lock", { ...wireLock(lock), wait, ticket, mayOwn }, {
        timeoutMs: wait ? Infinity : CALL_MS,
      });
      if (signal.aborted) giveUp();
      else signal.addEventListener("abort", giveUp, { once: true });
      const answer = await asked;
      if (answer.state === "granted") {
        this.#there.put(lock.ino, lock.family, lock);
        if (answer.own) {
          this.#own.add(lock.ino);
          if (file.recalled) void this.#giveBack(lock.ino);
        }
        if (signal.aborted) {
          // The caller was told EINTR and got it all the same: what was held before stands, the server gets back the rest.
          if (!this.#own.has(lock.ino)) void this.#reconcile(lock.ino);
          throw cancelled();
        }
        // In one step with the news that the file is ours: the next program is judged by it.
        this.#here.table.put(lock.ino, lock.family, lock);
        file.lastUse = this.#o.clock.monotonic();
      }
      return answer;
    } finally {
      signal.removeEventListener("abort", giveUp);
      file.asking--;
      if (file.asking === 0) file.recalled = false;
      this.#tidy(lock.ino);
    }
  }

  // --- releasing ---

  #unlock(use: Use, range: LockRange): Awaitable<void> {
    const { ino, family, owner } = use;
    if (this.#lost.size > 0 && this.#lost.has(useKey(use))) {
      this.#forgive(use);
      throw lostLock();
    }
    this.#here.release(ino, family, owner, range);
    if (this.#decidesHere(ino)) {
      if (!this.#up) this.#tidy(ino);
      return;
    }
    if (!this.#there.holds(ino, family, owner)) return;
    const done = this.#reconcile(ino);
    return this.#o.alone() ? undefined : this.#within(done);
  }
  #within(promise: Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      const stop = this.#o.clock.after(UNLOCK_WAIT_MS, resolve, true);
      promise.then(resolve, reject).finally(stop);
    });
  }

  /** Gives back to the server what nobody here holds any more, once everybody can see what was written under it. */
  #reconcile(ino: number): Promise<void> {
    const file = this.#file(ino);
    if (file.reconciling !== null) return file.reconciling;
    const done = this.#turn(ino, async () => {
      file.reconciling = null;
      // What is released from here on may have been used to write more: its own turn comes.
      const over = this.#surplus(ino);
      if (over.length === 0 || !await this.#allVisible(ino)) return;
      const { link } = this.#o;
      await Promise.all(over.map(async ({ lock, type }) => {
        const { flock, owner, start, end } = wireLock(lock);
        if (type === null) {
          await link.call("unlock", { ino, flock, owner, start, end });
          this.#there.clear(ino, lock.family, owner, lock);
        } else {
          const ticket = this.#nextTicket++;
          await link.call("lock", { ...wireLock({ ...lock, type }), wait: false, ticket, mayOwn: false });
          this.#there.put(ino, lock.family, { ...lock, type });
        }
      }));
    }).catch((error) => {
      // Cut off: the next claim goes on with it.
      if (!isCut(error)) this.#o.log(`giving back locks of inode ${ino}: ${toFsError(error).message}`);
    });
    file.reconciling = done;
    return done;
  }
  /** Ranges the server holds for programs of ours that hold less there by now (`type`). */
  #surplus(ino: number): { lock: FileLock; type: "read" | null }[] {
    const out: { lock: FileLock; type: "read" | null }[] = [];
    for (const family of FAMILIES) {
      for (const held of this.#there.of(ino, family)) {
        for (const { start, end, type } of this.#here.table.segments(ino, family, held.owner, held)) {
          if (type === held.type || type === "write") continue;
          out.push({ lock: { ...held, start, end, ino, family }, type });
        }
      }
    }
    return out;
  }
  /** False: the connection was lost first. */
  async #allVisible(ino: number): Promise<boolean> {
    if (!this.#up) return false;
    const generation = this.#generation;
    const { visible } = await this.#o.settle(ino);
    await Promise.race([visible, this.#cut.promise]);
    return this.#up && generation === this.#generation;
  }

  /** Another mount wants a lock of a file this one owns; or nobody here has used it for long. */
  async #giveBack(ino: number): Promise<void> {
    if (this.#claiming !== null) await this.#claiming;
    // Asked twice, it is given once: what is held then is the server's to know already.
    if (!this.#up) return;
    if (!this.#own.has(ino)) {
      // It may overtake the answer that leaves the file to us.
      const asked = this.#files.get(ino);
      if (asked !== undefined && asked.asking > 0) asked.recalled = true;
      return;
    }
    const file = this.#file(ino);
    if (file.returning) return;
    file.returning = true;
    // From here on nobody is given anything that the server does not know of.
    this.#kick(ino);
    try {
      await this.#turn(ino, async () => {
        // What is released while it becomes visible may have been used to write more: it is given back after this.
        const locks: FileLock[] = FAMILIES.flatMap((family) =>
          this.#here.table.of(ino, family).map((lock) => ({ ...lock, ino, family }))
        );
        if (!await this.#allVisible(ino)) return;
        const given = this.#o.link.call("giveBackLocks", { ino, locks: locks.map(wireLock) });
        this.#own.delete(ino);
        for (const family of FAMILIES) {
          for (const held of [...this.#there.of(ino, family)]) this.#there.clear(ino, family, held.owner);
        }
        for (const lock of locks) this.#there.put(ino, lock.family, lock);
        file.returning = false;
        if (this.#surplus(ino).length > 0) void this.#reconcile(ino);
        await given;
      });
    } catch (error) {
      if (!isCut(error)) this.#o.log(`giving back inode ${ino}: ${toFsError(error).message}`);
    } finally {
      file.returning = false;
      this.#tidy(ino);
    }
  }
  #giveBackIdle(): void {
    // It would wait for all that is on its way, and who wants a lock here meanwhile would wait with it.
    if (this.#o.isBehind()) return;
    const before = this.#o.clock.monotonic() - IDLE_MS;
    for (const ino of this.#own) {
      if ((this.#files.get(ino)?.lastUse ?? 0) > before) continue;
      if (FAMILIES.every((family) => this.#here.table.of(ino, family).length === 0)) void this.#giveBack(ino);
    }
  }

  // --- the connection ---

  /** Connected: says what this mount holds before anything else is asked for. */
  up(run: string): void {
    const generation = ++this.#generation;
    const claiming = this.#claim(run, generation).catch((error) => {
      if (generation !== this.#generation || isCut(error)) return;
      this.#o.log(`claiming locks: ${toFsError(error).message}; trying again`);
      this.#o.clock.after(1000, () => generation === this.#generation && this.up(run), true);
    }).finally(() => {
      if (this.#claiming === claiming) this.#claiming = null;
    });
    this.#claiming = claiming;
    // Who waits here asks the server, once it knows what is held here: nobody is given more meanwhile.
    for (const ino of [...this.#waiting.keys()]) this.#kick(ino);
  }
  down(): void {
    this.#generation++;
    this.#up = false;
    this.#claiming = null;
    this.#cut.resolve();
  }
  async #claim(run: string, generation: number): Promise<void> {
    const locks: FileLock[] = [];
    const fresh: boolean[] = [];
    for (const lock of this.#there.all()) {
      if (this.#own.has(lock.ino)) continue;
      locks.push(lock);
      fresh.push(false);
    }
    for (const lock of this.#here.table.all()) {
      const owned = this.#own.has(lock.ino);
      const known = this.#there.segments(lock.ino, lock.family, lock.owner, lock);
      if (!owned && known.every(({ type }) => type === lock.type || type === "write")) continue;
      locks.push(lock);
      fresh.push(!owned);
    }
    const answer = await this.#o.link.call("claimLocks", {
      run: this.#run,
      locks: locks.map((lock, i) => ({ ...wireLock(lock), fresh: fresh[i] ?? false })),
      own: [...this.#own],
    }, { timeoutMs: CALL_MS });
    if (generation !== this.#generation) return;
    this.#run = run;
    const lost = new Set(answer.lost);
    this.#own.clear();
    for (const ino of answer.own) this.#own.add(ino);
    for (const held of [...this.#there.all()]) this.#there.clear(held.ino, held.family, held.owner);
    locks.forEach((lock, i) => {
      if (!lost.has(i)) this.#there.put(lock.ino, lock.family, lock);
    });
    for (const i of lost) {
      const lock = locks[i];
      if (lock !== undefined) this.#lose(lock, fresh[i] === true);
    }
    this.#cut = Promise.withResolvers();
    this.#claiming = null;
    this.#up = true;
    for (const ino of new Set([...this.#there.all()].map((lock) => lock.ino))) {
      if (!this.#own.has(ino)) void this.#reconcile(ino);
    }
  }

  #lose(lock: FileLock, fresh: boolean): void {
    const { ino, family, owner, pid } = lock;
    // Released here already: what was written under it is judged as any change that others were faster with.
    if (!this.#here.table.holds(ino, family, owner)) return;
    const use: Use = { ino, family, owner };
    this.#here.release(ino, family, owner);
    this.#lost.set(useKey(use), use);
    for (const [fh, uses] of this.#uses) if (uses.has(useKey(use))) this.#lostHandles.add(fh);
    this.#o.log(
      `conflict: process ${pid} has lost its ${family === "flock" ? "flock" : "record"} lock on inode ${ino}: ` +
        (fresh
          ? "it was taken without a connection, and another device has one"
          : "the connection was away for too long, and another device took it") +
        "; it gets EIO until it unlocks or closes the file",
    );
  }
  #forgive(use: Use): void {
    if (this.#lost.size === 0 || !this.#lost.delete(useKey(use))) return;
    for (const [fh, uses] of this.#uses) {
      if (uses.has(useKey(use)) && ![...uses.keys()].some((key) => this.#lost.has(key))) this.#lostHandles.delete(fh);
    }
  }
}

const ownerOf = (owner: bigint): string => owner.toString(16);
function rangeOf({ start, end }: LockRange): LockRange {
  return { start: Math.min(start, LOCK_END), end: Math.min(end, LOCK_END) };
}
function fileLock(ino: number, request: LockRequest): FileLock {
  return {
    ino,
    family: request.flock ? "flock" : "posix",
    owner: ownerOf(request.owner),
    type: request.type === "read" ? "read" : "write",
    pid: request.pid,
    ...(request.flock ? EVERYTHING : rangeOf(request)),
  };
}
function wireLock({ ino, family, owner, type, start, end, pid }: FileLock): WireLock {
  return { ino, flock: family === "flock", owner, type, start, end, pid };
}
function found(request: LockRequest, by: LockRange & { type: "read" | "write"; pid: number }): LockRequest {
  return { ...request, type: by.type, start: by.start, end: by.end, pid: by.pid };
}
/** Nothing when granted; throws what the answer is. */
function check(ticket: LockTicket): void {
  if (!("state" in ticket)) throw new FsError("internal", "a lock that is not waited for waits");
  const outcome = ticket;
  if (outcome.state === "taken") throw taken();
  if (outcome.state === "deadlock") throw deadlock();
}
/** Did the connection end before the answer? */
function isCut(error: unknown): boolean {
  return error instanceof FsError && error.code === "unavailable";
}
const taken = () => errorFromErrno(Errno.EAGAIN, "another program has a lock there", { operation: "lock" });
const deadlock = () => errorFromErrno(Errno.EDEADLK, "waiting for this lock would never end", { operation: "lock" });
const cancelled = () => new FsError("cancelled", "the wait for a lock was interrupted", { operation: "lock" });
const lostLock = () =>
  errorFromErrno(Errno.EIO, "a lock on this file was lost; unlock or close the file", { operation: "lock" });
