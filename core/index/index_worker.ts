/** The thread that does what would hold up the index for long: checkpoints and checks, by a connection of its own. */
import { type Database, openDatabase } from "../platform/sqlite.ts";
import { serveWorker } from "../platform/workers.ts";
import type { IndexReply, IndexRequest } from "./index_messages.ts";
import { verifyIndex } from "./verify.ts";

serveWorker<IndexRequest, IndexReply>(({ id, kind, path }, post) => {
  let db: Database | undefined;
  let problems: string[] = [];
  let error: string | null = null;
  try {
    db = openDatabase(path);
    db.exec("PRAGMA busy_timeout=5000; PRAGMA synchronous=normal; PRAGMA cache_size=-16384");
    if (kind === "verify") problems = verifyIndex(db);
    // Passive: never waits for a reader or the writer, and never holds one up.
    else db.exec("PRAGMA wal_checkpoint(PASSIVE)");
  } catch (thrown) {
    error = thrown instanceof Error ? thrown.message : String(thrown);
  }
  try {
    db?.close();
  } catch (thrown) {
    error ??= thrown instanceof Error ? thrown.message : String(thrown);
  }
  post({ id, problems, error });
});
