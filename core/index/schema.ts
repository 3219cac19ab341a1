/** The SQLite schema of the index and its numbered migrations (`PRAGMA user_version`). */
import type { Database } from "../platform/sqlite.ts";
import { FsError } from "../fs/error.ts";

/**
 * One entry a version; entry 0 brings an empty database to version 1. Never change an entry that was released.
 * Names are BLOBs: a Linux name is bytes, and TEXT would lose what is not UTF-8.
 */
export const MIGRATIONS: readonly string[] = [
  `
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE nodes(
  ino INTEGER PRIMARY KEY,
  mode INTEGER NOT NULL, nlink INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL, rdev INTEGER NOT NULL,
  size INTEGER NOT NULL,
  atime INTEGER NOT NULL, atime_nsec INTEGER NOT NULL, mtime INTEGER NOT NULL, mtime_nsec INTEGER NOT NULL,
  ctime INTEGER NOT NULL, ctime_nsec INTEGER NOT NULL, btime INTEGER NOT NULL, btime_nsec INTEGER NOT NULL,
  version INTEGER NOT NULL,
  content BLOB,
  target BLOB
) STRICT;

-- Kept by triggers: counting ten million rows takes seconds, and df asks often.
CREATE TABLE totals(id INTEGER PRIMARY KEY CHECK(id = 1), nodes INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
INSERT INTO totals(id, nodes, bytes) VALUES(1, 0, 0);
CREATE TRIGGER nodes_added AFTER INSERT ON nodes
  BEGIN UPDATE totals SET nodes = nodes + 1, bytes = bytes + NEW.size; END;
CREATE TRIGGER nodes_removed AFTER DELETE ON nodes
  BEGIN UPDATE totals SET nodes = nodes - 1, bytes = bytes - OLD.size; END;
CREATE TRIGGER nodes_resized AFTER UPDATE OF size ON nodes WHEN OLD.size <> NEW.size
  BEGIN UPDATE totals SET bytes = bytes + NEW.size - OLD.size; END;

CREATE TABLE dentries(parent INTEGER NOT NULL, name BLOB NOT NULL, ino INTEGER NOT NULL,
  PRIMARY KEY(parent, name)) STRICT, WITHOUT ROWID;
CREATE INDEX dentries_ino ON dentries(ino);

CREATE TABLE xattrs(ino INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL,
  PRIMARY KEY(ino, name)) STRICT, WITHOUT ROWID;

CREATE TABLE contents(id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, size INTEGER NOT NULL, manifest BLOB NOT NULL,
  refs INTEGER NOT NULL, dead_since INTEGER) STRICT;
CREATE INDEX contents_dead ON contents(dead_since) WHERE dead_since IS NOT NULL;
CREATE TABLE segments(id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, blob BLOB NOT NULL, refs INTEGER NOT NULL,
  packs TEXT NOT NULL, born INTEGER NOT NULL) STRICT;
CREATE INDEX segments_unused ON segments(born) WHERE refs = 0;
CREATE TABLE content_packs(content_id INTEGER NOT NULL, pack_id INTEGER NOT NULL,
  PRIMARY KEY(content_id, pack_id)) STRICT, WITHOUT ROWID;
CREATE INDEX content_packs_pack ON content_packs(pack_id);

CREATE TABLE chunks(hash BLOB PRIMARY KEY, pack_id INTEGER NOT NULL, offset INTEGER NOT NULL, stored INTEGER NOT NULL,
  raw INTEGER NOT NULL, flags INTEGER NOT NULL, refs INTEGER NOT NULL, born INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX chunks_pack ON chunks(pack_id);
CREATE INDEX chunks_unused ON chunks(born) WHERE refs = 0;

CREATE TABLE packs(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, state INTEGER NOT NULL, bytes INTEGER NOT NULL,
  live_bytes INTEGER NOT NULL, tiers INTEGER NOT NULL, created INTEGER NOT NULL, last_access INTEGER NOT NULL,
  hits INTEGER NOT NULL) STRICT;

CREATE TABLE wal(id INTEGER PRIMARY KEY AUTOINCREMENT, tier INTEGER NOT NULL, op TEXT NOT NULL, pack_id INTEGER NOT NULL,
  object TEXT, bytes INTEGER NOT NULL, attempts INTEGER NOT NULL, not_before INTEGER NOT NULL, last_error TEXT,
  created INTEGER NOT NULL, UNIQUE(tier, op, pack_id)) STRICT;

CREATE TABLE changes(seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, device INTEGER NOT NULL,
  request INTEGER NOT NULL, kind INTEGER NOT NULL, ino INTEGER NOT NULL, parent INTEGER NOT NULL, name BLOB) STRICT;

CREATE TABLE devices(no INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, host TEXT NOT NULL,
  first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL, last_request INTEGER NOT NULL) STRICT;
CREATE TABLE idempotency(key TEXT PRIMARY KEY, at INTEGER NOT NULL, result BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_at ON idempotency(at);
CREATE TABLE tokens(id TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, scope TEXT NOT NULL, path TEXT NOT NULL,
  created INTEGER NOT NULL, expires INTEGER, revoked INTEGER) STRICT, WITHOUT ROWID;
`,
  `
-- Bytes of the file that are holes; how many extended attributes it has, NULL: not counted.
ALTER TABLE nodes ADD COLUMN holes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN xattrs INTEGER;
`,
  // Which device a file's content is from: its own later changes can't be in conflict with it.
  "CREATE TABLE writers(ino INTEGER PRIMARY KEY, device INTEGER NOT NULL) STRICT;",
];

/** Pack states. */
export const PACK_OPEN = 0;
export const PACK_SEALED = 1;
/** No live byte left; being deleted from its tiers. */
export const PACK_DEAD = 2;

/** Kinds of `changes`: an entry now names `ino` (0: the entry is gone), or a node's attributes or content changed. */
export const CHANGE_ENTRY = 1;
export const CHANGE_NODE = 2;

/**
 * Brings the database to the newest schema, one transaction a step.
 * Throws `not_supported` when it was written by a newer program.
 */
export function migrate(db: Database, path: string): void {
  const row = db.prepare("PRAGMA user_version").get() as { user_version: number } | undefined;
  let version = row?.user_version ?? 0;
  if (version > MIGRATIONS.length) {
    throw new FsError(
      "not_supported",
      `the index ${path} has format ${version}, this program knows up to ${MIGRATIONS.length}; use the newer anyfs`,
      { path },
    );
  }
  for (const step of MIGRATIONS.slice(version)) {
    version++;
    db.exec("BEGIN IMMEDIATE");
    try {
      db.exec(step);
      db.exec(`PRAGMA user_version = ${version}`);
      db.exec("COMMIT");
    } catch (error) {
      db.exec("ROLLBACK");
      throw error;
    }
  }
}
