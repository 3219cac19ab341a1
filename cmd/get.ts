/** `anyfs get`: copies files of the tree to this machine. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { treePath } from "./arguments.ts";
import { example } from "./example.ts";
import { notBuilt } from "./not_built.ts";

interface Options {
  readonly recursive?: true;
}

/** `target` is null for standard output. */
function fetchFile(
  _context: Context,
  _path: string,
  _target: string | null,
  _options: Options,
): Promise<number | void> {
  return Promise.reject(notBuilt("get"));
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .argument("<path>", "file or folder in the tree", treePath)
      .argument("[target]", "local path, - for standard output; left out: the same name in this folder")
      .option("-r, --recursive", "a folder with all in it")
      .action((path, target, options) =>
        start((context) => {
          const name = path.slice(path.lastIndexOf("/") + 1);
          return fetchFile(context, path, target === "-" ? null : target ?? (name === "" ? "." : name), options);
        })
      );
    example(command, "anyfs get /photos/2024/holiday.jpg", "Downloads a file into the current folder.");
  },
};
