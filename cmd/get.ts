/** `anyfs get`: copies files of the tree to this machine. */
import { nameOf } from "../core/remote/url_path.ts";
import { withRemote } from "./remote.ts";
import { copyBetween, localTarget, Tally, toStandardOutput } from "./transfer.ts";
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { treePath } from "./arguments.ts";
import { example } from "./example.ts";

interface Options {
  readonly recursive?: true;
}

/** `target` is null for standard output. Into it when it is a folder. */
async function fetchFile(context: Context, path: string, target: string | null, options: Options): Promise<number> {
  const { signal, out } = context;
  return await withRemote(context, async (tree) => {
    if (target === null) {
      await toStandardOutput(tree, path, {}, signal);
      return 0;
    }
    // Before anything is made here.
    await tree.stat(path, { signal });
    await using local = await localTarget(target, nameOf(path));
    const progress = context.progress("get");
    try {
      const tally = new Tally();
      const how = { recursive: options.recursive === true, exclusive: false };
      await copyBetween(context, tree, path, local.fs, local.path, how, progress, tally);
      out.data({ path, bytes: tally.bytes, files: tally.files, failed: tally.failed }, () => "");
      return tally.failed > 0 ? 6 : 0;
    } finally {
      progress.finish();
    }
  });
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
