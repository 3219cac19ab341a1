/** `anyfs put`: stores local files, or standard input, in the tree. */
import { FsError } from "../core/fs/error.ts";
import { stdin } from "../core/platform/process.ts";
import { nameOf } from "../core/remote/url_path.ts";
import { childPath, isFolder, withRemote } from "./remote.ts";
import { copyBetween, localSource, Tally, writeStream } from "./transfer.ts";
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { parseTreePath } from "./arguments.ts";
import { example } from "./example.ts";

interface Options {
  readonly recursive?: true;
  /** Fail rather than replace a file. */
  readonly noClobber?: true;
}

/** `source` is null for standard input. Into `path` when that is a folder. */
async function store(context: Context, source: string | null, path: string, options: Options): Promise<number> {
  const { signal, out } = context;
  return await withRemote(context, async (tree) => {
    const progress = context.progress("put");
    try {
      const exclusive = options.noClobber === true;
      // As the HTTP interface: folders above are made when they are missing.
      const parent = path.slice(0, path.lastIndexOf("/"));
      if (source === null) {
        if (await isFolder(tree, path, signal)) {
          throw new FsError("is_a_directory", `${path} is a directory; name the file to write`, { path });
        }
        if (parent !== "") await tree.createDirAll(parent, { signal });
        const stat = await writeStream(stdin(), tree, path, { signal, ...(exclusive && { exclusive }) }, progress);
        out.data({ path, bytes: stat.size, files: 1, failed: 0 }, () => "");
        return 0;
      }
      await using local = await localSource(source);
      const name = nameOf(source.replace(/\/+$/, ""));
      const target = await isFolder(tree, path, signal) && local.path !== "/" ? childPath(path, name) : path;
      if (parent !== "") await tree.createDirAll(parent, { signal });
      const tally = new Tally();
      const how = { recursive: options.recursive === true, exclusive };
      await copyBetween(context, local.fs, local.path, tree, target, how, progress, tally);
      out.data({ path: target, bytes: tally.bytes, files: tally.files, failed: tally.failed }, () => "");
      return tally.failed > 0 ? 6 : 0;
    } finally {
      progress.finish();
    }
  });
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .argument("<source>", "local file or folder, - for standard input; left out: standard input")
      .argument("[path]", "where in the tree")
      .option("-r, --recursive", "a folder with all in it")
      .option("-n, --no-clobber", "fail rather than replace a file")
      .action((source, path, { recursive, clobber }) =>
        start((context) =>
          store(context, path === undefined || source === "-" ? null : source, parseTreePath(path ?? source), {
            ...(recursive === undefined ? {} : { recursive }),
            ...(clobber ? {} : { noClobber: true }),
          })
        )
      );
    example(command, "anyfs put holiday.jpg /photos/2024/holiday.jpg", "Uploads one file.");
  },
};
