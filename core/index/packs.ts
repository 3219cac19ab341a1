/** Packs and the write-ahead log: which tier holds which pack, and the work that still has to reach a tier. */
import { FsError } from "../fs/error.ts";
import type { Statements } from "./statements.ts";
import { PACK_DEAD, PACK_OPEN, PACK_SEALED } from "./schema.ts";

export interface PackInfo {
  readonly id: number;
  /** The object's name on every tier (64 hex digits); null while it is still being filled. */
  readonly name: string | null;
  readonly state: number;
  readonly bytes: number;
  readonly liveBytes: number;
  /** TierBit mask of the tiers that are confirmed to hold all of it. */
  readonly tiers: number;
  /** Milliseconds since 1970. */
  readonly created: number;
  readonly lastAccess: number;
  readonly hits: number;
}

/** One entry of the write-ahead log. */
export interface WalEntry {
  readonly id: number;
  /** TierBit of the tier it has to reach. */
  readonly tier: number;
  readonly op: "put" | "delete";
  readonly packId: number;
  /** The object's name, null while the pack is still being filled. */
  readonly object: string | null;
  readonly bytes: number;
  readonly attempts: number;
  /** Milliseconds since 1970 before which it is not tried again. */
  readonly notBefore: number;
  readonly lastError: string | null;
  readonly created: number;
}

/** Accesses longer ago than this, milliseconds, don't count for a pack's frequency. */
export const HITS_FADE_MS = 30 * 86_400_000;

const PACK_COLUMNS = "id, name, state, bytes, live_bytes, tiers, created, last_access, hits";
const WAL_COLUMNS =
  "w.id, w.tier, w.op, w.pack_id, coalesce(w.object, p.name), coalesce(p.bytes, w.bytes), w.attempts, w.not_before, w.last_error, w.created";

function toPack(row: readonly unknown[]): PackInfo {
  const [id, name, state, bytes, liveBytes, tiers, created, lastAccess, hits] = row;
  return {
    id: id as number,
    name: name as string | null,
    state: state as number,
    bytes: bytes as number,
    liveBytes: liveBytes as number,
    tiers: tiers as number,
    created: created as number,
    lastAccess: lastAccess as number,
    hits: hits as number,
  };
}

function toEntry(row: readonly unknown[]): WalEntry {
  const [id, tier, op, packId, object, bytes, attempts, notBefore, lastError, created] = row;
  return {
    id: id as number,
    tier: tier as number,
    op: op as "put" | "delete",
    packId: packId as number,
    object: object as string | null,
    bytes: bytes as number,
    attempts: attempts as number,
    notBefore: notBefore as number,
    lastError: lastError as string | null,
    created: created as number,
  };
}

export class Packs {
  readonly #sql: Statements;

  constructor(sql: Statements) {
    this.#sql = sql;
  }

