/**
 * SharedLocks: the locks of all devices on the server. A device that is alone in using a file's locks *owns* them: it
 * gives and takes locks of that file by itself until another device asks. Nothing is kept over a restart but who may
 * claim his locks again (LockMemory). docs/decisions/0105-locks-between-mounts.md tells why.
 */
import { Errno, errorFromErrno, FsError, toFsError } from "../fs/error.ts";
import { LockArbiter, type LockOutcome } from "../locks/lock_arbiter.ts";
import { type FileLock, LOCK_END, type LockFamily, type LockRange, LockTable } from "../locks/lock_table.ts";
import type { Clock } from "../platform/clock.ts";
import type { Calls, LockAnswer, WireLock } from "./protocol.ts";

/** What has to outlive the server: see `load`. */
export interface LockRuns {
  /** Runs of the server whose locks may be claimed in the grace time after the next start. */
  readonly runs: readonly string[];
  /** Devices that may have some. */
  readonly devices: readonly number[];
}
/** Where that is kept. */
export interface LockMemory {
  load(): Promise<LockRuns>;
  /** On the disk when it resolves. */
  save(runs: LockRuns): Promise<void>;
}

export interface SharedLocksOptions {
  readonly clock: Clock;
  /** Id of this run of the server. */
  readonly run: string;
  /** How long a device's locks outlive its connection, and how long a restarted server waits for its devices. */
  readonly leaseMs: number;
  readonly memory: LockMemory;
  /** Asks a device to give a file back; false: it is not connected. */
  readonly recall: (device: number, ino: number) => boolean;
  readonly log: (message: string) => void;
}

/** How long a request that does not wait for a lock waits for the file to be given back. */
const RECALL_MS = 5_000;
/** After a file had to be given back nobody owns it for so long: two devices that take turns would only pass it about. */
const CONTENDED_MS = 10_000;
/** Requests one device may have waiting, and locks it may hold; beyond: ENOLCK. */
const MAX_WAITING = 4_096;
export const MAX_LOCKS = 65_536;

const FAMILIES: readonly LockFamily[] = ["posix", "flock"];
const familyOf = (flock: boolean): LockFamily => flock ? "flock" : "posix";

/** One device as its locks see it. */
interface LockDevice {
  connected: boolean;
  /** Gone for longer than the lease: its locks stay until somebody wants them. */
  overdue: boolean;
  cancelLease: () => void;
  /** Requests that wait, by the device's own number for each. */
  readonly waiting: Map<number, () => void>;
}

export class SharedLocks {
  readonly #o: SharedLocksOptions;
  readonly #arbiter: LockArbiter;
  readonly #devices = new Map<number, LockDevice>();
  /** Files whose locks one device decides by itself. */
  readonly #owned = new Map<number, number>();
  readonly #givenBack = new Map<number, PromiseWithResolvers<void>>();
  readonly #contended = new Map<number, number>();
  readonly #counts = new Map<number, number>();
  #remembered = new Set<number>();
  #onDisk = new Set<number>();
  #saving: Promise<void> = Promise.resolve();
  #reclaimable: ReadonlySet<string> = new Set();
  /** Devices the grace time waits for; null: it is over. */
  #expected: Set<number> | null = null;
  #graceOver = Promise.withResolvers<void>();
  #stopGrace: () => void = () => {};

