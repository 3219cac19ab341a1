/** `anyfs mkdir`: makes folders in the tree. */
import { eachItem, withRemote } from "./remote.ts";
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { treePaths } from "./arguments.ts";
import { example } from "./example.ts";

interface Options {
  /** The folders above too; one that exists is no failure. */
  readonly parents?: true;
}

async function makeFolders(context: Context, paths: readonly string[], options: Options): Promise<number> {
  const { signal } = context;
  return await withRemote(context, (tree) =>
    eachItem(context, paths, async (path) => {
      if (options.parents) await tree.createDirAll(path, { signal });
      else await tree.createDir(path, { signal });
    }));
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
