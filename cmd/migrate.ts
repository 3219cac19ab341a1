/** `anyfs migrate`: crawls existing data into the tree; the source is never changed. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { countArgument, rateArgument, treePath } from "./arguments.ts";
import { example } from "./example.ts";
import { notBuilt } from "./not_built.ts";

interface Options {
  /** Path in the tree. */
  readonly to: string;
  readonly jobs?: number;
  readonly dryRun?: true;
  /** Bytes a second; null: no limit. */
  readonly bwlimit?: number | null;
}

/** Exit code 6 when some files failed. */
function migrate(_context: Context, _sources: readonly string[], _options: Options): Promise<number | void> {
  return Promise.reject(notBuilt("migrate"));
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .argument("<source...>", "folders of this machine")
      .option("--to <path>", "where in the tree, anyfs:/path", treePath, "/")
      .option("--jobs <n>", "files at a time (default: one a processor)", countArgument)
      .option("--dry-run", "only count and report")
      .option("--bwlimit <rate>", "bytes a second, for example 20M", rateArgument)
      .action((sources, options) => start((context) => migrate(context, sources, options)));
    example(
      command,
      "anyfs migrate /mnt/old-nas --to anyfs:/archive --jobs 4",
      "Takes a folder in; run again, it goes on.",
    );
  },
};
