/** Scrubber: compares what the index says with what the tiers hold, object by object, and mends what can be. */
import { hasCode, throwIfCancelled, toFsError } from "../fs/error.ts";
import { TierBit } from "../fs/stat.ts";
import type { Index } from "../index/index.ts";
import type { PackInfo } from "../index/packs.ts";
import { PACK_DEAD, PACK_OPEN, PACK_SEALED } from "../index/schema.ts";
import type { Clock } from "../platform/clock.ts";
import { unpackChunk } from "../store/codec.ts";
import { hex } from "../store/hash.ts";
import { packKey } from "../store/open_pack.ts";
import type { OpenPacks } from "../store/open_packs.ts";
import { within } from "./health.ts";
import type { PackSource } from "./pack_source.ts";
import type { Repairer } from "./repairer.ts";
import type { Tier, TierSet } from "./tier.ts";

export interface ScrubberOptions {
  readonly index: Index;
  readonly tiers: TierSet;
  readonly openPacks: OpenPacks;
  readonly source: PackSource;
  readonly repairer: Repairer;
  /** Resolves when the pack is not on its way to its place any more. */
  readonly settled: (packId: number) => Promise<void>;
  readonly timeoutMs: number;
  readonly clock: Clock;
}
export interface ScrubReport {
  checked: number;
  problems: string[];
  repaired: number;
}

const PAGE = 256;
/** Problems listed; the rest is counted. */
const LISTED = 10_000;
const KEY = /^packs\/[0-9a-f]{2}\/([0-9a-f]{64})\.pack$/;

export class Scrubber {
  readonly #o: ScrubberOptions;

  constructor(options: ScrubberOptions) {
    this.#o = options;
  }

