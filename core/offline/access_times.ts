/**
 * When files were read last, by Linux' rule `relatime` (relatime_need_update in fs/inode.c): a read counts when the time of
 * the last one is not after the last change, or a day old. Like `lazytime` they wait in memory and travel together: a
 * crash may lose those of the last minute, nothing else depends on them.
 */
import type { Stat } from "../fs/stat.ts";
import type { Op, Time } from "../index/ops.ts";
import type { Clock } from "../platform/clock.ts";

const DAY_SECONDS = 86_400;
/** They are sent after so long, milliseconds, or when there are so many. */
const WAIT_MS = 60_000;
const MAX_WAITING = 10_000;
/** Sent in one record. */
const RECORD_OPS = 500;

export class AccessTimes {
  readonly #clock: Clock;
  readonly #now: () => Time;
  readonly #send: (ops: readonly Op[]) => void;
  readonly #waiting = new Map<number, Time>();
  #cancel: () => void = () => {};

  /** `now` is the time of changes too. `send` may throw: then they wait on, and when there are too many they are forgotten. */
  constructor(clock: Clock, now: () => Time, send: (ops: readonly Op[]) => void) {
    this.#clock = clock;
    this.#now = now;
    this.#send = send;
  }

  /** Would a read of the node now count? */
  isDue(node: Stat): boolean {
    const { atimeSec, atimeNsec, mtimeSec, mtimeNsec, ctimeSec, ctimeNsec } = this.seen(node);
    const before = (sec: number, nsec: number) => atimeSec < sec || (atimeSec === sec && atimeNsec <= nsec);
    return before(mtimeSec, mtimeNsec) || before(ctimeSec, ctimeNsec) ||
      this.#clock.now() / 1000 - atimeSec >= DAY_SECONDS;
  }
  /** The node is read now. */
  read(node: Stat): void {
    if (!this.isDue(node)) return;
    if (this.#waiting.size === 0) this.#cancel = this.#clock.after(WAIT_MS, () => this.flush(), true);
    this.#waiting.set(node.ino, this.#now());
    if (this.#waiting.size >= MAX_WAITING) this.flush();
  }
  get empty(): boolean {
    return this.#waiting.size === 0;
  }
  /** The node's attributes with the time of its last read. */
  seen<T extends Pick<Stat, "ino" | "atimeSec" | "atimeNsec">>(node: T): T {
    const time = this.#waiting.size === 0 ? undefined : this.#waiting.get(node.ino);
    return time === undefined ? node : { ...node, atimeSec: time.sec, atimeNsec: time.nsec };
  }
  /** The time was set otherwise. */
  forget(ino: number): void {
    this.#waiting.delete(ino);
  }
  /** Sends all that wait. */
  flush(): void {
    this.#cancel();
    const all = [...this.#waiting];
    try {
      for (let at = 0; at < all.length; at += RECORD_OPS) {
        const some = all.slice(at, at + RECORD_OPS);
        this.#send(some.map(([ino, atime]) => ({ t: "atime", ino, atime })));
        for (const [ino] of some) this.#waiting.delete(ino);
      }
    } catch {
      // No room on the disk, or no connection yet.
      if (this.#waiting.size >= MAX_WAITING) this.#waiting.clear();
      else this.#cancel = this.#clock.after(WAIT_MS, () => this.flush(), true);
    }
  }
  close(): void {
    this.#cancel();
  }
}
