/** What a client has and a server that was restored from a backup has not: journaled again, folders before what is in them. */
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, type Stat } from "../fs/stat.ts";
import { type Op, ROOT_INO } from "../index/ops.ts";
import type { Tree } from "../index/tree.ts";
import type { ServerLink } from "../remote/protocol.ts";
import type { ContentCache } from "./content_cache.ts";

export interface SendAgain {
  readonly tree: Tree;
  readonly link: Pick<ServerLink, "call">;
  readonly cache: ContentCache;
  /** Undelivered changes of the node are in the journal already. */
  isOurs(ino: number): boolean;
  /** The server lacks this file and not all of it is here. */
  missing(path: string): void;
  make(op: Op): void;
  /** All of the file's bytes; `create` gives it its name first. */
  write(node: Stat, create: readonly Op[]): Promise<void>;
}

const PAGE = 1000;

/** Throws unavailable when the server goes away: what was journaled until then is sent all the same. */
export async function sendAgain(s: SendAgain, dir = ROOT_INO): Promise<void> {
  let after: string | null = null;
  for (;;) {
    const page = s.tree.readDir(dir, after, PAGE);
    const asked = page.map(({ stat }) => s.link.call("stat", { ino: stat.ino }));
    for (const each of asked) each.catch(() => {});
    for (const [i, { name, stat }] of page.entries()) {
      const theirs = await asked[i] ?? null;
      const kind = stat.mode & S_IFMT;
      const create: Op[] = [];
      if (theirs === null) {
        const { ino, mode, uid, gid, rdev } = stat;
        const time = { sec: stat.mtimeSec, nsec: stat.mtimeNsec };
        const target = kind === S_IFLNK ? s.tree.readLink(ino) : "";
        const link = target === "" ? {} : { target };
        create.push({ t: "create", parent: dir, name, ino, mode, uid, gid, rdev, ...link, time });
      }
      const same = theirs !== null && theirs.content === stat.content;
      if (kind === S_IFREG && stat.content !== null && !same) {
        if (s.isOurs(stat.ino)) create.forEach((op) => s.make(op));
        else if (s.cache.isComplete(stat.content, stat.size)) await s.write(stat, create);
        else s.missing(s.tree.pathOf(stat.ino) ?? name);
      } else create.forEach((op) => s.make(op));
      if (kind === S_IFDIR) await sendAgain(s, stat.ino);
    }
    const last = page.at(-1);
    if (last === undefined || page.length < PAGE) return;
    after = last.name;
  }
}
