/** Garbage: forgets contents and chunks that nothing refers to any more, a little at a time. */
import { throwIfCancelled } from "../fs/error.ts";
import type { Index } from "../index/index.ts";
import type { Clock } from "../platform/clock.ts";
import type { ActiveWriters } from "../store/active_writers.ts";

export interface GarbageOptions {
  readonly index: Index;
  readonly writers: ActiveWriters;
  readonly clock: Clock;
  /** So long after its last use something is kept, milliseconds. */
  readonly graceMs: number;
  /** Packs were found to be dead: their deletions are in the log. */
  readonly onDead: () => void;
}

/** Contents handled in one transaction. */
const STEP = 32;

export interface Collected {
  readonly contents: number;
  readonly chunks: number;
  readonly bytes: number;
  readonly packs: number;
}

/** Collects until nothing is left that is old enough. Does not touch what a writer under way may be about to reuse. */
export async function collectGarbage(options: GarbageOptions, signal?: AbortSignal): Promise<Collected> {
  const { index, writers, clock, graceMs } = options;
  const sum = { contents: 0, chunks: 0, bytes: 0, packs: 0 };
  for (;;) {
    throwIfCancelled(signal);
    const before = Math.floor(Math.min(clock.now() - graceMs, writers.oldest()));
    const step = await index.collect(before, STEP);
    sum.contents += step.contents;
    sum.chunks += step.chunks;
    sum.bytes += step.bytes;
    sum.packs += step.packs;
    if (step.contents + step.chunks === 0) break;
    await clock.sleep(0);
  }
  if (sum.packs > 0) options.onDead();
  return sum;
}
