/** `anyfs mv`: renames and moves inside the tree. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { treePath } from "./arguments.ts";
import { example } from "./example.ts";
import { notBuilt } from "./not_built.ts";

interface Options {
  /** Fail rather than replace. */
  readonly clobber: boolean;
}

/** Into `to` when that is a folder. */
function move(_context: Context, _from: string, _to: string, _options: Options): Promise<void> {
  return Promise.reject(notBuilt("mv"));
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .argument("<from>", "path in the tree", treePath)
      .argument("<to>", "new path, or a folder to move it into", treePath)
      .option("-n, --no-clobber", "fail rather than replace a file")
      .action((from, to, options) => start((context) => move(context, from, to, options)));
    example(command, "anyfs mv /inbox/a.pdf /documents", "Moves a file into a folder; no bytes are copied.");
  },
};
