/** An index in memory or in a folder, for tests: hooks to watch, a clock to turn. */
import { type Clock, systemClock } from "../../platform/clock.ts";
import { systemRandom } from "../../platform/random.ts";
import { SqliteIndex, type SqliteIndexOptions } from "../sqlite_index.ts";

export interface IndexOptions extends Partial<SqliteIndexOptions> {
  /** Wall clock of the index, milliseconds. */
  readonly now?: () => number;
}

export function openIndex(options: IndexOptions = {}): SqliteIndex {
  const { now, ...rest } = options;
  const clock: Clock = now === undefined ? systemClock : { ...systemClock, now };
  return new SqliteIndex({
    path: ":memory:",
    clock,
    random: systemRandom,
    hotBit: 1,
    targets: [2, 4],
    data: { hasUnsynced: () => false, sync: () => Promise.resolve() },
    ...rest,
  });
}

export const TIME = { sec: 1000, nsec: 5 };
