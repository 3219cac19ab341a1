/**
 * Pages of a folder's entries, each read as one row: all names in one blob, numbers as JSON. A row of its own for each
 * entry, with its blobs, costs three to ten times as much on its way into JavaScript as in SQLite.
 */
import { decodeName, encodeName } from "../fs/names.ts";
import type { ListedEntry, ListedName } from "../fs/stat.ts";
import type { Statements } from "./statements.ts";

/** What no name holds, between the names. */
const SEPARATOR = "/";

// The subquery's order is that of the aggregates: it is not flattened because of its LIMIT, and a left join keeps it
// outside. An entry whose node is not there comes with NULL and is passed over here. With `LIMIT ?` SQLite (with STAT4)
// plans by the value, and compiles the statement again at each run: 20 us.
const FROM = `FROM (SELECT name, ino FROM dentries WHERE parent = ? AND name > ? ORDER BY name LIMIT ? + 0) d
 LEFT JOIN nodes n ON n.ino = d.ino`;
const NAMES = `CAST(group_concat(d.name, '${SEPARATOR}') AS BLOB)`;
const PLAIN = `SELECT ${NAMES}, json_group_array(n.ino), json_group_array(n.mode) ${FROM}`;
const FULL = `SELECT ${NAMES}, json_group_array(json_array(n.ino, n.mode, n.nlink, n.uid, n.gid, n.rdev, n.size,
 n.atime, n.atime_nsec, n.mtime, n.mtime_nsec, n.ctime, n.ctime_nsec, n.holes)) ${FROM}`;

/** The columns of FULL; all null without a node. */
type Attr = readonly [
  ino: number | null,
  mode: number,
  nlink: number,
  uid: number,
  gid: number,
  rdev: number,
  size: number,
  atime: number,
  atimeNsec: number,
  mtime: number,
  mtimeNsec: number,
  ctime: number,
  ctimeNsec: number,
  holes: number,
];

/** More or fewer than there are nodes: a name holds a separator. */
const namesOf = (blob: unknown): string[] => blob instanceof Uint8Array ? decodeName(blob).split(SEPARATOR) : [];

/**
 * Entries after the name `after` (bytewise order; null: from the start), at most `limit`; none means the end.
 * Null: a name here is none that a folder can have, and the entries have to be read one by one.
 */
export function listEntries(
  sql: Statements,
  parent: number,
  after: string | null,
  limit: number,
): ListedEntry[] | null {
  for (let from = after;;) {
    const row = sql.row(FULL, parent, from === null ? new Uint8Array() : encodeName(from), limit);
    const names = namesOf(row?.[0]);
    const attrs = JSON.parse(row?.[1] as string) as Attr[];
    if (names.length !== attrs.length) return null;
    const page: ListedEntry[] = [];
    for (let i = 0; i < attrs.length; i++) {
      const a = attrs[i];
      const name = names[i];
      if (a === undefined || name === undefined || a[0] === null) continue;
      page.push({
        name,
        stat: {
          ino: a[0],
          mode: a[1],
          nlink: a[2],
          uid: a[3],
          gid: a[4],
          rdev: a[5],
          size: a[6],
          atimeSec: a[7],
          atimeNsec: a[8],
          mtimeSec: a[9],
          mtimeNsec: a[10],
          ctimeSec: a[11],
          ctimeNsec: a[12],
          holes: a[13],
        },
      });
    }
    if (page.length > 0 || names.length < limit) return page;
    from = names.at(-1) ?? null;
  }
}

/** As `listEntries`, but names, numbers and types only. */
export function listNames(
  sql: Statements,
  parent: number,
  after: string | null,
  limit: number,
): ListedName[] | null {
  for (let from = after;;) {
    const row = sql.row(PLAIN, parent, from === null ? new Uint8Array() : encodeName(from), limit);
    const names = namesOf(row?.[0]);
    const inos = JSON.parse(row?.[1] as string) as (number | null)[];
    const modes = JSON.parse(row?.[2] as string) as number[];
    if (names.length !== inos.length) return null;
    const page: ListedName[] = [];
    for (let i = 0; i < inos.length; i++) {
      const ino = inos[i];
      const name = names[i];
      if (ino === undefined || ino === null || name === undefined) continue;
      page.push({ name, stat: { ino, mode: modes[i] ?? 0 } });
    }
    if (page.length > 0 || names.length < limit) return page;
    from = names.at(-1) ?? null;
  }
}
