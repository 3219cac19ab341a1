/** A conflict that a person settles: the version that was put aside takes the name, or a name beside it. */
import { FsError } from "../fs/error.ts";
import type { Caller, InodeFs } from "../fs/inode_fs.ts";
import { RENAME_EXCHANGE, RENAME_NOREPLACE } from "../fs/inode_fs.ts";
import type { Tree } from "../index/tree.ts";
import type { Conflict } from "./conflict_list.ts";

const CALLER: Caller = { uid: 0, gid: 0, pid: 0 };

/** Nothing is removed: with `ours` the two versions change places. Throws not_found when one of them is not where it was. */
export async function settleByHand(
  conflict: Conflict,
  keep: "ours" | "both",
  fs: Pick<InodeFs, "rename" | "lookup">,
  tree: Tree,
): Promise<void> {
  const other = tree.anyName(conflict.loserIno);
  if (other === null) {
    throw new FsError(
      "not_found",
      `the other version of ${conflict.path} is not known here any more (${conflict.loser})`,
    );
  }
  // By identity: it may have been renamed since.
  const stands = conflict.winnerIno === 0 ? null : tree.anyName(conflict.winnerIno);
  if (keep === "ours" && stands !== null) {
    await fs.rename(other.parent, other.name, stands.parent, stands.name, RENAME_EXCHANGE, CALLER);
    return;
  }
  const at = await folderOf(conflict.path, fs);
  if (keep === "ours") {
    await fs.rename(other.parent, other.name, at.parent, at.name, RENAME_NOREPLACE, CALLER);
    return;
  }
  await fs.rename(other.parent, other.name, at.parent, other.name, RENAME_NOREPLACE, CALLER);
}

async function folderOf(path: string, fs: Pick<InodeFs, "lookup">): Promise<{ parent: number; name: string }> {
  const names = path.split("/").filter((name) => name !== "");
  const name = names.pop() ?? "";
  let parent = 1;
  for (const folder of names) {
    const stat = await fs.lookup(parent, folder, CALLER);
    if (stat === null) throw new FsError("not_found", `the folder of ${path} is gone; make it, or keep theirs`);
    parent = stat.ino;
  }
  return { parent, name };
}
