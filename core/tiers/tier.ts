/** Tier: one place that holds packs, with its role and limits. */
import type { ObjectStore } from "../fs/object_store.ts";
import { TierBit } from "../fs/stat.ts";
import type { Health } from "./health.ts";

export type TierName = keyof typeof TierBit;

export interface Tier {
  readonly name: TierName;
  /** TierBit of it. Fastest first: a smaller bit is a faster tier. */
  readonly bit: number;
  readonly store: ObjectStore;
  /** Where it is, for people. */
  readonly place: string;
  /** Bytes at which eviction begins, null: never. */
  readonly highWatermark: number | null;
  /** Bytes down to which it goes. */
  readonly lowWatermark: number | null;
  readonly health: Health;
}

/** The configured tiers, fastest first. */
export class TierSet {
  readonly tiers: readonly Tier[];
  /** TierBits of all. */
  readonly bits: number;

  constructor(tiers: readonly Tier[]) {
    this.tiers = [...tiers].sort((a, b) => a.bit - b.bit);
    this.bits = this.tiers.reduce((bits, tier) => bits | tier.bit, 0);
  }

  withBit(bit: number): Tier | undefined {
    return this.tiers.find((tier) => tier.bit === bit);
  }
  get hot(): Tier | undefined {
    return this.withBit(TierBit.local);
  }
  /** Bits of the tiers that are slower than `tier`. */
  colderThan(tier: Tier): readonly Tier[] {
    return this.tiers.filter((other) => other.bit > tier.bit);
  }
}
