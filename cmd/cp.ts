/** `anyfs cp`: copies inside the tree, or between the tree and this machine. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { type Place, placeArgument } from "./arguments.ts";
import { example } from "./example.ts";
import { notBuilt } from "./not_built.ts";

interface Options {
  readonly recursive?: true;
  /** Fail rather than replace. */
  readonly clobber: boolean;
}

function copy(_context: Context, _from: Place, _to: Place, _options: Options): Promise<number | void> {
  return Promise.reject(notBuilt("cp"));
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .argument("<from>", "anyfs:/path in the tree, or a local path", placeArgument)
      .argument("<to>", "anyfs:/path in the tree, or a local path", placeArgument)
      .option("-r, --recursive", "folders with all in them")
      .option("-n, --no-clobber", "fail rather than replace a file")
      .action((from, to, options) => start((context) => copy(context, from, to, options)));
    example(
      command,
      "anyfs cp -r anyfs:/photos/2024 anyfs:/backup/2024",
      "Copies a folder; its bytes are stored once.",
    );
  },
};
