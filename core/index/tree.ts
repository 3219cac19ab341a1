/**
 * Tree: nodes, entries and extended attributes in SQLite, with POSIX semantics and no waiting. The server's index and a
 * client's replica are the same code, so both ends agree on what an operation does.
 */
import { Errno, errorFromErrno, FsError } from "../fs/error.ts";
import { checkName, decodeName, encodeName } from "../fs/names.ts";
import {
  type DirEntry,
  type ListedEntry,
  type ListedName,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  type Stat,
} from "../fs/stat.ts";
import { RENAME_EXCHANGE, RENAME_NOREPLACE } from "../fs/inode_fs.ts";
import type { SqlValue } from "../platform/sqlite.ts";
import { hex, unhex } from "../store/hash.ts";
import { listEntries, listNames } from "./listing.ts";
import type { Row, Statements } from "./statements.ts";
import { INO_STRIDE, LINK_MAX, type Op, type OpDone, ROOT_INO, type Time } from "./ops.ts";

/** What the tree tells its owner while it changes; the server writes its change feed from it. */
export interface TreeEvents {
  /** (parent, name) names `ino` now; 0: it is gone. */
  entry(parent: number, name: string, ino: number): void;
  /** Attributes or content of the node changed. */
  node(ino: number): void;
  /** A reference to a content was added (+1) or dropped (-1). */
  contentRef(hash: string, delta: 1 | -1): void;
  /** The file is new or got new bytes. */
  written?(ino: number): void;
  /** The file's bytes are from the device whose operations are applied now: whatever it expects, it knows them. */
  isOwn?(ino: number): boolean;
}

/** What extended attributes take: how many they are, bytes of their names as a list of them has them, and of their values. */
export interface XattrUse {
  readonly count: number;
  readonly names: number;
  readonly values: number;
}

const COLUMNS = `n.ino, n.mode, n.nlink, n.uid, n.gid, n.rdev, n.size, n.atime, n.atime_nsec, n.mtime, n.mtime_nsec,
 n.ctime, n.ctime_nsec, n.btime, n.btime_nsec, n.version, n.content, n.holes, n.xattrs`;

function toStat(row: Row, at = 0): Stat {
  const n = (i: number) => row[at + i] as number;
  const content = row[at + 16];
  return {
    ino: n(0),
    mode: n(1),
    nlink: n(2),
    uid: n(3),
    gid: n(4),
    rdev: n(5),
    size: n(6),
    atimeSec: n(7),
    atimeNsec: n(8),
    mtimeSec: n(9),
    mtimeNsec: n(10),
    ctimeSec: n(11),
    ctimeNsec: n(12),
    btimeSec: n(13),
    btimeNsec: n(14),
    version: n(15),
    content: content instanceof Uint8Array ? hex(content) : null,
    tiers: 0,
    holes: n(17),
    xattrs: row[at + 18] as number | null,
  };
}

/** The parameters that store a Stat, in the order of the columns. */
function fromStat(s: Stat): SqlValue[] {
  return [
    s.ino,
    s.mode,
    s.nlink,
    s.uid,
    s.gid,
    s.rdev,
    s.size,
    s.atimeSec,
    s.atimeNsec,
    s.mtimeSec,
    s.mtimeNsec,
    s.ctimeSec,
    s.ctimeNsec,
    s.btimeSec,
    s.btimeNsec,
    s.version,
    s.content === null ? null : unhex(s.content),
    s.holes ?? 0,
    s.xattrs ?? null,
  ];
}

const isDir = (s: Stat) => (s.mode & S_IFMT) === S_IFDIR;

export class Tree {
  readonly #sql: Statements;
  readonly #events: TreeEvents;
  #lastIno = 0;

  /** The database has the schema of schema.ts. */
  constructor(sql: Statements, events: TreeEvents) {
    this.#sql = sql;
    this.#events = events;
  }

  /** Makes the root folder when the tree is empty. */
  ensureRoot(time: Time): void {
    if (this.stat(ROOT_INO) !== null) return;
    this.put({ ...blankStat(ROOT_INO, S_IFDIR | 0o755, time), nlink: 2 });
  }

  // --- reading ---

