/** `anyfs rm`: removes files and folders of the tree. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { treePaths } from "./arguments.ts";
import { example } from "./example.ts";
import { notBuilt } from "./not_built.ts";

interface Options {
  readonly recursive?: true;
  /** A missing path is no failure. */
  readonly force?: true;
}

function remove(_context: Context, _paths: readonly string[], _options: Options): Promise<number | void> {
  return Promise.reject(notBuilt("rm"));
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .argument("<path...>", "files or folders in the tree", treePaths)
      .option("-r, --recursive", "folders with all in them")
      .option("-f, --force", "a missing path is no failure")
      .action((paths, options) => start((context) => remove(context, paths, options)));
    example(command, "anyfs rm -r /tmp/old", "Removes a folder with all in it.");
  },
};