  /** See Tiers.scrub. `checked` counts copies of packs. */
  async scrub(options: { repair?: boolean; deep?: boolean; signal?: AbortSignal }): Promise<ScrubReport> {
    const report: ScrubReport = { checked: 0, problems: [], repaired: 0 };
    for (const problem of await this.#o.index.check()) note(report, `index: ${problem}`);
    for (let after = 0;;) {
      throwIfCancelled(options.signal);
      const page = await this.#o.index.packPage(after, PAGE);
      for (const pack of page) await this.#checkPack(pack, report, options);
      const last = page.at(-1);
      if (last === undefined || page.length < PAGE) break;
      after = last.id;
    }
    for (const tier of this.#o.tiers.tiers) await this.#findOrphans(tier, report, options);
    return report;
  }

  async #checkPack(
    pack: PackInfo,
    report: ScrubReport,
    options: { repair?: boolean; deep?: boolean; signal?: AbortSignal },
  ): Promise<void> {
    if (pack.state === PACK_OPEN) {
      report.checked++;
      for (const problem of await this.#openPackProblems(pack)) note(report, problem);
      return;
    }
    if (pack.state !== PACK_SEALED || pack.name === null) return;
    const named = { ...pack, name: pack.name };
    if (pack.tiers === 0) note(report, `pack ${pack.name} (${pack.bytes} bytes) is on no tier`);
    for (const tier of this.#o.tiers.tiers) {
      if ((pack.tiers & tier.bit) === 0) continue;
      throwIfCancelled(options.signal);
      report.checked++;
      let problem = await this.#copyProblem(named, tier, options);
      if (problem === null) continue;
      // It may have come to the hot tier's folder only now, after the index said so.
      await this.#o.settled(pack.id);
      problem = await this.#copyProblem(named, tier, options);
      if (problem === null) continue;
      // It may have left the tier, by right, while it was looked at.
      const now = await this.#o.index.pack(pack.id);
      if (now === null || now.state === PACK_DEAD || (now.tiers & tier.bit) === 0) continue;
      note(report, problem.text);
      if (options.repair && problem.damaged && await this.#o.repairer.repair(pack, tier)) report.repaired++;
    }
  }

  async #copyProblem(
    pack: PackInfo & { readonly name: string },
    tier: Tier,
    options: { deep?: boolean; signal?: AbortSignal },
  ): Promise<{ text: string; damaged: boolean } | null> {
    const { clock, timeoutMs, source } = this.#o;
    const key = packKey(pack.name);
    try {
      const found = await within(
        clock,
        timeoutMs,
        `head ${tier.place}`,
        (own) => tier.store.head(key, { signal: own }),
        options.signal,
      );
      if (found === null) return { text: `${tier.name}: object ${key} is missing`, damaged: true };
      if (found.size !== pack.bytes) {
        return { text: `${tier.name}: object ${key} has ${found.size} bytes, not ${pack.bytes}`, damaged: true };
      }
      if (options.deep) await source.check(tier, pack, true, options.signal);
      return null;
    } catch (thrown) {
      const error = toFsError(thrown);
      if (options.signal?.aborted) throw error;
      const damaged = hasCode(error, "corrupt") || hasCode(error, "not_found");
      return { text: `${tier.name}: object ${key}: ${damaged ? "" : "can't be checked: "}${error.message}`, damaged };
    }
  }

  /** Every chunk of a pack that is being filled. */
  async #openPackProblems(pack: PackInfo): Promise<string[]> {
    const problems: string[] = [];
    const chunks = await this.#o.index.chunksOfPack(pack.id);
    const file = this.#o.openPacks.get(pack.id);
    if (file === undefined) {
      const now = await this.#o.index.pack(pack.id);
      if (now?.state !== PACK_OPEN || chunks.length === 0) return [];
      return [`local: the file of pack ${pack.id} is missing; it held ${chunks.length} chunks that are nowhere else`];
    }
    for (const chunk of chunks) {
      try {
        unpackChunk(await file.read(chunk.offset, chunk.stored), chunk.flags, chunk.raw, chunk.hash);
      } catch (error) {
        if (hasCode(error, "unavailable")) return [];
        problems.push(`local: pack ${pack.id}: chunk ${hex(chunk.hash)}: ${toFsError(error).message}`);
      }
    }
    return problems;
  }

  async #findOrphans(
    tier: Tier,
    report: ScrubReport,
    options: { repair?: boolean; signal?: AbortSignal },
  ): Promise<void> {
    const { index } = this.#o;
    const awaited = await this.#awaitedOn(tier);
    try {
      for await (
        const { key, size } of tier.store.list("packs/", "", options.signal ? { signal: options.signal } : {})
      ) {
        const name = KEY.exec(key)?.[1];
        if (name === undefined) {
          note(report, `${tier.name}: object ${key} (${size} bytes) is not one of ours`);
          continue;
        }
        const pack = await index.packByName(name);
        if (pack === null) {
          // Not removed: an index that was restored from an older backup does not know the newest packs.
          note(report, `${tier.name}: object ${key} (${size} bytes) belongs to no pack of the index`);
          continue;
        }
        if (pack.state !== PACK_SEALED || (pack.tiers & tier.bit) !== 0 || awaited.has(pack.id)) continue;
        note(report, `${tier.name}: object ${key} (${size} bytes) is left over: the pack is not counted on there`);
        if (!options.repair || tier.bit !== TierBit.local || pack.tiers === 0) continue;
        await tier.store.delete(key);
        report.repaired++;
      }
    } catch (error) {
      if (options.signal?.aborted) throw error;
      note(report, `${tier.name}: its objects can't be listed: ${toFsError(error).message}`);
    }
  }

  /** Packs that are on their way to the tier: an object may be there already. */
  async #awaitedOn(tier: Tier): Promise<Set<number>> {
    const ids = new Set<number>();
    for (let after = 0;;) {
      const page = await this.#o.index.walPage(after, PAGE);
      for (const entry of page) if (entry.tier === tier.bit) ids.add(entry.packId);
      const last = page.at(-1);
      if (last === undefined || page.length < PAGE) return ids;
      after = last.id;
    }
  }
}

function note(report: ScrubReport, problem: string): void {
  if (report.problems.length < LISTED) report.problems.push(problem);
  else if (report.problems.length === LISTED) {
    report.problems.push(`more than ${LISTED} problems; the rest is not listed`);
  }
}
