/** `anyfs evict`: one eviction pass. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { Option } from "@commander-js/extra-typings";
import { sizeArgument } from "./arguments.ts";
import { example } from "./example.ts";
import { notBuilt } from "./not_built.ts";

interface Options {
  readonly tier?: "local" | "nas";
  /** Bytes the tier may keep; left out: its low watermark. */
  readonly to?: number;
  /** Only say what would go, and why. */
  readonly dryRun?: true;
}

function evict(_context: Context, _options: Options): Promise<void> {
  return Promise.reject(notBuilt("evict"));
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
