/** `anyfs ls`: lists folders of the tree. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { treePath } from "./arguments.ts";
import { example } from "./example.ts";
import { notBuilt } from "./not_built.ts";

interface Options {
  /** One entry a line with kind, permissions, size, time and tiers. */
  readonly long?: true;
  /** Names that begin with a dot too. */
  readonly all?: true;
  readonly recursive?: true;
}

function list(_context: Context, _path: string, _options: Options): Promise<void> {
  return Promise.reject(notBuilt("ls"));
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .argument("[path]", "folder or file in the tree", treePath, "/")
      .option("-l, --long", "kind, permissions, size, time and tiers (L local, N NAS, C cold)")
      .option("-a, --all", "names that begin with a dot too")
      .option("-R, --recursive", "folders inside folders")
      .action((path, options) => start((context) => list(context, path, options)));
    example(command, "anyfs ls -l /photos", "Lists the folder /photos with sizes and tiers.");
  },
};
