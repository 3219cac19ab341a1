/** `anyfs cache`: what the mounts of this machine keep of the tree, and how to drop it. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { example } from "./example.ts";
import { resolvePath } from "../core/config/places.ts";
import { showSize } from "../core/config/units.ts";
import { FsError } from "../core/fs/error.ts";
import { type RunningMount, runningMounts } from "../core/offline/mount_control.ts";
import { currentFolder, getEnv } from "../core/platform/process.ts";

interface Options {
  readonly cacheDir?: string;
}

interface Stats {
  readonly smallContents: number;
  readonly smallBytes: number;
  readonly bigContents: number;
  readonly bigBytes: number;
  readonly maxBytes: number;
  readonly hits: number;
  readonly misses: number;
}

/** The running mounts, or the one at `folder`. Throws not_found when there is none. */
async function mounts(context: Context, folder: string | undefined, options: Options): Promise<RunningMount[]> {
  const { cache } = await context.config();
  const cacheDir = resolvePath(options.cacheDir ?? cache.dir, currentFolder(), getEnv);
  const running = await runningMounts(cacheDir);
  if (folder === undefined) {
    if (running.length > 0) return running;
    throw new FsError("not_found", `no mount is running with its cache in ${cacheDir}; "anyfs mount" starts one`);
  }
  const dir = resolvePath(folder, currentFolder(), getEnv);
  const found = running.filter((mount) => mount.dir === dir);
  if (found.length > 0) return found;
  throw new FsError("not_found", `no mount is running at ${dir} with its cache in ${cacheDir}`, { path: dir });
}

async function stats(context: Context, folder: string | undefined, options: Options): Promise<void> {
  const rows: (Stats & { readonly dir: string; readonly url: string })[] = [];
  for (const mount of await mounts(context, folder, options)) {
    rows.push({ dir: mount.dir, url: mount.url, ...await mount.call("cache.stats") as Stats });
  }
  const right = "right" as const;
  context.out.table(
    rows,
    [
      { title: "mount" },
      { title: "files", align: right },
      { title: "size", align: right },
      { title: "limit", align: right },
      { title: "hits", align: right },
      { title: "misses", align: right },
    ],
    (row) => [
      row.dir,
      String(row.smallContents + row.bigContents),
      showSize(row.smallBytes + row.bigBytes),
      showSize(row.maxBytes),
      String(row.hits),
      String(row.misses),
    ],
  );
}

async function clear(context: Context, folder: string | undefined, options: Options): Promise<void> {
  for (const mount of await mounts(context, folder, options)) {
    const { freed } = await mount.call("cache.clear") as { freed: number };
    context.out.item({ mount: mount.dir, freed }, () => `${mount.dir}: ${showSize(freed)} freed`);
  }
}

const CACHE_DIR = ["--cache-dir <dir>", "where the mount keeps its cache"] as const;
const FOLDER = ["[dir]", "only the mount at this folder"] as const;

export const command: CommandModule = {
  configure(command, start: Start) {
    const show = command.command("stats").description("what is cached").argument(...FOLDER).option(...CACHE_DIR)
      .action((dir, options) => start((context) => stats(context, dir, options)));
    example(show, "anyfs cache stats", "Files, bytes, hits and misses of every mount of this machine.");
    const drop = command.command("clear").description("drop what no program has open").argument(...FOLDER)
      .option(...CACHE_DIR)
      .action((dir, options) => start((context) => clear(context, dir, options)));
    example(drop, "anyfs cache clear ~/AnyFS", "Frees the room; what has not been delivered yet stays.");
    example(command, "anyfs cache stats", "What the mounts of this machine keep of the tree.");
  },
};
