/**
 * GroupCommit: many changes, one disk wait. A change is applied (and visible) at once inside an open transaction; the
 * transaction commits after the pack bytes it refers to are on the disk, and is durable when the database's
 * write-ahead file is: then everybody who waits is told. No disk wait happens on the event loop.
 *
 * Order kept for a power cut: pack bytes -> COMMIT (SQLite WAL mode, synchronous=NORMAL) -> fdatasync of the `-wal` file.
 */
import { FsError, toFsError } from "../fs/error.ts";
import type { Database, Statement } from "../platform/sqlite.ts";

/** How long a group waits for more when nobody waits for it, milliseconds. */
const LAZY_MS = 50;

export interface CommitHooks {
  /** The clock's `after`. */
  after(ms: number, callback: () => void): () => void;
  /** Are there pack bytes that are not on the disk yet? */
  hasUnsyncedData(): boolean;
  /** Puts them there. */
  syncData(): Promise<void>;
  /** Puts the database's write-ahead file there. */
  syncLog(): Promise<void>;
  /** Called between two transactions. */
  committed?(): void;
  /** A whole group was rolled back: what was visible is not any more. */
  rolledBack(error: Error): void;
}

interface Waiter {
  resolve(): void;
  reject(error: Error): void;
}

/** A change that is visible, and the promise that it survives. */
export interface Written<T> {
  readonly value: T;
  /** Resolves when a power cut loses nothing of it. Never left unhandled: rejections are also reported by `rolledBack`. */
  readonly durable: Promise<void>;
}

export class GroupCommit {
  readonly #db: Database;
  readonly #hooks: CommitHooks;
  /** Prepared: each change needs them, and parsing them costs more than running them. */
  readonly #savepoint: Statement;
  readonly #release: Statement;
  #open = false;
  #waiters: Waiter[] = [];
  #gate: Promise<void> | null = null;
  #cycle: Promise<void> | null = null;
  /** Somebody in the open group waits for it to be durable. */
  #urgent = false;
  #cancelTimer: (() => void) | null = null;
  #failed: Error | null = null;

  constructor(db: Database, hooks: CommitHooks) {
    this.#db = db;
    this.#hooks = hooks;
    this.#savepoint = db.prepare("SAVEPOINT one");
    this.#release = db.prepare("RELEASE one");
  }

  /**
   * Runs `change` inside the open transaction; if it throws, only its own effects are undone.
   * Rejects with what `change` threw. `lazy`: nobody holds its breath (the sender has it in a journal), so the disk is
   * asked a little later, for more at once.
   */
  async write<T>(change: () => T, options: { readonly lazy?: boolean } = {}): Promise<Written<T>> {
    while (this.#gate !== null) await this.#gate;
    return this.#writeNow(change, options.lazy ?? false);
  }

  #begin(): void {
    if (!this.#open) {
      this.#db.exec("BEGIN IMMEDIATE");
      this.#open = true;
    }
  }

  #writeNow<T>(change: () => T, lazy: boolean): Written<T> {
    if (this.#failed !== null) throw this.#failed;
    if (!lazy) this.#urgent = true;
    this.#begin();
    this.#savepoint.run();
    let value: T;
    try {
      value = change();
    } catch (error) {
      if (this.#db.isTransaction) {
        this.#db.exec("ROLLBACK TO one");
        this.#release.run();
        this.#kick();
      } else {
        // A full disk or an I/O error made SQLite roll back the whole group by itself.
        this.#abandon(sqlError(error), [], false);
      }
      throw error instanceof FsError ? error : sqlError(error);
    }
    this.#release.run();
    const durable = new Promise<void>((resolve, reject) => this.#waiters.push({ resolve, reject }));
    durable.catch(() => {});
    this.#kick();
    return { value, durable };
  }

  #kick(): void {
    if (this.#cycle !== null) return;
    if (!this.#urgent) {
      this.#cancelTimer ??= this.#hooks.after(LAZY_MS, () => {
        this.#cancelTimer = null;
        this.#urgent = true;
        if (this.#open) this.#kick();
      });
      return;
    }
    this.#cancelTimer?.();
    this.#cancelTimer = null;
    this.#cycle = this.#run().finally(() => {
      this.#cycle = null;
      if (this.#open) this.#kick();
    });
  }

  async #run(): Promise<void> {
    // One turn of the event loop: what has already arrived joins the group.
    await Promise.resolve();
    if (this.#open) {
      let openGate: () => void = () => {};
      let batch: Waiter[] = [];
      let committed = false;
      try {
        if (this.#hooks.hasUnsyncedData()) await this.#hooks.syncData();
        if (this.#hooks.hasUnsyncedData()) {
          // Bytes arrived while the disk was busy: hold new changes for the one sync that covers them.
          this.#gate = new Promise((resolve) => openGate = resolve);
          while (this.#hooks.hasUnsyncedData()) await this.#hooks.syncData();
        }
        if (!this.#open) {
          // SQLite gave the group up while the disk was waited for; its writers know.
          this.#gate = null;
          openGate();
          return;
        }
        batch = this.#waiters;
        this.#waiters = [];
        this.#urgent = false;
        this.#db.exec("COMMIT");
        committed = true;
        this.#open = false;
        this.#hooks.committed?.();
        this.#gate = null;
        openGate();
        await this.#hooks.syncLog();
        for (const waiter of batch) waiter.resolve();
      } catch (error) {
        this.#abandon(sqlError(error), batch, committed);
        this.#gate = null;
        openGate();
      }
    }
  }

  /** Nothing of the open group stays. `committed`: the batch is in the log, which could not be put on the disk. */
  #abandon(cause: FsError, batch: Waiter[], committed: boolean): void {
    const error = committed
      // The log can't be trusted any more: Linux reports a failed fsync only once and then forgets the bytes.
      ? new FsError(
        "unavailable",
        `the index could not be put on the disk: ${cause.message}; check the disk, restart`,
        {
          operation: "commit",
          cause,
        },
      )
      : cause;
    const waiting = [...batch, ...this.#waiters];
    this.#waiters = [];
    if (committed) this.#failed = error;
    if (this.#open) {
      this.#open = false;
      if (this.#db.isTransaction) this.#db.exec("ROLLBACK");
    }
    for (const waiter of waiting) waiter.reject(error);
    this.#hooks.rolledBack(error);
  }

  /** Resolves when all that was written so far is durable. */
  async settle(): Promise<void> {
    if (this.#open || this.#cycle !== null) {
      const { durable } = await this.write(() => {});
      await durable;
    }
  }
}

/** What SQLite throws, by its meaning. */
export function sqlError(error: unknown): FsError {
  const cause = toFsError(error, { operation: "commit" });
  if (cause.code === "internal" && /disk is full/.test(cause.message)) {
    return new FsError("no_space", "the disk of the index is full: free some room in the state folder", {
      operation: "commit",
      cause,
    });
  }
  return cause;
}