  /** A new pack on the hot tier, being filled, with one log entry for each tier it has to reach: in one transaction. */
  create(hotBit: number, targets: readonly number[], now: number): number {
    const id = this.#sql.insert(
      "INSERT INTO packs(name, state, bytes, live_bytes, tiers, created, last_access, hits) VALUES(NULL,?,0,0,?,?,?,0)",
      PACK_OPEN,
      hotBit,
      now,
      now,
    );
    for (const tier of targets) this.#enqueue(tier, "put", id, null, 0, now);
    return id;
  }
  #enqueue(
    tier: number,
    op: "put" | "delete",
    packId: number,
    object: string | null,
    bytes: number,
    now: number,
  ): void {
    this.#sql.run(
      `INSERT INTO wal(tier, op, pack_id, object, bytes, attempts, not_before, created) VALUES(?,?,?,?,?,0,0,?)
       ON CONFLICT(tier, op, pack_id) DO NOTHING`,
      tier,
      op,
      packId,
      object,
      bytes,
      now,
    );
  }
  get(id: number): PackInfo | null {
    const row = this.#sql.row(`SELECT ${PACK_COLUMNS} FROM packs WHERE id = ?`, id);
    return row === undefined ? null : toPack(row);
  }
  byName(name: string): PackInfo | null {
    const row = this.#sql.row(`SELECT ${PACK_COLUMNS} FROM packs WHERE name = ?`, name);
    return row === undefined ? null : toPack(row);
  }
  inState(state: number): PackInfo[] {
    return this.#sql.rows(`SELECT ${PACK_COLUMNS} FROM packs WHERE state = ? ORDER BY id`, state).map(toPack);
  }
  /** Pages through all packs by id. */
  page(afterId: number, limit: number): PackInfo[] {
    return this.#sql.rows(`SELECT ${PACK_COLUMNS} FROM packs WHERE id > ? ORDER BY id LIMIT ?`, afterId, limit).map(
      toPack,
    );
  }
  /** The chunks of a pack in order of their place. */
  chunksOf(id: number): { hash: Uint8Array; offset: number; stored: number; raw: number; flags: number }[] {
    return this.#sql.rows("SELECT hash, offset, stored, raw, flags FROM chunks WHERE pack_id = ? ORDER BY offset", id)
      .map((row) => ({
        hash: row[0] as Uint8Array,
        offset: row[1] as number,
        stored: row[2] as number,
        raw: row[3] as number,
        flags: row[4] as number,
      }));
  }
  /** Bytes were appended to a pack that is being filled. Throws unavailable when the pack's beginning was taken back. */
  grow(id: number, bytes: number, liveBytes: number): void {
    const grow = "UPDATE packs SET bytes = ?, live_bytes = live_bytes + ? WHERE id = ? AND state = ?";
    if (this.#sql.run(grow, bytes, liveBytes, id, PACK_OPEN) === 0) throw takenBack(id);
  }
  /** The pack is whole and has its name now. Throws unavailable when its beginning was taken back. */
  seal(id: number, name: string, bytes: number): void {
    const seal = "UPDATE packs SET name = ?, state = ?, bytes = ? WHERE id = ?";
    if (this.#sql.run(seal, name, PACK_SEALED, bytes, id) === 0) throw takenBack(id);
  }
  /** A pack that was never used: nothing refers to it. */
  forget(id: number): void {
    this.#sql.run("DELETE FROM wal WHERE pack_id = ?", id);
    this.#sql.run("DELETE FROM packs WHERE id = ?", id);
  }
  /** One statement, so that two replicators never lose each other's bit. */
  addTier(id: number, bit: number): void {
    // A dead pack is being deleted everywhere: a copy that arrives late must not keep its row alive.
    this.#sql.run("UPDATE packs SET tiers = tiers | ? WHERE id = ? AND state <> ?", bit, id, PACK_DEAD);
  }
  /** Takes the tier's bit away if every tier of `needed` is confirmed to hold the pack; false: it stays. */
  dropTier(id: number, bit: number, needed: number): boolean {
    // Nothing needed would mean that the last copy may go.
    if ((needed & ~bit) === 0) return false;
    return this.#sql.run(
      "UPDATE packs SET tiers = tiers & ~? WHERE id = ? AND state = ? AND (tiers & ?) = ? AND (tiers & ?) <> 0",
      bit,
      id,
      PACK_SEALED,
      needed,
      needed,
      bit,
    ) === 1;
  }
  /** The tier was found not to hold what it should: no bit, and (when `again`) new work to bring it there. */
  lostFrom(id: number, bit: number, again: boolean, now: number): void {
    // A dead pack is not brought anywhere any more.
    const lost = "UPDATE packs SET tiers = tiers & ~? WHERE id = ? AND state <> ?";
    if (this.#sql.run(lost, bit, id, PACK_DEAD) === 1 && again) this.#enqueue(bit, "put", id, null, 0, now);
  }
  /** Counts accesses. Earlier ones fade linearly: after 30 days without any they count nothing. */
  touch(id: number, now: number, hits: number): void {
    this.#sql.run(
      `UPDATE packs SET hits = CAST(hits * max(0, 1 - max(0, ? - last_access) / ${HITS_FADE_MS}.0) AS INTEGER) + ?,
         last_access = ? WHERE id = ?`,
      now,
      hits,
      now,
      id,
    );
  }
  /** Bytes on the tier. */
  bytesOn(bit: number): number {
    return (this.#sql.row("SELECT coalesce(sum(bytes), 0) FROM packs WHERE tiers & ? <> 0", bit)?.[0] as
      | number
      | undefined) ?? 0;
  }
  /** Sealed packs that may leave the tier: all of `needed` hold them. */
  evictable(bit: number, needed: number): PackInfo[] {
    if ((needed & ~bit) === 0) return [];
    return this.#sql.rows(
      `SELECT ${PACK_COLUMNS} FROM packs WHERE state = ? AND tiers & ? <> 0 AND (tiers & ?) = ?`,
      PACK_SEALED,
      bit,
      needed,
      needed,
    ).map(toPack);
  }
  /** Sealed packs without a live byte become dead, with log entries to delete them from their tiers. Returns how many. */
  buryEmpty(allBits: readonly number[], now: number): number {
    const rows = this.#sql.rows(
      `SELECT ${PACK_COLUMNS} FROM packs WHERE state = ? AND live_bytes <= 0
       AND NOT EXISTS (SELECT 1 FROM chunks WHERE pack_id = packs.id)`,
      PACK_SEALED,
    ).map(toPack);
    for (const pack of rows) {
      this.#sql.run("UPDATE packs SET state = ? WHERE id = ?", PACK_DEAD, pack.id);
      this.#sql.run("DELETE FROM wal WHERE pack_id = ? AND op = 'put'", pack.id);
      // Also from tiers without the bit: an upload may have arrived without being confirmed.
      for (const bit of allBits) this.#enqueue(bit, "delete", pack.id, pack.name, pack.bytes, now);
    }
    return rows.length;
  }

  // --- the log ---

  /** Entries that may run now: of sealed (put) or dead (delete) packs, oldest first. */
  due(tier: number, now: number, limit: number): WalEntry[] {
    return this.#sql.rows(
      `SELECT ${WAL_COLUMNS} FROM wal w JOIN packs p ON p.id = w.pack_id
       WHERE w.tier = ? AND w.not_before <= ? AND p.name IS NOT NULL ORDER BY w.id LIMIT ?`,
      tier,
      now,
      limit,
    ).map(toEntry);
  }
  walPage(afterId: number, limit: number): WalEntry[] {
    return this.#sql.rows(
      `SELECT ${WAL_COLUMNS} FROM wal w LEFT JOIN packs p ON p.id = w.pack_id WHERE w.id > ? ORDER BY w.id LIMIT ?`,
      afterId,
      limit,
    ).map(toEntry);
  }
  walCount(): { entries: number; bytes: number } {
    const row = this.#sql.row(
      "SELECT count(*), coalesce(sum(coalesce(p.bytes, w.bytes)), 0) FROM wal w LEFT JOIN packs p ON p.id = w.pack_id",
    );
    return { entries: (row?.[0] as number | undefined) ?? 0, bytes: (row?.[1] as number | undefined) ?? 0 };
  }
  /** When the next waiting entry of the tier may run; null when none waits. */
  nextDue(tier: number): number | null {
    const row = this.#sql.row(
      "SELECT min(w.not_before) FROM wal w JOIN packs p ON p.id = w.pack_id WHERE w.tier = ? AND p.name IS NOT NULL",
      tier,
    );
    return (row?.[0] as number | null | undefined) ?? null;
  }
  walFailed(id: number, error: string, notBefore: number): void {
    this.#sql.run(
      "UPDATE wal SET attempts = attempts + 1, last_error = ?, not_before = ? WHERE id = ?",
      error,
      notBefore,
      id,
    );
  }
  walRetry(id: number | null): number {
    return id === null
      ? this.#sql.run("UPDATE wal SET not_before = 0 WHERE not_before > 0")
      : this.#sql.run("UPDATE wal SET not_before = 0 WHERE id = ?", id);
  }
  /** The pack arrived on the tier and was confirmed there: the bit and the end of the work, in one transaction. */
  putDone(entry: WalEntry, now: number): void {
    this.#sql.run("DELETE FROM wal WHERE id = ?", entry.id);
    this.addTier(entry.packId, entry.tier);
    // It died while it was on its way: what arrived has to go again, even if its deletion was done before.
    const pack = this.get(entry.packId);
    if (pack?.state === PACK_DEAD) this.#enqueue(entry.tier, "delete", pack.id, pack.name, pack.bytes, now);
  }
  /** The dead pack is gone from the tier; with the last tier its row goes too. */
  deleteDone(entry: WalEntry): void {
    this.#sql.run("DELETE FROM wal WHERE id = ?", entry.id);
    this.#sql.run("UPDATE packs SET tiers = tiers & ~? WHERE id = ?", entry.tier, entry.packId);
    this.#sql.run(
      `DELETE FROM packs WHERE id = ? AND state = ? AND tiers = 0
       AND NOT EXISTS (SELECT 1 FROM wal WHERE pack_id = packs.id)`,
      entry.packId,
      PACK_DEAD,
    );
  }
}

const takenBack = (id: number): FsError => new FsError("unavailable", `pack ${id} was taken back; send it again`);
