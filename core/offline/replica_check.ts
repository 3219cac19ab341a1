/** Can the replica of an earlier run be used? A damaged or missing one is set aside, and the client begins as a new device. */
import { info, removeTree } from "../platform/files.ts";
import { closeFd, O_CREAT, O_RDWR, openFd, renamePath } from "../platform/posix.ts";
import { openDatabase } from "../platform/sqlite.ts";

const MARK = "replica.bad";

/** Does the error say that a database file is damaged (SQLITE_CORRUPT, SQLITE_NOTADB, sqlite.org/rescode.html)? */
export function saysDamaged(error: unknown): boolean {
  return error instanceof Error && /database disk image is malformed|file is not a database/.test(error.message);
}

/** For the next start: the replica in `folder` must not be used again. */
export function markDamaged(folder: string): void {
  closeFd(openFd(`${folder}/${MARK}`, O_RDWR | O_CREAT));
}

/**
 * False when the numbers this device has given out can't be known any more: another number would be given twice. The
 * damaged database is kept beside as `replica.damaged`, for whoever wants to look.
 */
export async function replicaIsSound(folder: string): Promise<boolean> {
  const path = `${folder}/replica.db`;
  const marked = await info(`${folder}/${MARK}`) !== null;
  if (!marked && await info(path) !== null && canBeRead(path)) return true;
  for (const end of ["", "-wal", "-shm"]) {
    if (await info(`${path}${end}`) !== null) renamePath(`${path}${end}`, `${folder}/replica.damaged${end}`);
  }
  await removeTree(`${folder}/${MARK}`);
  return false;
}

function canBeRead(path: string): boolean {
  try {
    const db = openDatabase(path, { readOnly: true });
    try {
      const value = (key: string) => db.prepare("SELECT value FROM meta WHERE key = ?").get(key)?.["value"];
      for (const table of ["nodes", "dentries", "xattrs", "complete", "before_writes"]) {
        db.prepare(`SELECT * FROM ${table} LIMIT 1`).all();
      }
      return Number(value("device")) > 0 && Number.isSafeInteger(Number(value("last_ino") ?? 0));
    } finally {
      db.close();
    }
  } catch {
    return false;
  }
}
