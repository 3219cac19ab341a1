/** Health: the circuit breaker of one tier. After a few failures in a row nobody asks it any more until a check succeeds. */
import { type FsError, toFsError } from "../fs/error.ts";
import type { ObjectStore } from "../fs/object_store.ts";
import type { Clock } from "../platform/clock.ts";

export interface HealthOptions {
  readonly store: ObjectStore;
  readonly clock: Clock;
  /** Failures in a row that open the circuit. @default 3 */
  readonly threshold?: number;
  /** Time between checks, milliseconds. @default 30000 */
  readonly intervalMs?: number;
  /** Longest a check may take, milliseconds. @default 10000 */
  readonly checkTimeoutMs?: number;
  /** The circuit opened (false) or closed again (true). */
  readonly onChange?: (healthy: boolean) => void;
}

/** Failures of the place itself; others (a missing or broken object, a full disk) say nothing about its next answer. */
function isOutage(error: FsError): boolean {
  return error.code === "unavailable" || error.code === "timeout" || error.code === "access_denied" ||
    error.code === "internal";
}

export class Health {
  readonly #o: HealthOptions;
  #failures = 0;
  #open = false;
  #lastError: FsError | null = null;
  #stop: () => void = () => {};
  #checking: Promise<boolean> | null = null;

  constructor(options: HealthOptions) {
    this.#o = options;
  }

  /** Is it worth asking? */
  get healthy(): boolean {
    return !this.#open;
  }
  /** The last failure while it lasts; null once the tier has answered again. */
  get lastError(): FsError | null {
    return this.#lastError;
  }

  /** Begins regular checks. */
  start(): void {
    this.#stop = this.#o.clock.every(this.#o.intervalMs ?? 30_000, () => void this.check());
  }
  stop(): void {
    this.#stop();
  }

  succeeded(): void {
    this.#failures = 0;
    this.#lastError = null;
    if (!this.#open) return;
    this.#open = false;
    this.#o.onChange?.(true);
  }

  /** Takes a failure into account; a cancelled call or a missing object is none. */
  failed(error: unknown): void {
    const failure = toFsError(error);
    if (!isOutage(failure)) return;
    this.#lastError = failure;
    this.#failures++;
    if (this.#open || this.#failures < (this.#o.threshold ?? 3)) return;
    this.#open = true;
    this.#o.onChange?.(false);
  }

  /** Asks the store whether it works (once at a time); true when it does. */
  check(): Promise<boolean> {
    this.#checking ??= this.#check().finally(() => this.#checking = null);
    return this.#checking;
  }
  async #check(): Promise<boolean> {
    const { store, clock } = this.#o;
    try {
      // A working tier is asked something cheap; one that failed has to prove that it stores, too.
      await within(
        clock,
        this.#o.checkTimeoutMs ?? 10_000,
        `check ${store.name}`,
        async (signal) => {
          if (this.#open) await store.check({ signal });
          else await store.head("check/ping", { signal });
        },
      );
      this.succeeded();
      return true;
    } catch (error) {
      this.failed(error);
      return false;
    }
  }
}

/**
 * Runs `work` with a signal that aborts after `ms` or with `parent`. Also a call that ignores its signal is left behind
 * then. Throws timeout, or what the parent was aborted with.
 */
export function within<T>(
  clock: Clock,
  ms: number,
  what: string,
  work: (signal: AbortSignal) => Promise<T>,
  parent?: AbortSignal,
): Promise<T> {
  const own = new AbortController();
  return new Promise<T>((resolve, reject) => {
    const onParent = () => end(() => reject(toFsError(parent?.reason)), parent?.reason);
    const stopTimer = clock.after(ms, () => {
      const error = new DOMException(`${what}: no answer for ${ms / 1000} s`, "TimeoutError");
      end(() => reject(toFsError(error, { operation: what })), error);
    });
    const end = (then: () => void, reason?: unknown) => {
      stopTimer();
      parent?.removeEventListener("abort", onParent);
      then();
      if (reason !== undefined) own.abort(reason);
    };
    if (parent?.aborted) {
      onParent();
      return;
    }
    parent?.addEventListener("abort", onParent, { once: true });
    work(own.signal).then((value) => end(() => resolve(value)), (error) => end(() => reject(toFsError(error))));
  });
}
