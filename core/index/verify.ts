/** Checks an index against itself: SQLite's own check, and every count and reference against what it counts. */
import { S_IFDIR, S_IFMT } from "../fs/stat.ts";
import type { Database } from "../platform/sqlite.ts";
import { hex } from "../store/hash.ts";
import { decodeManifest } from "../store/manifest.ts";
import { isZeroChunk } from "../store/zeros.ts";
import { chunkList } from "./contents.ts";
import { ROOT_INO } from "./ops.ts";
import { PACK_DEAD } from "./schema.ts";
import { type Row, Statements } from "./statements.ts";

/** Problems listed of one kind. */
const LISTED = 100;
const PAGE = 256;

/** What is wrong, in words; empty when nothing is. Takes about a minute a million files, so not on the main thread. */
export function verifyIndex(db: Database): string[] {
  const own = !db.isTransaction;
  // One snapshot for all questions.
  if (own) db.exec("BEGIN");
  try {
    return [...verify(new Statements(db))];
  } finally {
    if (own) db.exec("ROLLBACK");
  }
}

function* verify(sql: Statements): Generator<string> {
  const integrity = sql.rows("PRAGMA integrity_check").map((row) => String(row[0]));
  if (integrity.length !== 1 || integrity[0] !== "ok") yield* integrity;
  yield* tree(sql);
  yield* contents(sql);
  yield* packs(sql);
}

const say = (rows: Row[], words: (row: Row) => string) => rows.map(words);
const id = (value: unknown) => value instanceof Uint8Array ? hex(value) : String(value);

function* tree(sql: Statements): Generator<string> {
  yield* say(
    sql.rows(`SELECT parent, ino FROM dentries WHERE ino NOT IN (SELECT ino FROM nodes) LIMIT ${LISTED}`),
    ([parent, ino]) => `an entry of folder ${parent} names node ${ino}, which does not exist`,
  );
  yield* say(
    sql.rows(
      `SELECT parent, ino FROM dentries WHERE parent NOT IN (SELECT ino FROM nodes WHERE mode & ${S_IFMT} = ${S_IFDIR})
       LIMIT ${LISTED}`,
    ),
    ([parent, ino]) => `node ${ino} has a name in ${parent}, which is no folder`,
  );
  yield* say(
    sql.rows(
      `SELECT n.ino, n.nlink, count(d.ino) FROM nodes n LEFT JOIN dentries d ON d.ino = n.ino
       WHERE n.mode & ${S_IFMT} <> ${S_IFDIR} GROUP BY n.ino HAVING n.nlink <> count(d.ino) LIMIT ${LISTED}`,
    ),
    ([ino, nlink, names]) => `file ${ino} says it has ${nlink} names and has ${names}`,
  );
  yield* say(
    sql.rows(
      `SELECT n.ino, n.nlink, (SELECT count(*) FROM dentries d JOIN nodes c ON c.ino = d.ino
         WHERE d.parent = n.ino AND c.mode & ${S_IFMT} = ${S_IFDIR}) AS folders,
         (SELECT count(*) FROM dentries d WHERE d.ino = n.ino) AS names
       FROM nodes n WHERE n.mode & ${S_IFMT} = ${S_IFDIR}
         AND (n.nlink <> folders + 2 OR names <> (n.ino <> ${ROOT_INO})) LIMIT ${LISTED}`,
    ),
    ([ino, nlink, folders, names]) =>
      `folder ${ino} says nlink ${nlink}, holds ${folders} folders and has ${names} names`,
  );
  yield* say(
    sql.rows(`SELECT DISTINCT ino FROM xattrs WHERE ino NOT IN (SELECT ino FROM nodes) LIMIT ${LISTED}`),
    ([ino]) => `there are attributes of node ${ino}, which does not exist`,
  );
}

