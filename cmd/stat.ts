/** `anyfs stat`: everything known about a file or folder of the tree. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { treePaths } from "./arguments.ts";
import { example } from "./example.ts";
import { notBuilt } from "./not_built.ts";

function showStat(_context: Context, _paths: readonly string[]): Promise<number | void> {
  return Promise.reject(notBuilt("stat"));
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .argument("<path...>", "files or folders in the tree", treePaths)
      .action((paths) => start((context) => showStat(context, paths)));
    example(command, "anyfs stat --json /photos/a.jpg", "Size, times, owner, version, hash and tiers as JSON.");
  },
};
