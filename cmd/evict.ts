/** `anyfs evict`: one eviction pass. */
import { showSize } from "../core/config/units.ts";
import { withRemote } from "./remote.ts";
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { Option } from "@commander-js/extra-typings";
import { sizeArgument } from "./arguments.ts";
import { example } from "./example.ts";

interface Options {
  readonly tier?: "local" | "nas";
  /** Bytes the tier may keep; left out: its low watermark. */
  readonly to?: number;
  /** Only say what would go, and why. */
  readonly dryRun?: true;
}

interface Report {
  readonly tier: string;
  readonly dry_run: boolean;
  readonly before: number;
  readonly after: number;
  readonly evicted: readonly { pack: string; bytes: number; score: number; why: string }[];
  readonly kept: readonly { reason: string; packs: number; bytes: number }[];
}

async function evict(context: Context, options: Options): Promise<void> {
  const { tier, to, dryRun } = options;
  await withRemote(context, async (tree) => {
    const answer = await tree.postJson(
      "/v1/admin/evict",
      { ...(tier !== undefined && { tier }), ...(to !== undefined && { to }), dry_run: dryRun === true },
      { signal: context.signal },
    ) as { reports: readonly Report[] };
    context.out.data(answer, () =>
      answer.reports.map((report) => {
        const did = report.dry_run ? "would evict" : "evicted";
        const bytes = report.evicted.reduce((sum, pack) => sum + pack.bytes, 0);
        const head = `${report.tier}: ${did} ${report.evicted.length} packs, ${showSize(bytes)}: ${
          showSize(report.before)
        } -> ${showSize(report.after)}\n`;
        const packs = report.dry_run
          ? report.evicted.map((pack) => `  ${pack.pack.slice(0, 16)}  ${showSize(pack.bytes)}  ${pack.why}\n`)
          : [];
        const kept = report.kept.map((each) => `  kept ${each.packs} packs, ${showSize(each.bytes)}: ${each.reason}\n`);
        return head + packs.join("") + kept.join("");
      }).join("") || "nothing to evict\n");
  });
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .addOption(new Option("--tier <name>", "only this tier").choices(["local", "nas"] as const))
      .option("--to <size>", "evict down to so many bytes (default: the low watermark)", sizeArgument)
      .option("--dry-run", "only say what would go, and why")
      .action((options) => start((context) => evict(context, options)));
    example(
      command,
      "anyfs evict --tier local --to 150G --dry-run",
      "Shows what would leave the local tier; made for cron.",
    );
  },
};