function* contents(sql: Statements): Generator<string> {
  yield* say(
    sql.rows(
      `SELECT n.ino, n.content FROM nodes n LEFT JOIN contents c ON c.hash = n.content
       WHERE n.content IS NOT NULL AND (c.id IS NULL OR c.size <> n.size) LIMIT ${LISTED}`,
    ),
    ([ino, content]) => `file ${ino} has the content ${id(content)}, which is missing or of another size`,
  );
  yield* say(
    sql.rows(`SELECT ino FROM nodes WHERE content IS NULL AND mode & ${S_IFMT} = 32768 AND size <> 0 LIMIT ${LISTED}`),
    ([ino]) => `file ${ino} has a size and no content`,
  );
  sql.exec("CREATE TEMP TABLE IF NOT EXISTS used(hash BLOB PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID");
  const count = (hash: Uint8Array) =>
    sql.run("INSERT INTO used(hash, n) VALUES(?, 1) ON CONFLICT(hash) DO UPDATE SET n = n + 1", hash);

  sql.exec("DELETE FROM used");
  for (const row of sql.rows("SELECT content FROM nodes WHERE content IS NOT NULL")) count(row[0] as Uint8Array);
  yield* compare(sql, "contents", "content");

  sql.exec("DELETE FROM used");
  for (const [rowid, manifest] of pages(sql, "contents", "manifest")) {
    const view = decodeManifest(manifest);
    if (view.kind === "segments") { for (const { hash } of view.segments()) count(hash); }
    else {
      const used = new Set<number>();
      for (const { hash, length } of view.chunksInSync(0, view.size) ?? []) {
        const pack = packOf(sql, hash, length);
        if (pack !== null) used.add(pack);
      }
      yield* unlisted(sql, rowid, used);
      continue;
    }
    const used = new Set<number>();
    for (const { hash } of view.segments()) {
      const row = sql.row("SELECT packs FROM segments WHERE hash = ?", hash);
      for (const pack of JSON.parse(String(row?.[0] ?? "[]")) as number[]) used.add(pack);
    }
    yield* unlisted(sql, rowid, used);
  }
  yield* compare(sql, "segments", "segment");

  sql.exec("DELETE FROM used");
  for (const [, manifest] of pages(sql, "contents", "manifest")) {
    for (const { hash, length } of decodeManifest(manifest).chunksInSync(0, Number.MAX_SAFE_INTEGER) ?? []) {
      if (!isZeroChunk(hash, length)) count(hash);
    }
  }
  for (const [, blob] of pages(sql, "segments", "blob")) {
    for (const { hash, length } of chunkList(blob)) if (!isZeroChunk(hash, length)) count(hash);
  }
  yield* compare(sql, "chunks", "chunk");
  sql.exec("DROP TABLE used");
}

function packOf(sql: Statements, hash: Uint8Array, length: number): number | null {
  if (isZeroChunk(hash, length)) return null;
  return (sql.row("SELECT pack_id FROM chunks WHERE hash = ?", hash)?.[0] as number | undefined) ?? null;
}

/** Packs that hold chunks of a content without being noted as its packs: its tier mask would lie. */
function* unlisted(sql: Statements, content: number, used: ReadonlySet<number>): Generator<string> {
  const listed = new Set(sql.rows("SELECT pack_id FROM content_packs WHERE content_id = ?", content).map(([p]) => p));
  for (const pack of used) {
    if (!listed.has(pack)) yield `content number ${content} has chunks in pack ${pack}, which is not noted`;
  }
}

function* pages(sql: Statements, table: string, column: string): Generator<[number, Uint8Array]> {
  for (let after = 0;;) {
    const rows = sql.rows(`SELECT id, ${column} FROM ${table} WHERE id > ? ORDER BY id LIMIT ${PAGE}`, after);
    for (const row of rows) yield [row[0] as number, row[1] as Uint8Array];
    const last = rows.at(-1);
    if (last === undefined || rows.length < PAGE) return;
    after = last[0] as number;
  }
}

/** The references counted in `used` against those the table says. */
function* compare(sql: Statements, table: string, what: string): Generator<string> {
  yield* say(
    sql.rows(
      `SELECT t.hash, t.refs, coalesce(u.n, 0) FROM ${table} t LEFT JOIN used u ON u.hash = t.hash
       WHERE t.refs <> coalesce(u.n, 0) LIMIT ${LISTED}`,
    ),
    ([hash, refs, n]) => `${what} ${id(hash)} says it has ${refs} references and has ${n}`,
  );
  yield* say(
    sql.rows(`SELECT u.hash, u.n FROM used u WHERE u.hash NOT IN (SELECT hash FROM ${table}) LIMIT ${LISTED}`),
    ([hash, n]) => `${what} ${id(hash)} is missing and has ${n} references`,
  );
}

function* packs(sql: Statements): Generator<string> {
  yield* say(
    sql.rows(
      `SELECT c.hash, c.pack_id FROM chunks c LEFT JOIN packs p ON p.id = c.pack_id
       WHERE p.id IS NULL OR p.state = ${PACK_DEAD} OR c.offset + c.stored > p.bytes LIMIT ${LISTED}`,
    ),
    ([hash, pack]) => `chunk ${id(hash)} should be in pack ${pack}, which is gone, dead or too short`,
  );
  yield* say(
    sql.rows(
      `SELECT p.id, p.live_bytes, coalesce(sum(c.stored), 0) FROM packs p LEFT JOIN chunks c ON c.pack_id = p.id
       GROUP BY p.id HAVING p.live_bytes <> coalesce(sum(c.stored), 0) LIMIT ${LISTED}`,
    ),
    ([pack, live, sum]) => `pack ${pack} says ${live} live bytes and has ${sum}`,
  );
  yield* say(
    sql.rows(`SELECT id, pack_id FROM wal WHERE pack_id NOT IN (SELECT id FROM packs) LIMIT ${LISTED}`),
    ([entry, pack]) => `entry ${entry} of the write-ahead log is about pack ${pack}, which does not exist`,
  );
}
