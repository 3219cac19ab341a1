/** `anyfs cat`: writes files of the tree to standard output. */
import { eachItem, withRemote } from "./remote.ts";
import { toStandardOutput } from "./transfer.ts";
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { sizeArgument, treePaths } from "./arguments.ts";
import { example } from "./example.ts";

interface Options {
  /** Bytes to leave out at the start. */
  readonly offset?: number;
  /** Bytes to write at most. */
  readonly count?: number;
}

async function concatenate(context: Context, paths: readonly string[], options: Options): Promise<number> {
  const { offset, count } = options;
  const range = { ...(offset !== undefined && { offset }), ...(count !== undefined && { length: count }) };
  return await withRemote(
    context,
    (tree) => eachItem(context, paths, (path) => toStandardOutput(tree, path, range, context.signal)),
  );
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
