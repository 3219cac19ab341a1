/** BusyTable: which clients hold newer content of which files, so that others can wait for it before they open one. */
import type { Clock } from "../platform/clock.ts";

/** What a client announced before its connection ended stands for so long: it may be back in a moment, and say so again. */
const GRACE_MS = 3_000;
/** The longest wait for another client's content. */
export const MAX_WAIT_MS = 60_000;
/** Files one client may announce. */
export const MAX_ANNOUNCED = 100_000;

export class BusyTable {
  readonly #clock: Clock;
  readonly #onChange: (ino: number, pending: boolean, device: number) => void;
  readonly #holders = new Map<number, Set<number>>();
  readonly #byDevice = new Map<number, Set<number>>();
  /** What devices announced on connections that have ended, and did not say again since: a set for each of those. */
  readonly #doubted = new Map<number, Set<Set<number>>>();
  readonly #timers = new Set<() => void>();
  readonly #waiters = new Map<number, Set<() => void>>();

  /** `onChange` is told when `device` begins to hold newer content of a file (true), and when nobody does any more. */
  constructor(clock: Clock, onChange: (ino: number, pending: boolean, device: number) => void) {
    this.#clock = clock;
    this.#onChange = onChange;
  }

  /** Does a device other than this one hold newer content of the file? */
  isBusy(ino: number, device: number): boolean {
    for (const holder of this.#holders.get(ino) ?? []) if (holder !== device) return true;
    return false;
  }
  /** All files that others than this device hold. */
  *busyFor(device: number): Generator<number> {
    for (const ino of this.#holders.keys()) if (this.isBusy(ino, device)) yield ino;
  }
  /** Files this device has announced. */
  countOf(device: number): number {
    return this.#byDevice.get(device)?.size ?? 0;
  }

  announce(device: number, ino: number, pending: boolean): void {
    const holders = this.#holders.get(ino) ?? new Set();
    const own = this.#byDevice.get(device) ?? new Set();
    for (const doubted of this.#doubted.get(device) ?? []) doubted.delete(ino);
    if (pending) {
      if (holders.has(device)) return;
      this.#holders.set(ino, holders.add(device));
      this.#byDevice.set(device, own.add(ino));
      this.#onChange(ino, true, device);
      return;
    }
    if (!holders.delete(device)) return;
    own.delete(ino);
    if (own.size === 0) this.#byDevice.delete(device);
    if (holders.size === 0) {
      this.#holders.delete(ino);
      this.#onChange(ino, false, device);
    }
    for (const wake of [...this.#waiters.get(ino) ?? []]) wake();
  }

  /** The device is connected (again), perhaps while an earlier connection of it is still there: it says what still holds. */
  arrived(device: number): void {
    this.#doubt(device);
  }
  /** The device's connection ended. What it holds back can't come now: after a grace time nobody waits for it. */
  left(device: number): void {
    this.#doubt(device);
  }
  /** Nobody waits after a grace time for what the device announced so far, unless it says so again. */
  #doubt(device: number): void {
    const sets = this.#doubted.get(device) ?? new Set();
    const inos = new Set(this.#byDevice.get(device));
    // What is doubted already does not get more time.
    for (const earlier of sets) for (const ino of earlier) inos.delete(ino);
    if (inos.size === 0) return;
    this.#doubted.set(device, sets.add(inos));
    const cancel = this.#clock.after(GRACE_MS, () => {
      this.#timers.delete(cancel);
      sets.delete(inos);
      if (sets.size === 0) this.#doubted.delete(device);
      for (const ino of inos) this.announce(device, ino, false);
    }, true);
    this.#timers.add(cancel);
  }

  /** True when no other device holds newer content of the file, false after the time. */
  wait(ino: number, device: number, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    if (!this.isBusy(ino, device)) return Promise.resolve(true);
    return new Promise((resolve) => {
      const waiters = this.#waiters.get(ino) ?? new Set();
      this.#waiters.set(ino, waiters);
      const end = (delivered: boolean) => {
        stop();
        signal.removeEventListener("abort", giveUp);
        waiters.delete(wake);
        if (waiters.size === 0) this.#waiters.delete(ino);
        resolve(delivered);
      };
      const wake = () => {
        if (!this.isBusy(ino, device)) end(true);
      };
      const giveUp = () => end(false);
      const stop = this.#clock.after(Math.min(timeoutMs, MAX_WAIT_MS), giveUp, true);
      signal.addEventListener("abort", giveUp, { once: true });
      waiters.add(wake);
    });
  }

  close(): void {
    for (const cancel of this.#timers) cancel();
    this.#timers.clear();
  }
}
