/** What one measurement of mount_bench is made of. */
import type { Target, TargetName } from "./targets.ts";

export type Unit = "MB/s" | "ops/s" | "s" | "ms" | "µs" | "s/GiB" | "x";

/** One line of the table. */
export interface Row {
  /** What `--only` names; unique. */
  readonly id: string;
  readonly title: string;
  readonly unit: Unit;
}

/** Is a larger figure of this unit a better one? */
export const isRate = (unit: Unit): boolean => unit === "MB/s" || unit === "ops/s";

/** A figure of one round. */
export interface Figure {
  readonly value: number;
  /** Microseconds of one operation, where each was measured. */
  readonly p50?: number;
  readonly p99?: number;
}

/** Files outside of what is measured, in memory. */
export interface Tools {
  readonly client: string;
  /** `sizes.coldMib` of bytes that don't compress. */
  readonly source: string;
  /** `sizes.files` files of 4.2 KB in folders of 100. */
  readonly tar: string;
  /** A git repository of the same files. */
  readonly repository: string;
  /** A folder as a package manager would make it. */
  readonly modules: string;
  /** A folder with a package.json, its lock file and a cache of the packages; null: they can't be had here. */
  readonly packages: string | null;
}

/** How much of everything. */
export interface Sizes {
  readonly bigMib: number;
  readonly coldMib: number;
  readonly streamMib: number;
  /** Of what one job of fio writes in all. */
  readonly writtenMib: number;
  readonly files: number;
  readonly listed: number;
  readonly handles: number;
  /** Of one metadata step, at most. */
  readonly created: number;
  /** Seconds of one step that could go on for ever. */
  readonly seconds: number;
}

export interface Round {
  readonly target: Target;
  readonly round: number;
  readonly tools: Tools;
  readonly sizes: Sizes;
}

/** Steps that belong together and give one or more rows. */
export interface Task {
  readonly rows: readonly Row[];
  /** The one target that it makes sense for. @default all */
  readonly only?: TargetName;
  /** Once on each target, before all rounds; not measured. All targets have settled afterwards. */
  prepare?(round: Round): Promise<unknown>;
  /** Before each round, not measured. */
  before?(round: Round): Promise<unknown>;
  /** Figures by the row's id. A row that has none this time is left out. */
  run(round: Round): Promise<Record<string, Figure>>;
  /** After each round, not measured, also when it failed. */
  after?(round: Round): Promise<unknown>;
  /** Rounds at most, where the state allows no more. */
  readonly rounds?: number;
}

/** A row doesn't apply to this target: what it can't do, as a sentence. */
export class NotSupported extends Error {}

/** Seconds that some work takes. */
export async function seconds(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return (performance.now() - begin) / 1000;
}
