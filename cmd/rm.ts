/** `anyfs rm`: removes files and folders of the tree. */
import { FsError, hasCode } from "../core/fs/error.ts";
import { kindOf } from "../core/fs/stat.ts";
import { eachItem, withRemote } from "./remote.ts";
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { treePaths } from "./arguments.ts";
import { example } from "./example.ts";

interface Options {
  readonly recursive?: true;
  /** A missing path is no failure. */
  readonly force?: true;
}

async function remove(context: Context, paths: readonly string[], options: Options): Promise<number> {
  const { signal } = context;
  return await withRemote(context, (tree) =>
    eachItem(context, paths, async (path) => {
      try {
        const stat = await tree.stat(path, { signal });
        if (kindOf(stat.mode) !== "directory") await tree.removeFile(path, { signal });
        else if (options.recursive) {
          if (path === "/") {
            throw new FsError("invalid_input", "rm / would remove the whole tree; name what is in it instead", {
              path,
            });
          }
          await tree.removeDirAll(path, { signal });
        } else {
          throw new FsError("is_a_directory", `${path} is a directory; remove it with --recursive`, { path });
        }
      } catch (error) {
        if (!(options.force && hasCode(error, "not_found"))) throw error;
      }
    }));
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