  constructor(options: SharedLocksOptions) {
    this.#o = options;
    this.#arbiter = new LockArbiter(
      (owner) => this.#devices.get(deviceOf(owner))?.overdue === true,
      (lock) => this.#tellTaken(deviceOf(lock.owner), lock.ino),
    );
  }

  /** Begins the grace time when an earlier run left locks to be claimed. */
  async start(): Promise<void> {
    const { runs, devices } = await this.#o.memory.load();
    this.#reclaimable = new Set(runs);
    // Should this run end before its grace time does, the next may still be told of what the one before knew.
    await this.#o.memory.save({ runs: [...runs, this.#o.run].slice(-16), devices });
    this.#remembered = new Set(devices);
    this.#onDisk = new Set(devices);
    if (devices.length === 0) {
      await this.#endGrace();
      return;
    }
    this.#expected = new Set(devices);
    this.#stopGrace = this.#o.clock.after(this.#o.leaseMs, () => {
      const missing = [...this.#expected ?? []].join(", ");
      this.#o.log(`locks of devices that did not come back (${missing}) are over`);
      void this.#endGrace();
    }, true);
  }
  async #endGrace(): Promise<void> {
    this.#stopGrace();
    this.#expected = null;
    this.#remembered = new Set([...this.#arbiter.table.all()].map((lock) => deviceOf(lock.owner)));
    for (const device of this.#owned.values()) this.#remembered.add(device);
    this.#onDisk = new Set(this.#remembered);
    try {
      // Only when the disk has it may anybody take what an absent device still believes to hold.
      this.#reclaimable = new Set();
      await this.#save([this.#o.run]);
    } catch (error) {
      this.#o.log(`who may claim locks after a restart can't be written: ${toFsError(error).message}`);
    }
    this.#graceOver.resolve();
  }
  #save(runs: readonly string[]): Promise<void> {
    this.#saving = this.#saving.catch(() => {}).then(() =>
      this.#o.memory.save({ runs, devices: [...this.#remembered] })
    );
    return this.#saving;
  }
  /** Resolves when a restart will know that the device may have locks. */
  async #remember(device: number): Promise<void> {
    if (!this.#remembered.has(device)) {
      this.#remembered.add(device);
      void this.#save([...this.#reclaimable, this.#o.run]).catch((error) =>
        // Its locks hold; only a restart would end them, and it would be told so.
        this.#o.log(`who may claim locks after a restart can't be written: ${toFsError(error).message}`)
      ).finally(() => this.#onDisk.add(device));
    }
    await this.#saving.catch(() => {});
  }

  // --- devices come and go ---

  #device(no: number): LockDevice {
    let device = this.#devices.get(no);
    if (device === undefined) {
      device = { connected: false, overdue: false, cancelLease: () => {}, waiting: new Map() };
      this.#devices.set(no, device);
    }
    return device;
  }
  arrived(no: number): void {
    const device = this.#device(no);
    device.connected = true;
    device.cancelLease();
    device.cancelLease = () => {};
  }
  /** The device's connection ended: its locks stand for the lease time, and after it until somebody wants them. */
  left(no: number): void {
    const device = this.#device(no);
    device.connected = false;
    device.cancelLease();
    device.cancelLease = this.#o.clock.after(this.#o.leaseMs, () => {
      device.overdue = true;
      for (const [ino, owner] of this.#owned) if (owner === no) this.#givenBack.get(ino)?.resolve();
      const files = new Set([...this.#locksOf(no)].map(({ ino }) => ino));
      for (const ino of files) this.#wake(ino);
    }, true);
  }
  *#locksOf(no: number): Generator<FileLock> {
    for (const lock of this.#arbiter.table.all()) if (deviceOf(lock.owner) === no) yield lock;
  }
  #tellTaken(no: number, ino: number): void {
    this.#o.log(`device ${no} was gone for too long: its locks on inode ${ino} are given to who wants them`);
  }
  #wake(ino: number): void {
    for (const family of FAMILIES) this.#arbiter.wake(ino, family);
  }

  /**
   * A device that is connected again says what it believes to hold: locks the server gave it, files it owns, and locks
   * its programs took meanwhile (`fresh`). Answers which it does not hold: all locks of a process on a file, or none.
   */
  async claim(no: number, { run, locks, own }: Calls["claimLocks"]["params"]): Promise<Calls["claimLocks"]["result"]> {
    // Whoever else owns one of the files has to say what it holds before this can be judged.
    const files = new Set([...own, ...locks.map(({ ino }) => ino)]);
    await Promise.all([...files].map((ino) => this.#giveBackBy(ino, no, RECALL_MS, null)));
    const device = this.#device(no);
    const sameRun = run === this.#o.run;
    const known = sameRun || (this.#expected !== null && run !== null && this.#reclaimable.has(run));
    const before = new LockTable();
    for (const lock of [...this.#locksOf(no)]) {
      before.put(lock.ino, lock.family, lock);
      this.#arbiter.table.clear(lock.ino, lock.family, lock.owner);
      files.add(lock.ino);
    }
    this.#counts.set(no, 0);
    device.overdue = false;
    const kept: number[] = [];
    const owned = new Set<number>();
    for (const [ino, owner] of [...this.#owned]) {
      if (owner !== no) continue;
      files.add(ino);
      owned.add(ino);
      if (sameRun && own.includes(ino)) kept.push(ino);
      else this.#disown(ino);
    }
    if (!sameRun && known) {
      for (const ino of own) {
        if (this.#owned.has(ino) || this.#othersHold(ino, no)) continue;
        this.#owned.set(ino, no);
        kept.push(ino);
      }
    }
    const groups = Map.groupBy(locks.keys(), (i) => {
      const lock = locks[i];
      return lock === undefined ? "" : `${lock.ino} ${lock.flock} ${lock.owner}`;
    });
    const lost: number[] = [];
    for (const group of groups.values()) {
      const all = group.flatMap((i) => {
        const lock = locks[i];
        return lock === undefined ? [] : [{ fresh: lock.fresh, lock: fileLock(no, lock) }];
      });
      const holds = all.every(({ fresh, lock }) => {
        if (this.#owned.get(lock.ino) === no) return true;
        if (this.#owned.has(lock.ino)) return false;
        const continuous = sameRun
          ? owned.has(lock.ino) ||
            before.segments(lock.ino, lock.family, lock.owner, lock).every(({ type }) =>
              type === lock.type || type === "write"
            )
          : known;
        return (fresh || continuous) && this.#arbiter.test(lock) === null;
      });
      if (holds) { for (const { lock } of all) this.#arbiter.acquire(lock, false); }
      else lost.push(...group);
    }
    this.#counts.set(no, locks.length - lost.length);
    for (const ino of files) this.#wake(ino);
    // Who asked for it while the device was away still waits.
    for (const ino of kept) if (this.#givenBack.has(ino)) this.#o.recall(no, ino);
    if (locks.length > lost.length || kept.length > 0) await this.#remember(no);
    if (this.#expected?.delete(no) === true && this.#expected.size === 0) await this.#endGrace();
    return { lost: lost.sort((a, b) => a - b), own: kept };
  }

  // --- owning a file's locks ---

  #othersHold(ino: number, no: number): boolean {
    return FAMILIES.some((family) => this.#arbiter.table.of(ino, family).some(({ owner }) => deviceOf(owner) !== no));
  }
  #disown(ino: number): void {
    this.#owned.delete(ino);
    this.#givenBack.get(ino)?.resolve();
    this.#givenBack.delete(ino);
  }
  /** Nobody but `no` owns the file when this resolves true; false: not within `ms` (null: however long it takes). */
  async #giveBackBy(ino: number, no: number, ms: number | null, signal: AbortSignal | null): Promise<boolean> {
    for (;;) {
      const owner = this.#owned.get(ino);
      if (owner === undefined || owner === no) return true;
      const device = this.#device(owner);
      if (device.overdue) {
        for (const family of FAMILIES) {
          for (const held of [...this.#arbiter.table.of(ino, family)]) {
            if (deviceOf(held.owner) === owner) this.#arbiter.table.clear(ino, family, held.owner);
          }
        }
        this.#tellTaken(owner, ino);
        this.#disown(ino);
        continue;
      }
      let given = this.#givenBack.get(ino);
      if (given === undefined) {
        given = Promise.withResolvers();
        this.#givenBack.set(ino, given);
      }
      if (this.#contended.size > 10_000) this.#contended.clear();
      this.#contended.set(ino, this.#o.clock.monotonic() + CONTENDED_MS);
      // One that is away now is asked when it is back, by way of its claim; who can't wait is told that it is taken.
      if (!this.#o.recall(owner, ino) && ms !== null) return false;
      if (!await this.#within(given.promise, ms, signal)) return false;
      if (this.#givenBack.get(ino) === given) this.#givenBack.delete(ino);
    }
  }
  async #within(promise: Promise<void>, ms: number | null, signal: AbortSignal | null): Promise<boolean> {
    const late = Promise.withResolvers<false>();
    const giveUp = () => late.resolve(false);
    const stop = ms === null ? () => {} : this.#o.clock.after(ms, giveUp, true);
    signal?.addEventListener("abort", giveUp, { once: true });
    if (signal?.aborted) giveUp();
    try {
      return await Promise.race([promise.then(() => true as const), late.promise]);
    } finally {
      stop();
      signal?.removeEventListener("abort", giveUp);
    }
  }
  /** May the device decide this file's locks by itself from now on? */
  #mayOwn(ino: number, no: number): boolean {
    if (this.#owned.has(ino) || !this.#device(no).connected || this.#arbiter.isAwaited(ino)) return false;
    const until = this.#contended.get(ino);
    if (until !== undefined) {
      if (until > this.#o.clock.monotonic()) return false;
      this.#contended.delete(ino);
    }
    return !this.#othersHold(ino, no);
  }
  /** The device has delivered what it wrote, and these are its locks of the file now. */
  giveBack(no: number, { ino, locks }: Calls["giveBackLocks"]["params"]): void {
    if (this.#owned.get(ino) !== no) return;
    for (const family of FAMILIES) {
      for (const held of [...this.#arbiter.table.of(ino, family)]) {
        if (deviceOf(held.owner) === no) this.#arbiter.table.clear(ino, family, held.owner);
      }
    }
    for (const lock of locks) {
      if (lock.ino === ino) this.#arbiter.table.put(ino, familyOf(lock.flock), fileLock(no, lock));
    }
    this.#disown(ino);
    this.#wake(ino);
  }

  // --- locks ---

  /** Throws ENOLCK when the device has too many, unavailable when the connection ends meanwhile. */
  async lock(no: number, call: Calls["lock"]["params"], signal: AbortSignal): Promise<LockAnswer> {
    const device = this.#device(no);
    const cancelled = new AbortController();
    const either = AbortSignal.any([signal, cancelled.signal]);
    if (device.waiting.size >= MAX_WAITING) throw tooMany(`requests that wait (${MAX_WAITING})`);
    if ((this.#counts.get(no) ?? 0) >= MAX_LOCKS) {
      // Counted low by what was merged or released: looked at again.
      this.#counts.set(no, [...this.#locksOf(no)].length);
      if ((this.#counts.get(no) ?? 0) >= MAX_LOCKS) throw tooMany(`locks (${MAX_LOCKS})`);
    }
    device.waiting.set(call.ticket, () => cancelled.abort());
    try {
      if (this.#expected !== null) await this.#within(this.#graceOver.promise, null, either);
      for (;;) {
        if (signal.aborted) throw new FsError("unavailable", "the connection has ended", { operation: "lock" });
        if (cancelled.signal.aborted) return answer(no, { state: "cancelled" });
        const owner = this.#owned.get(call.ino);
        if (owner !== undefined && owner !== no) {
          const given = await this.#giveBackBy(call.ino, no, call.wait ? null : RECALL_MS, either);
          if (!given && !call.wait && !either.aborted) return { state: "taken", own: false, by: null };
          continue;
        }
        if (!this.#onDisk.has(no)) {
          await this.#remember(no);
          continue;
        }
        break;
      }
      const ticket = this.#arbiter.acquire(fileLock(no, call), call.wait);
      let outcome: LockOutcome;
      if ("answer" in ticket) {
        const giveUp = () => ticket.cancel();
        either.addEventListener("abort", giveUp, { once: true });
        outcome = await ticket.answer;
        either.removeEventListener("abort", giveUp);
      } else outcome = ticket;
      if (outcome.state !== "granted") return answer(no, outcome);
      this.#counts.set(no, (this.#counts.get(no) ?? 0) + 1);
      const own = call.mayOwn && this.#mayOwn(call.ino, no);
      if (own) this.#owned.set(call.ino, no);
      return { state: "granted", own, by: null };
    } finally {
      device.waiting.delete(call.ticket);
    }
  }
  /** Gives up a `lock` that waits; one that is answered already is not touched. */
  cancel(no: number, ticket: number): void {
    this.#devices.get(no)?.waiting.get(ticket)?.();
  }
  unlock(no: number, { ino, flock, owner, start, end }: Calls["unlock"]["params"]): void {
    this.#arbiter.release(ino, familyOf(flock), ownerKey(no, owner), { start, end });
  }
  async test(no: number, call: WireLock, signal: AbortSignal): Promise<LockAnswer> {
    if (this.#expected !== null) await this.#within(this.#graceOver.promise, null, signal);
    if (!await this.#giveBackBy(call.ino, no, RECALL_MS, signal)) return { state: "taken", own: false, by: null };
    const by = this.#arbiter.test(fileLock(no, call));
    return answer(no, by === null ? { state: "granted" } : { state: "taken", by });
  }

  /** For people: files with locks, files owned by one device, requests that wait. */
  stats(): { files: number; owned: number; waiting: number } {
    return { files: this.#arbiter.table.size, owned: this.#owned.size, waiting: this.#arbiter.waiting };
  }
  close(): void {
    this.#stopGrace();
    for (const device of this.#devices.values()) device.cancelLease();
  }
}

const ownerKey = (device: number, owner: string): string => `${device}:${owner}`;
const deviceOf = (owner: string): number => Number(owner.slice(0, owner.indexOf(":")));
function fileLock(no: number, lock: WireLock & Partial<LockRange>): FileLock {
  const { ino, flock, owner, type, pid } = lock;
  const range = flock ? { start: 0, end: LOCK_END } : { start: lock.start, end: lock.end };
  if (range.end < range.start) throw new FsError("invalid_input", "a lock that ends before it begins");
  return { ino, family: familyOf(flock), owner: ownerKey(no, owner), type, pid, ...range };
}
function answer(no: number, outcome: LockOutcome): LockAnswer {
  if (outcome.state !== "taken") return { state: outcome.state, own: false, by: null };
  const { type, start, end, pid, owner } = outcome.by;
  // A process number means nothing on another machine.
  return { state: "taken", own: false, by: { type, start, end, pid: deviceOf(owner) === no ? pid : 0 } };
}
function tooMany(what: string): FsError {
  return errorFromErrno(Errno.ENOLCK, `this device has too many ${what}`, { operation: "lock" });
}