  /** Null when there is no such node. */
  stat(ino: number): Stat | null {
    const row = this.#sql.row(`SELECT ${COLUMNS} FROM nodes n WHERE n.ino = ?`, ino);
    return row === undefined ? null : toStat(row);
  }
  /** The node's inode number by entry, or 0. */
  entry(parent: number, name: string): number {
    const row = this.#sql.row("SELECT ino FROM dentries WHERE parent = ? AND name = ?", parent, encodeName(name));
    return row === undefined ? 0 : row[0] as number;
  }
  /** Null when there is no such entry. Does not check that `parent` is a directory. */
  lookup(parent: number, name: string): Stat | null {
    const row = this.#sql.row(
      `SELECT ${COLUMNS} FROM dentries d JOIN nodes n ON n.ino = d.ino WHERE d.parent = ? AND d.name = ?`,
      parent,
      encodeName(name),
    );
    return row === undefined ? null : toStat(row);
  }
  /** Entries after the name `after` (bytewise order), at most `limit`. */
  readDir(parent: number, after: string | null, limit: number): DirEntry[] {
    const rows = this.#sql.rows(
      `SELECT ${COLUMNS}, d.name FROM dentries d JOIN nodes n ON n.ino = d.ino
       WHERE d.parent = ? AND d.name > ? ORDER BY d.name LIMIT ? + 0`,
      parent,
      after === null ? new Uint8Array() : encodeName(after),
      limit,
    );
    return rows.map((row) => ({ name: decodeName(row[19] as Uint8Array), stat: toStat(row) }));
  }
  /** As `readDir`, but only what stat(2) tells: a third of its cost. */
  list(parent: number, after: string | null, limit: number): ListedEntry[] {
    return listEntries(this.#sql, parent, after, limit) ?? this.readDir(parent, after, limit);
  }
  /** As `readDir`, but only names, numbers and types: a sixth of its cost. */
  listNames(parent: number, after: string | null, limit: number): ListedName[] {
    return listNames(this.#sql, parent, after, limit) ?? this.readDir(parent, after, limit);
  }
  hasEntries(parent: number): boolean {
    return this.#sql.row("SELECT 1 FROM dentries WHERE parent = ? LIMIT 1", parent) !== undefined;
  }
  /** Throws not_found, invalid_input when it is no symlink. */
  readLink(ino: number): string {
    const row = this.#sql.row("SELECT mode, target FROM nodes WHERE ino = ?", ino);
    if (row === undefined) throw gone("readlink", ino);
    if (((row[0] as number) & S_IFMT) !== S_IFLNK) {
      throw new FsError("invalid_input", "not a symbolic link", { operation: "readlink" });
    }
    return row[1] instanceof Uint8Array ? decodeName(row[1]) : "";
  }
  /** Some (parent, name) of the node, or null for the root and for nodes without a name. */
  anyName(ino: number): { parent: number; name: string } | null {
    const row = this.#sql.row("SELECT parent, name FROM dentries WHERE ino = ? LIMIT 1", ino);
    return row === undefined ? null : { parent: row[0] as number, name: decodeName(row[1] as Uint8Array) };
  }
  /** The absolute path of a node by one of its names; null when it has none. */
  pathOf(ino: number): string | null {
    const parts: string[] = [];
    let at = ino;
    while (at !== ROOT_INO) {
      const name = this.anyName(at);
      if (name === null || parts.length > 4096) return null;
      parts.push(name.name);
      at = name.parent;
    }
    return "/" + parts.reverse().join("/");
  }
  getXattr(ino: number, name: string): Uint8Array | null {
    const row = this.#sql.row("SELECT value FROM xattrs WHERE ino = ? AND name = ?", ino, encodeName(name));
    return row === undefined ? null : row[0] as Uint8Array;
  }
  listXattr(ino: number): string[] {
    const rows = this.#sql.rows("SELECT name FROM xattrs WHERE ino = ? ORDER BY name", ino);
    return rows.map((row) => decodeName(row[0] as Uint8Array));
  }
  xattrs(ino: number): [name: string, value: Uint8Array][] {
    const rows = this.#sql.rows("SELECT name, value FROM xattrs WHERE ino = ? ORDER BY name", ino);
    return rows.map(([name, value]) => [decodeName(name as Uint8Array), value as Uint8Array]);
  }
  /** What the extended attributes of a node take, those named `except` left out. */
  xattrUse(ino: number, except = ""): XattrUse {
    const sql = `SELECT COUNT(*), IFNULL(SUM(LENGTH(name) + 1), 0), IFNULL(SUM(LENGTH(value)), 0)
      FROM xattrs WHERE ino = ? AND name <> ?`;
    const [count, names, values] = this.#sql.row(sql, ino, encodeName(except)) as number[];
    return { count: count ?? 0, names: names ?? 0, values: values ?? 0 };
  }
  counts(): { nodes: number; bytes: number } {
    const row = this.#sql.row("SELECT nodes, bytes FROM totals");
    return { nodes: (row?.[0] as number | undefined) ?? 0, bytes: (row?.[1] as number | undefined) ?? 0 };
  }

  // --- raw changes (a replica takes over what the server says) ---

  /** Inserts or replaces the node's row. The symlink target stays unless given. */
  put(s: Stat, target?: string): void {
    this.#sql.run(
      `INSERT INTO nodes(ino, mode, nlink, uid, gid, rdev, size, atime, atime_nsec, mtime, mtime_nsec, ctime, ctime_nsec,
         btime, btime_nsec, version, content, holes, xattrs, target) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
       ON CONFLICT(ino) DO UPDATE SET mode=excluded.mode, nlink=excluded.nlink, uid=excluded.uid, gid=excluded.gid,
         rdev=excluded.rdev, size=excluded.size, atime=excluded.atime, atime_nsec=excluded.atime_nsec,
         mtime=excluded.mtime, mtime_nsec=excluded.mtime_nsec, ctime=excluded.ctime, ctime_nsec=excluded.ctime_nsec,
         btime=excluded.btime, btime_nsec=excluded.btime_nsec, version=excluded.version, content=excluded.content,
         holes=excluded.holes, xattrs=excluded.xattrs, target=coalesce(excluded.target, target)`,
      ...fromStat(s),
      target === undefined ? null : encodeName(target),
    );
  }
  putEntry(parent: number, name: string, ino: number): void {
    this.#sql.run(
      "INSERT INTO dentries(parent, name, ino) VALUES(?,?,?) ON CONFLICT(parent, name) DO UPDATE SET ino=excluded.ino",
      parent,
      encodeName(name),
      ino,
    );
  }
  dropEntry(parent: number, name: string): void {
    this.#sql.run("DELETE FROM dentries WHERE parent = ? AND name = ?", parent, encodeName(name));
  }
  dropNode(ino: number): void {
    this.#sql.run("DELETE FROM nodes WHERE ino = ?", ino);
    this.#sql.run("DELETE FROM xattrs WHERE ino = ?", ino);
  }

  // --- operations ---

  /** Applies one operation. Throws FsError by POSIX's rules and then has changed nothing the caller may keep: roll back. */
  apply(op: Op): OpDone {
    switch (op.t) {
      case "create":
        return this.#create(op);
      case "link":
        return this.#link(op);
      case "unlink":
        return this.#unlink(op);
      case "rmdir":
        return this.#rmdir(op);
      case "rename":
        return this.#rename(op);
      case "attr":
        return this.#attr(op);
      case "atime":
        return this.#atime(op);
      case "content":
        return this.#content(op);
      case "setxattr":
        return this.#setXattr(op);
      case "removexattr":
        return this.#removeXattr(op);
    }
  }

  /** An inode number of the server's own range (below INO_STRIDE). */
  allotIno(): number {
    const kept = Number(this.#sql.row("SELECT value FROM meta WHERE key = 'last_ino'")?.[0] ?? 0);
    if (this.#lastIno === 0) {
      const row = this.#sql.row("SELECT max(ino) FROM nodes WHERE ino < ?", INO_STRIDE);
      this.#lastIno = Math.max(ROOT_INO, (row?.[0] as number | null) ?? 0, kept);
    }
    this.#lastIno++;
    // Numbers are handed out once for ever: a journal elsewhere may still speak of a removed node. Reserved in strides,
    // and looked up each time, because the reservation may have been rolled back.
    if (this.#lastIno > kept) {
      this.#sql.run(
        "INSERT INTO meta(key, value) VALUES('last_ino', ?) ON CONFLICT(key) DO UPDATE SET value=excluded.value",
        String(this.#lastIno + 1024),
      );
    }
    return this.#lastIno;
  }

  #dir(ino: number, operation: string): Stat {
    const dir = this.stat(ino);
    if (dir === null) throw gone(operation, ino);
    if (!isDir(dir)) throw new FsError("not_a_directory", "not a directory", { operation });
    return dir;
  }
  #node(ino: number, operation: string): Stat {
    const node = this.stat(ino);
    if (node === null) throw gone(operation, ino);
    return node;
  }
  #touchDir(dir: Stat, time: Time, links: number): void {
    this.#sql.run(
      "UPDATE nodes SET mtime=?, mtime_nsec=?, ctime=?, ctime_nsec=?, nlink=nlink+?, version=version+1 WHERE ino=?",
      time.sec,
      time.nsec,
      time.sec,
      time.nsec,
      links,
      dir.ino,
    );
    this.#events.node(dir.ino);
  }
  #target(parent: number, name: string, believed: number, operation: string): Stat {
    const found = this.lookup(parent, name);
    if (found === null) throw new FsError("not_found", `no entry ${JSON.stringify(name)}`, { operation, path: name });
    if (believed !== 0 && found.ino !== believed) {
      throw new FsError("conflict", `${JSON.stringify(name)} names another file by now`, { operation, path: name });
    }
    return found;
  }

  #create(op: Op & { t: "create" }): OpDone {
    checkName(op.name);
    const dir = this.#dir(op.parent, "create");
    if (this.entry(op.parent, op.name) !== 0) {
      throw new FsError("already_exists", `${JSON.stringify(op.name)} exists`, { operation: "create", path: op.name });
    }
    const ino = op.ino === 0 ? this.allotIno() : op.ino;
    if (op.ino !== 0 && this.stat(op.ino) !== null) {
      throw new FsError("conflict", `the inode number ${op.ino} is taken`, { operation: "create", path: op.name });
    }
    const directory = (op.mode & S_IFMT) === S_IFDIR;
    const node = { ...blankStat(ino, op.mode, op.time), uid: op.uid, gid: op.gid, rdev: op.rdev };
    node.nlink = directory ? 2 : 1;
    if (op.target !== undefined) node.size = encodeName(op.target).length;
    this.put(node, op.target);
    this.putEntry(op.parent, op.name, ino);
    this.#events.entry(op.parent, op.name, ino);
    if ((op.mode & S_IFMT) === S_IFREG) this.#events.written?.(ino);
    this.#touchDir(dir, op.time, directory ? 1 : 0);
    return { ino, version: node.version };
  }

  #link(op: Op & { t: "link" }): OpDone {
    checkName(op.name);
    const dir = this.#dir(op.parent, "link");
    const node = this.#node(op.ino, "link");
    if (isDir(node)) {
      throw new FsError("permission_denied", "a directory can't have a second name", { operation: "link" });
    }
    if (node.nlink >= LINK_MAX) throw errorFromErrno(Errno.EMLINK, `more than ${LINK_MAX} names`, { limit: LINK_MAX });
    if (this.entry(op.parent, op.name) !== 0) {
      throw new FsError("already_exists", `${JSON.stringify(op.name)} exists`, { operation: "link", path: op.name });
    }
    this.putEntry(op.parent, op.name, op.ino);
    this.#sql.run(
      "UPDATE nodes SET nlink=nlink+1, ctime=?, ctime_nsec=?, version=version+1 WHERE ino=?",
      op.time.sec,
      op.time.nsec,
      op.ino,
    );
    this.#events.entry(op.parent, op.name, op.ino);
    this.#events.node(op.ino);
    this.#touchDir(dir, op.time, 0);
    return { ino: op.ino, version: node.version + 1 };
  }

  /** One name less; the node goes with its last one. */
  #dropName(node: Stat, time: Time): number {
    if (isDir(node) || node.nlink <= 1) {
      if (node.content !== null) this.#events.contentRef(node.content, -1);
      this.dropNode(node.ino);
      this.#events.node(node.ino);
      return 0;
    }
    this.#sql.run(
      "UPDATE nodes SET nlink=nlink-1, ctime=?, ctime_nsec=?, version=version+1 WHERE ino=?",
      time.sec,
      time.nsec,
      node.ino,
    );
    this.#events.node(node.ino);
    return node.version + 1;
  }

  /** Throws conflict when the file's last name would go and the sender thought of other names, or of another content. */
  #mustBeSeen(
    node: Stat,
    content: string | null | undefined,
    others: boolean | undefined,
    name: string,
    operation: string,
  ): void {
    if (node.nlink > 1 || isDir(node)) return;
    if (others === true) {
      throw new FsError("conflict", `${JSON.stringify(name)} is the file's last name by now`, {
        operation,
        path: name,
      });
    }
    if (content === undefined || (node.mode & S_IFMT) !== S_IFREG || node.content === content) return;
    if (this.#events.isOwn?.(node.ino) === true) return;
    throw new FsError("conflict", `${JSON.stringify(name)} was changed by somebody else meanwhile`, {
      operation,
      path: name,
    });
  }

  #unlink(op: Op & { t: "unlink" }): OpDone {
    const dir = this.#dir(op.parent, "unlink");
    const node = this.#target(op.parent, op.name, op.ino, "unlink");
    if (isDir(node)) throw new FsError("is_a_directory", "a directory is removed with rmdir", { operation: "unlink" });
    this.#mustBeSeen(node, op.baseContent, op.others, op.name, "unlink");
    this.dropEntry(op.parent, op.name);
    this.#events.entry(op.parent, op.name, 0);
    const version = this.#dropName(node, op.time);
    this.#touchDir(dir, op.time, 0);
    return { ino: node.ino, version };
  }

  #rmdir(op: Op & { t: "rmdir" }): OpDone {
    const dir = this.#dir(op.parent, "rmdir");
    const node = this.#target(op.parent, op.name, op.ino, "rmdir");
    if (!isDir(node)) throw new FsError("not_a_directory", "not a directory", { operation: "rmdir", path: op.name });
    if (this.hasEntries(node.ino)) {
      throw new FsError("directory_not_empty", "the directory is not empty", { operation: "rmdir", path: op.name });
    }
    this.dropEntry(op.parent, op.name);
    this.#events.entry(op.parent, op.name, 0);
    this.#dropName(node, op.time);
    this.#touchDir(dir, op.time, -1);
    return { ino: node.ino, version: 0 };
  }

  /** Is `ino` the folder `below` or one above it? */
  #isAbove(ino: number, below: number): boolean {
    let at = below;
    for (let depth = 0; at !== ROOT_INO && depth < 100_000; depth++) {
      if (at === ino) return true;
      const name = this.anyName(at);
      if (name === null) return false;
      at = name.parent;
    }
    return at === ino;
  }

  #rename(op: Op & { t: "rename" }): OpDone {
    checkName(op.newName);
    const from = this.#dir(op.parent, "rename");
    const to = op.newParent === op.parent ? from : this.#dir(op.newParent, "rename");
    const node = this.#target(op.parent, op.name, op.ino, "rename");
    const there = this.lookup(op.newParent, op.newName);
    if (there !== null && (op.flags & RENAME_NOREPLACE) !== 0) {
      throw new FsError("already_exists", `${JSON.stringify(op.newName)} exists`, {
        operation: "rename",
        path: op.newName,
      });
    }
    if (isDir(node) && op.newParent !== op.parent && this.#isAbove(node.ino, op.newParent)) {
      throw new FsError("invalid_input", "a directory can't be moved into itself", {
        operation: "rename",
        path: op.name,
      });
    }
    if ((op.flags & RENAME_EXCHANGE) !== 0) return this.#exchange(op, from, to, node, there);
    if (there !== null && there.ino === node.ino) {
      const itself = op.parent === op.newParent && op.name === op.newName;
      if (itself || isDir(node) || node.nlink < 2 || op.overIno === undefined || op.overIno === node.ino) {
        return { ino: node.ino, version: node.version };
      }
      // Somebody linked it there meanwhile: the sender meant it to have this name only.
      this.dropEntry(op.parent, op.name);
      this.#events.entry(op.parent, op.name, 0);
      const version = this.#dropName(node, op.time);
      this.#touchDir(from, op.time, 0);
      return { ino: node.ino, version };
    }
    if (there !== null) {
      if (isDir(there) && !isDir(node)) {
        throw new FsError("is_a_directory", "a directory is in the way", { path: op.newName });
      }
      if (!isDir(there) && isDir(node)) {
        throw new FsError("not_a_directory", "a file is in the way", { path: op.newName });
      }
      if (isDir(there) && this.hasEntries(there.ino)) {
        throw new FsError("directory_not_empty", "the directory in the way is not empty", { path: op.newName });
      }
      if (op.overIno !== undefined && op.overIno !== there.ino) {
        throw new FsError("conflict", `${JSON.stringify(op.newName)} names another file by now`, {
          operation: "rename",
          path: op.newName,
        });
      }
      this.#mustBeSeen(there, op.overContent, op.overOthers, op.newName, "rename");
      this.#dropName(there, op.time);
    }
    this.dropEntry(op.parent, op.name);
    this.putEntry(op.newParent, op.newName, node.ino);
    this.#events.entry(op.parent, op.name, 0);
    this.#events.entry(op.newParent, op.newName, node.ino);
    this.#bumpCtime(node.ino, op.time);
    const moved = isDir(node) ? 1 : 0;
    const replaced = there !== null && isDir(there) ? 1 : 0;
    if (op.parent === op.newParent) this.#touchDir(from, op.time, -replaced);
    else {
      this.#touchDir(from, op.time, -moved);
      this.#touchDir(to, op.time, moved - replaced);
    }
    return { ino: node.ino, version: node.version + 1 };
  }

  #exchange(op: Op & { t: "rename" }, from: Stat, to: Stat, node: Stat, there: Stat | null): OpDone {
    if (there === null) {
      throw new FsError("not_found", "nothing to exchange with", { operation: "rename", path: op.newName });
    }
    if (isDir(there) && op.newParent !== op.parent && this.#isAbove(there.ino, op.parent)) {
      throw new FsError("invalid_input", "a directory can't be moved into itself", {
        operation: "rename",
        path: op.newName,
      });
    }
    this.putEntry(op.parent, op.name, there.ino);
    this.putEntry(op.newParent, op.newName, node.ino);
    this.#events.entry(op.parent, op.name, there.ino);
    this.#events.entry(op.newParent, op.newName, node.ino);
    this.#bumpCtime(node.ino, op.time);
    if (there.ino !== node.ino) this.#bumpCtime(there.ino, op.time);
    const shift = (isDir(there) ? 1 : 0) - (isDir(node) ? 1 : 0);
    if (op.parent === op.newParent) this.#touchDir(from, op.time, 0);
    else {
      this.#touchDir(from, op.time, shift);
      this.#touchDir(to, op.time, -shift);
    }
    return { ino: node.ino, version: node.version + 1 };
  }

  #bumpCtime(ino: number, time: Time): void {
    this.#sql.run("UPDATE nodes SET ctime=?, ctime_nsec=?, version=version+1 WHERE ino=?", time.sec, time.nsec, ino);
    this.#events.node(ino);
  }

  #attr(op: Op & { t: "attr" }): OpDone {
    const node = this.#node(op.ino, "setattr");
    const next: Stat = { ...node, version: node.version + 1, ctimeSec: op.time.sec, ctimeNsec: op.time.nsec };
    if (op.mode !== undefined) next.mode = (node.mode & S_IFMT) | (op.mode & 0o7777);
    if (op.uid !== undefined) next.uid = op.uid;
    if (op.gid !== undefined) next.gid = op.gid;
    if (op.atime !== undefined) [next.atimeSec, next.atimeNsec] = [op.atime.sec, op.atime.nsec];
    if (op.mtime !== undefined) [next.mtimeSec, next.mtimeNsec] = [op.mtime.sec, op.mtime.nsec];
    this.put(next);
    this.#events.node(op.ino);
    return { ino: op.ino, version: next.version };
  }

  #atime({ ino, atime: { sec, nsec } }: Op & { t: "atime" }): OpDone {
    this.#sql.run(
      "UPDATE nodes SET atime=?1, atime_nsec=?2 WHERE ino=?3 AND (atime, atime_nsec) < (?1, ?2)",
      sec,
      nsec,
      ino,
    );
    return { ino, version: 0 };
  }

  #content(op: Op & { t: "content" }): OpDone {
    const node = this.#node(op.ino, "write");
    if ((node.mode & S_IFMT) !== S_IFREG) {
      throw new FsError("is_a_directory", "not a regular file", { operation: "write" });
    }
    if (op.base !== null && node.version !== op.base) {
      throw new FsError("conflict", `the file changed meanwhile (version ${node.version}, expected ${op.base})`, {
        operation: "write",
      });
    }
    if (
      op.baseContent !== undefined && op.baseContent !== node.content && op.content !== node.content &&
      this.#events.isOwn?.(op.ino) !== true
    ) {
      throw new FsError("conflict", "the file's content was changed by somebody else meanwhile", {
        operation: "write",
      });
    }
    this.#events.written?.(op.ino);
    if (op.content !== null) this.#events.contentRef(op.content, 1);
    if (node.content !== null) this.#events.contentRef(node.content, -1);
    const next: Stat = {
      ...node,
      version: node.version + 1,
      content: op.content,
      size: op.size,
      holes: Math.min(op.holes ?? 0, op.size),
      mtimeSec: op.time.sec,
      mtimeNsec: op.time.nsec,
      ctimeSec: op.time.sec,
      ctimeNsec: op.time.nsec,
    };
    if (op.mode !== undefined) next.mode = (node.mode & S_IFMT) | (op.mode & 0o7777);
    this.put(next);
    this.#events.node(op.ino);
    return { ino: op.ino, version: next.version };
  }

  #setXattr(op: Op & { t: "setxattr" }): OpDone {
    const node = this.#node(op.ino, "setxattr");
    const name = encodeName(op.name);
    const exists = this.#sql.row("SELECT 1 FROM xattrs WHERE ino=? AND name=?", op.ino, name) !== undefined;
    const XATTR_CREATE = 1;
    const XATTR_REPLACE = 2;
    if ((op.flags & XATTR_CREATE) !== 0 && exists) {
      throw new FsError("already_exists", "the attribute exists", { path: op.name });
    }
    if ((op.flags & XATTR_REPLACE) !== 0 && !exists) throw noAttribute(op.name);
    this.#sql.run(
      "INSERT INTO xattrs(ino, name, value) VALUES(?,?,?) ON CONFLICT(ino, name) DO UPDATE SET value=excluded.value",
      op.ino,
      name,
      op.value,
    );
    if (!exists) this.#sql.run("UPDATE nodes SET xattrs = xattrs + 1 WHERE ino = ?", op.ino);
    this.#bumpCtime(op.ino, op.time);
    return { ino: op.ino, version: node.version + 1 };
  }

  #removeXattr(op: Op & { t: "removexattr" }): OpDone {
    const node = this.#node(op.ino, "removexattr");
    const result = this.#sql.run("DELETE FROM xattrs WHERE ino=? AND name=?", op.ino, encodeName(op.name));
    if (result === 0) throw noAttribute(op.name);
    this.#sql.run("UPDATE nodes SET xattrs = xattrs - 1 WHERE ino = ?", op.ino);
    this.#bumpCtime(op.ino, op.time);
    return { ino: op.ino, version: node.version + 1 };
  }
}

function gone(operation: string, ino: number): FsError {
  return new FsError("not_found", `the file no longer exists (inode ${ino})`, { operation, errno: Errno.ENOENT });
}

/** ENODATA: the extended attribute is not there. */
export function noAttribute(name: string): FsError {
  return new FsError("not_found", `no extended attribute ${name}`, { path: name, errno: Errno.ENODATA });
}

/** A fresh node: one link, version 1, all four times the same. */
export function blankStat(ino: number, mode: number, time: Time): Stat {
  return {
    ino,
    mode,
    nlink: 1,
    uid: 0,
    gid: 0,
    rdev: 0,
    size: 0,
    atimeSec: time.sec,
    atimeNsec: time.nsec,
    mtimeSec: time.sec,
    mtimeNsec: time.nsec,
    ctimeSec: time.sec,
    ctimeNsec: time.nsec,
    btimeSec: time.sec,
    btimeNsec: time.nsec,
    version: 1,
    content: null,
    tiers: 0,
    holes: 0,
    xattrs: 0,
  };
}
