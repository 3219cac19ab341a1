/** Follows symbolic links inside the tree: REST paths may lead through them, and never out of the tree. */
import { FsError, hasCode } from "../fs/error.ts";
import { kindOf, type Stat } from "../fs/stat.ts";
import type { IndexedFs } from "../indexed/core.ts";
import { nameOf, parentOf } from "./url_path.ts";

/** As Linux (MAXSYMLINKS). */
const MAX_LINKS = 40;

export interface Followed {
  /** The path without links. */
  readonly path: string;
  /** Null: the last component does not exist. */
  readonly stat: Stat | null;
}

/** Throws not_found (a parent), not_a_directory, too_many_links. */
export async function follow(fs: IndexedFs, path: string, signal: AbortSignal): Promise<Followed> {
  try {
    const stat = await fs.stat(path, { signal });
    if (kindOf(stat.mode) !== "symlink") return { path, stat };
  } catch (error) {
    if (hasCode(error, "not_found")) {
      const parent = parentOf(path);
      const above = await fs.stat(parent, { signal }).catch(() => null);
      if (above !== null && kindOf(above.mode) === "directory") return { path, stat: null };
    } else if (!hasCode(error, "not_a_directory") && !hasCode(error, "too_many_links")) throw error;
  }
  return await walk(fs, path, signal);
}

async function walk(fs: IndexedFs, path: string, signal: AbortSignal): Promise<Followed> {
  let left = path.split("/").filter((name) => name !== "");
  let at = "/";
  let links = 0;
  let stat: Stat | null = await fs.stat("/", { signal });
  while (left.length > 0) {
    const [name = "", ...rest] = left;
    left = rest;
    if (name === ".") continue;
    if (name === "..") {
      at = parentOf(at);
      continue;
    }
    const next = at === "/" ? `/${name}` : `${at}/${name}`;
    try {
      stat = await fs.stat(next, { signal });
    } catch (error) {
      if (hasCode(error, "not_found") && rest.length === 0) return { path: next, stat: null };
      throw error;
    }
    if (kindOf(stat.mode) !== "symlink") {
      at = next;
      continue;
    }
    if (++links > MAX_LINKS) {
      throw new FsError("too_many_links", `${path}: more than ${MAX_LINKS} symbolic links`, { path });
    }
    const target = await fs.readLink(next, { signal });
    if (target.startsWith("/")) at = "/";
    left = [...target.split("/").filter((part) => part !== ""), ...rest];
  }
  return { path: at, stat: at === "/" || nameOf(at) !== "" ? await fs.stat(at, { signal }) : stat };
}
