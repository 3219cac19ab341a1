/** `anyfs mkdir`: makes folders in the tree. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { treePaths } from "./arguments.ts";
import { example } from "./example.ts";
import { notBuilt } from "./not_built.ts";

interface Options {
  /** The folders above too; one that exists is no failure. */
  readonly parents?: true;
}

function makeFolders(_context: Context, _paths: readonly string[], _options: Options): Promise<number | void> {
  return Promise.reject(notBuilt("mkdir"));
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .argument("<path...>", "folders in the tree", treePaths)
      .option("-p, --parents", "the folders above too; one that exists is no failure")
      .action((paths, options) => start((context) => makeFolders(context, paths, options)));
    example(command, "anyfs mkdir -p /photos/2024/06", "Makes a folder and those above it.");
  },
};
