/** `anyfs cp`: copies inside the tree, or between the tree and this machine. */
import { FsError, toFsError } from "../core/fs/error.ts";
import { kindOf } from "../core/fs/stat.ts";
import type { RemoteBackend } from "../core/remote/remote_backend.ts";
import { nameOf } from "../core/remote/url_path.ts";
import { childPath, isFolder, withRemote } from "./remote.ts";
import { copyBetween, localSource, localTarget, Tally } from "./transfer.ts";
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { type Place, placeArgument } from "./arguments.ts";
import { example } from "./example.ts";

interface Options {
  readonly recursive?: true;
  /** Fail rather than replace. */
  readonly clobber: boolean;
}

/** Copies inside the tree: the server does it, no bytes travel. */
async function copyInside(
  context: Context,
  tree: RemoteBackend,
  from: string,
  to: string,
  options: Options,
  tally: Tally,
): Promise<void> {
  const { signal } = context;
  const stat = await tree.stat(from, { signal });
  const kind = kindOf(stat.mode);
  if (kind !== "directory") {
    if (!options.clobber && await tree.exists(to, { signal })) {
      throw new FsError("already_exists", `${to} exists; leave --no-clobber out to replace it`, { path: to });
    }
    if (kind === "symlink") {
      const link = await tree.readLink(from, { signal });
      if (await tree.exists(to, { signal })) await tree.removeFile(to, { signal });
      await tree.symlink(link, to, { signal });
    } else await tree.copy(from, to, { signal });
    tally.files++;
    tally.bytes += stat.size;
    return;
  }
  if (!options.recursive) {
    throw new FsError("is_a_directory", `${from} is a directory; copy it with --recursive`, { path: from });
  }
  if (to === from || to.startsWith(`${from === "/" ? "" : from}/`)) {
    throw new FsError("invalid_input", `${from} can't be copied into itself`, { path: to });
  }
  await tree.createDirAll(to, { signal });
  for await (const entry of tree.readDir(from, { signal })) {
    try {
      await copyInside(context, tree, childPath(from, entry.name), childPath(to, entry.name), options, tally);
    } catch (error) {
      if (signal.aborted) throw error;
      tally.failed++;
      context.out.failure(toFsError(error).message);
    }
  }
}

async function copy(context: Context, from: Place, to: Place, options: Options): Promise<number> {
  const { signal, out } = context;
  if (from.kind === "local" && to.kind === "local") {
    throw new FsError(
      "invalid_input",
      "neither path is in the tree; write the one that is as anyfs:/path, or use cp(1) for local files",
    );
  }
  return await withRemote(context, async (tree) => {
    const progress = context.progress("cp");
    const tally = new Tally();
    const how = { recursive: options.recursive === true, exclusive: !options.clobber };
    try {
      const name = nameOf(from.path.replace(/\/+$/, ""));
      const inTree = async () =>
        to.kind === "tree" && await isFolder(tree, to.path, signal) ? childPath(to.path, name) : to.path;
      if (from.kind === "tree" && to.kind === "tree") {
        await copyInside(context, tree, from.path, await inTree(), options, tally);
      } else if (from.kind === "local") {
        await using local = await localSource(from.path);
        await copyBetween(context, local.fs, local.path, tree, await inTree(), how, progress, tally);
      } else {
        await tree.stat(from.path, { signal });
        await using local = await localTarget(to.path, name);
        await copyBetween(context, tree, from.path, local.fs, local.path, how, progress, tally);
      }
      out.data({ files: tally.files, bytes: tally.bytes, failed: tally.failed }, () => "");
      return tally.failed > 0 ? 6 : 0;
    } finally {
      progress.finish();
    }
  });
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
