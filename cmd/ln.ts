/** `anyfs ln`: hard and symbolic links in the tree. */
import { treePath } from "./arguments.ts";
import type { Context } from "./context.ts";
import { example } from "./example.ts";
import type { CommandModule, Start } from "./module.ts";
import { withRemote } from "./remote.ts";

interface Options {
  readonly symbolic?: true;
}

async function link(context: Context, target: string, path: string, options: Options): Promise<void> {
  const { signal } = context;
  await withRemote(context, async (tree) => {
    // A symbolic link's target is text: it is kept as it was given.
    if (options.symbolic) await tree.symlink(target, path, { signal });
    else await tree.hardLink(treePath(target), path, { signal });
  });
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .argument("<target>", "what the link leads to")
      .argument("<path>", "the new name, in the tree", treePath)
      .option("-s, --symbolic", "a symbolic link: the target may be relative, or missing")
      .action((target, path, options) => start((context) => link(context, target, path, options)));
    example(command, "anyfs ln -s 2024/best.jpg /photos/cover.jpg", "Makes a symbolic link.");
  },
};
