/**
 * Feed: tells every connected client what changed, in order and with the nodes as they are now. A change is told after
 * the answers to all reads that began before it, so an older answer never arrives behind newer news.
 */
import { toFsError } from "../fs/error.ts";
import type { Stat } from "../fs/stat.ts";
import type { Index } from "../index/index.ts";
import type { Change } from "../index/ops.ts";
import type { PushedChange } from "./protocol.ts";
import { encodePush } from "./wire.ts";

/** One request's changes, encoded once for all who hear of them. */
export interface Batch {
  readonly device: number;
  readonly firstSeq: number;
  readonly lastSeq: number;
  readonly frame: Uint8Array<ArrayBuffer>;
}
export interface FeedListener {
  /** The device that listens; it needs no news of its own changes, only their number. */
  readonly device: number;
  /** Batches come in the order of their numbers. */
  batch(batch: Batch): void;
}

/** The changes with their nodes; a node that several changes name is looked up once. */
export async function attachStats(index: Index, changes: readonly Change[]): Promise<PushedChange[]> {
  const stats = new Map<number, Stat | null>();
  for (const { ino } of changes) {
    if (ino !== 0 && !stats.has(ino)) stats.set(ino, await index.stat(ino));
  }
  return changes.map((change) => ({ ...change, stat: stats.get(change.ino) ?? null }));
}

export class Feed {
  readonly #index: Index;
  readonly #listeners = new Set<FeedListener>();
  readonly #reads = new Set<Promise<unknown>>();
  readonly #stop: () => void;
  readonly #onFailure: (error: Error) => void;
  #tail: Promise<void> = Promise.resolve();

  /** `onFailure`: the nodes of a change could not be read; those who listen have missed it and must start anew. */
  constructor(index: Index, onFailure: (error: Error) => void) {
    this.#index = index;
    this.#onFailure = onFailure;
    this.#stop = index.onChanges((changes) => this.#add(changes));
  }

  #add(changes: readonly Change[]): void {
    const before = [...this.#reads];
    const earlier = this.#tail;
    this.#tail = (async () => {
      await earlier;
      if (this.#listeners.size === 0) return;
      if (before.length > 0) await Promise.allSettled(before);
      const own = [...this.#listeners].every(({ device }) => changes.every((change) => change.device === device));
      const [firstOwn, lastOwn] = [changes[0], changes.at(-1)];
      if (own && firstOwn !== undefined && lastOwn !== undefined) {
        const batch = {
          device: firstOwn.device,
          firstSeq: firstOwn.seq,
          lastSeq: lastOwn.seq,
          frame: new Uint8Array(),
        };
        for (const listener of this.#listeners) listener.batch(batch);
        return;
      }
      try {
        const pushed = await attachStats(this.#index, changes);
        const first = pushed[0];
        const last = pushed.at(-1);
        if (first === undefined || last === undefined) return;
        const frame = encodePush("changes", { seq: last.seq, changes: pushed });
        const batch = { device: first.device, firstSeq: first.seq, lastSeq: last.seq, frame };
        for (const listener of this.#listeners) listener.batch(batch);
      } catch (error) {
        this.#onFailure(toFsError(error));
      }
    })();
  }

  listen(listener: FeedListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
  /** Runs a short read whose answer must reach its client before later changes do. */
  async read<T>(run: () => Promise<T>): Promise<T> {
    const reading = run();
    this.#reads.add(reading);
    try {
      return await reading;
    } finally {
      this.#reads.delete(reading);
    }
  }
  /** Resolves when everybody was told of all changes up to now. */
  told(): Promise<void> {
    return this.#tail;
  }
  close(): void {
    this.#stop();
    this.#listeners.clear();
  }
}
