/** The thread that does what would hold up the index for long: checkpoints and checks, by a connection of its own. */
import { type Database, openDatabase } from "../platform/sqlite.ts";
import { serveWorker } from "../platform/workers.ts";
import type { IndexReply, IndexRequest } from "./index_messages.ts";
import { verifyIndex } from "./verify.ts";

const databases = new Map<string, Database>();

function database(path: string): Database {
  let db = databases.get(path);
  if (db === undefined) {
    db = openDatabase(path);
    db.exec("PRAGMA busy_timeout=5000; PRAGMA synchronous=normal; PRAGMA cache_size=-16384");
    databases.set(path, db);
  }
  return db;
}

serveWorker<IndexRequest, IndexReply>(({ id, kind, path }, post) => {
  try {
    const problems = kind === "verify" ? verifyIndex(database(path)) : [];
    // Passive: never waits for a reader or the writer, and never holds one up.
    if (kind === "checkpoint") database(path).exec("PRAGMA wal_checkpoint(PASSIVE)");
    post({ id, problems, error: null });
  } catch (error) {
    post({ id, problems: [], error: error instanceof Error ? error.message : String(error) });
  }
});
