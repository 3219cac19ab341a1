/** `anyfs cat`: writes files of the tree to standard output. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { sizeArgument, treePaths } from "./arguments.ts";
import { example } from "./example.ts";
import { notBuilt } from "./not_built.ts";

interface Options {
  /** Bytes to leave out at the start. */
  readonly offset?: number;
  /** Bytes to write at most. */
  readonly count?: number;
}

function concatenate(_context: Context, _paths: readonly string[], _options: Options): Promise<void> {
  return Promise.reject(notBuilt("cat"));
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .argument("<path...>", "files in the tree", treePaths)
      .option("--offset <size>", "leave out so many bytes at the start", sizeArgument)
      .option("--count <size>", "write so many bytes at most", sizeArgument)
      .action((paths, options) => start((context) => concatenate(context, paths, options)));
    example(command, "anyfs cat /notes/today.txt | less", "Reads a file without a mount.");
  },
};
