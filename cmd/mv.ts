/** `anyfs mv`: renames and moves inside the tree. */
import { FsError } from "../core/fs/error.ts";
import { nameOf } from "../core/remote/url_path.ts";
import { childPath, isFolder, withRemote } from "./remote.ts";
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { treePath } from "./arguments.ts";
import { example } from "./example.ts";

interface Options {
  /** Fail rather than replace. */
  readonly clobber: boolean;
}

/** Into `to` when that is a folder. */
async function move(context: Context, from: string, to: string, options: Options): Promise<void> {
  const { signal } = context;
  await withRemote(context, async (tree) => {
    const target = await isFolder(tree, to, signal) ? childPath(to, nameOf(from)) : to;
    if (!options.clobber && await tree.exists(target, { signal })) {
      throw new FsError("already_exists", `${target} exists; leave --no-clobber out to replace it`, { path: target });
    }
    await tree.rename(from, target, { signal });
  });
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
