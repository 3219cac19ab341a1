/** The running mounts of this machine, as commands name them: by mount point, by a path inside one, or all. */
import type { Context } from "./context.ts";
import { parseTreePath } from "./arguments.ts";
import { resolvePath } from "../core/config/places.ts";
import { FsError } from "../core/fs/error.ts";
import { type RunningMount, runningMounts } from "../core/offline/mount_control.ts";
import { currentFolder, getEnv } from "../core/platform/process.ts";

export const CACHE_DIR = ["--cache-dir <dir>", "where the mount keeps its cache"] as const;
export const MOUNT = ["--mount <dir>", "only the mount at this folder"] as const;

export interface MountOptions {
  readonly cacheDir?: string;
  /** A mount point. */
  readonly mount?: string;
}

async function cacheDirOf(context: Context, options: MountOptions): Promise<string> {
  const { cache } = await context.config();
  return resolvePath(options.cacheDir ?? cache.dir, currentFolder(), getEnv);
}
/** All of them, or the one at `options.mount`. Throws not_found when there is none. */
export async function localMounts(context: Context, options: MountOptions): Promise<RunningMount[]> {
  const cacheDir = await cacheDirOf(context, options);
  const running = await runningMounts(cacheDir);
  if (options.mount === undefined) {
    if (running.length > 0) return running;
    throw new FsError("not_found", `no mount is running with its cache in ${cacheDir}; "anyfs mount" starts one`);
  }
  const dir = resolvePath(options.mount, currentFolder(), getEnv);
  const found = running.filter((mount) => mount.dir === dir);
  if (found.length > 0) return found;
  throw new FsError("not_found", `no mount is running at ${dir} with its cache in ${cacheDir}`, { path: dir });
}
/** As `localMounts`, empty when there is none. */
export async function anyMounts(context: Context, options: MountOptions): Promise<RunningMount[]> {
  return await runningMounts(await cacheDirOf(context, options));
}
/**
 * The mounts and the path in the tree that an argument means: a path below a running mount is of that one, any other
 * absolute path (or `anyfs:/path`) is one in the tree of every mount.
 */
export async function mountsFor(
  context: Context,
  given: string,
  options: MountOptions,
): Promise<{ mount: RunningMount; path: string }[]> {
  const mounts = await localMounts(context, options);
  const local = given.startsWith("anyfs:") ? null : resolvePath(given, currentFolder(), getEnv);
  const inside = mounts.find(({ dir }) => local === dir || local?.startsWith(`${dir}/`));
  if (local !== null && inside !== undefined) {
    return [{ mount: inside, path: local.slice(inside.dir.length) || "/" }];
  }
  const path = parseTreePath(given);
  return mounts.map((mount) => ({ mount, path }));
}
