/** Contents, segments and chunks: what is stored where, who refers to it, and what nobody needs any more. */
import { FsError } from "../fs/error.ts";
import { hex, sha256, unhex } from "../store/hash.ts";
import { CHUNK_ENTRY_LENGTH, type ChunkRef, decodeManifest, type SegmentRef } from "../store/manifest.ts";
import { HASH_LENGTH } from "../store/hash.ts";
import { isZeroChunk } from "../store/zeros.ts";
import type { Statements } from "./statements.ts";

/** Where a chunk's stored bytes are inside a pack. */
export interface ChunkLocation {
  readonly hash: Uint8Array;
  readonly packId: number;
  /** Byte offset of the stored bytes in the pack. */
  readonly offset: number;
  /** Stored (perhaps compressed) length. */
  readonly stored: number;
  /** Length of the chunk itself. */
  readonly raw: number;
  readonly flags: number;
}

/** The entries of a segment's chunk list; its hash was checked when it was stored. */
export function* chunkList(blob: Uint8Array): Generator<ChunkRef> {
  const view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength);
  for (let at = 0; at + CHUNK_ENTRY_LENGTH <= blob.length; at += CHUNK_ENTRY_LENGTH) {
    yield { hash: blob.subarray(at, at + HASH_LENGTH), length: view.getUint32(at + HASH_LENGTH, true) };
  }
}

/** A chunk as a writer names it. */
export interface WantedChunk {
  readonly hash: Uint8Array;
  readonly length: number;
}

export class Contents {
  readonly #sql: Statements;

  constructor(sql: Statements) {
    this.#sql = sql;
  }

  chunk(hash: Uint8Array): ChunkLocation | null {
    const row = this.#sql.row("SELECT pack_id, offset, stored, raw, flags FROM chunks WHERE hash = ?", hash);
    if (row === undefined) return null;
    const [packId, offset, stored, raw, flags] = row as readonly number[];
    return { hash, packId: packId ?? 0, offset: offset ?? 0, stored: stored ?? 0, raw: raw ?? 0, flags: flags ?? 0 };
  }

  /**
   * Which of these are not stored? Those that are and that nothing refers to yet are kept alive from `now` on, so the
   * garbage collector leaves the writer its grace time to refer to them.
   */
  missing(chunks: readonly WantedChunk[], now: number): number[] {
    const out: number[] = [];
    chunks.forEach(({ hash, length }, i) => {
      if (isZeroChunk(hash, length)) return;
      const row = this.#sql.row("SELECT refs FROM chunks WHERE hash = ?", hash);
      if (row === undefined) out.push(i);
      else if (row[0] === 0) this.#sql.run("UPDATE chunks SET born = ? WHERE hash = ?", now, hash);
    });
    return out;
  }

  /** Adds a stored chunk; false when it was known already (then the new copy is dead weight of its pack). */
  addChunk(at: ChunkLocation, now: number): boolean {
    return this.#sql.run(
      `INSERT INTO chunks(hash, pack_id, offset, stored, raw, flags, refs, born) VALUES(?,?,?,?,?,?,0,?)
       ON CONFLICT(hash) DO NOTHING`,
      at.hash,
      at.packId,
      at.offset,
      at.stored,
      at.raw,
      at.flags,
      now,
    ) === 1;
  }

  hasContent(hash: string): boolean {
    return this.#sql.row("SELECT 1 FROM contents WHERE hash = ?", unhex(hash)) !== undefined;
  }
  manifest(hash: string): Uint8Array | null {
    return (this.#sql.row("SELECT manifest FROM contents WHERE hash = ?", unhex(hash))?.[0] as
      | Uint8Array
      | undefined) ?? null;
  }
  segment(hash: Uint8Array): Uint8Array | null {
    return (this.#sql.row("SELECT blob FROM segments WHERE hash = ?", hash)?.[0] as Uint8Array | undefined) ?? null;
  }

  /** References each chunk of the list once more and returns the packs they are in. Throws conflict when one is missing. */
  #refChunks(chunks: Iterable<ChunkRef>): Set<number> {
    const packs = new Set<number>();
    for (const { hash, length } of chunks) {
      if (isZeroChunk(hash, length)) continue;
      const row = this.#sql.row("SELECT pack_id, raw FROM chunks WHERE hash = ?", hash);
      if (row === undefined) {
        throw new FsError("conflict", `chunk ${hex(hash)} is not stored; send it again`, { operation: "add content" });
      }
      if (row[1] !== length) {
        throw new FsError("corrupt", `chunk ${hex(hash)} has ${row[1]} bytes, the manifest says ${length}`);
      }
      this.#sql.run("UPDATE chunks SET refs = refs + 1 WHERE hash = ?", hash);
      packs.add(row[0] as number);
    }
    return packs;
  }

  /** Stores a segment (a part of a large manifest). Known ones cost one probe. Throws conflict for a missing chunk. */
  addSegment(blob: Uint8Array, now: number): void {
    const hash = sha256(blob);
    if (this.#sql.row("SELECT 1 FROM segments WHERE hash = ?", hash) !== undefined) {
      this.#sql.run("UPDATE segments SET born = ? WHERE hash = ? AND refs = 0", now, hash);
      return;
    }
    const packs = this.#refChunks(chunkList(blob));
    this.#sql.run(
      "INSERT INTO segments(hash, blob, refs, packs, born) VALUES(?,?,0,?,?)",
      hash,
      blob,
      JSON.stringify([...packs]),
      now,
    );
  }

  /**
   * Stores a content by its manifest; nothing refers to it yet. Known ones cost one probe.
   * Returns its identity. Throws conflict when a chunk or segment is not stored, corrupt when the blob is malformed.
   */
  addContent(manifest: Uint8Array, now: number): string {
    const hash = sha256(manifest);
    const id = hex(hash);
    if (this.#sql.run("UPDATE contents SET dead_since = ? WHERE hash = ? AND refs = 0", now, hash) > 0) return id;
    if (this.hasContent(id)) return id;
    const view = decodeManifest(manifest);
    let packs: Set<number>;
    if (view.kind === "chunks") packs = this.#refChunks(view.chunksInSync(0, view.size) ?? []);
    else packs = this.#refSegments(view.segments());
    const rowid = this.#sql.insert(
      "INSERT INTO contents(hash, size, manifest, refs, dead_since) VALUES(?,?,?,0,?)",
      hash,
      view.size,
      manifest,
      now,
    );
    for (const pack of packs) this.#sql.run("INSERT INTO content_packs(content_id, pack_id) VALUES(?,?)", rowid, pack);
    return id;
  }

  #refSegments(segments: Iterable<SegmentRef>): Set<number> {
    const packs = new Set<number>();
    for (const { hash } of segments) {
      const row = this.#sql.row("SELECT packs FROM segments WHERE hash = ?", hash);
      if (row === undefined) {
        throw new FsError("conflict", `segment ${hex(hash)} is not stored; send it again`, {
          operation: "add content",
        });
      }
      this.#sql.run("UPDATE segments SET refs = refs + 1 WHERE hash = ?", hash);
      for (const pack of JSON.parse(row[0] as string) as number[]) packs.add(pack);
    }
    return packs;
  }

  /** One reference more (+1) or less (-1). Throws conflict when the content is not stored. */
  ref(hash: string, delta: 1 | -1, now: number): void {
    const key = unhex(hash);
    const changed = delta === 1
      ? this.#sql.run("UPDATE contents SET refs = refs + 1, dead_since = NULL WHERE hash = ?", key)
      : this.#sql.run(
        "UPDATE contents SET refs = refs - 1, dead_since = CASE WHEN refs = 1 THEN ? ELSE dead_since END WHERE hash = ?",
        now,
        key,
      );
    if (changed === 0 && delta === 1) {
      throw new FsError("conflict", `content ${hash} is not stored; send it again`, { operation: "add content" });
    }
  }

  /** Bytes of one content's size, or null. */
  size(hash: string): number | null {
    return (this.#sql.row("SELECT size FROM contents WHERE hash = ?", unhex(hash))?.[0] as number | undefined) ?? null;
  }

  /** The tiers that hold every pack of the content; `all` for an empty one. */
  tiersOf(hash: string | null, all: number): number {
    if (hash === null) return all;
    const row = this.#sql.row(
      `SELECT min(p.tiers & 1), min(p.tiers & 2), min(p.tiers & 4), count(*) FROM contents c
       JOIN content_packs cp ON cp.content_id = c.id JOIN packs p ON p.id = cp.pack_id WHERE c.hash = ?`,
      unhex(hash),
    );
    if (row === undefined || row[3] === 0) return all;
    return ((row[0] as number) | (row[1] as number) | (row[2] as number));
  }

  #unrefChunks(chunks: Iterable<ChunkRef>, now: number): void {
    for (const { hash, length } of chunks) {
      if (isZeroChunk(hash, length)) continue;
      this.#sql.run(
        "UPDATE chunks SET refs = refs - 1, born = CASE WHEN refs = 1 THEN ? ELSE born END WHERE hash = ?",
        now,
        hash,
      );
    }
  }

  /**
   * One step of garbage collection, bounded by `limit` contents and segments: forgets what nothing has referred to since
   * `before` (milliseconds). Runs inside one transaction with all checks, so a writer that has just reused a chunk
   * either sees it and keeps it, or is told that it is missing. What loses its last reference here was perhaps just
   * found stored by a writer that refers to it next: it gets the whole grace time from `now` on. Returns how much was
   * let go (`contents`: with segments).
   */
  collect(before: number, limit: number, now: number): { contents: number; chunks: number; bytes: number } {
    const dead = this.#sql.rows(
      "SELECT id, manifest FROM contents WHERE dead_since IS NOT NULL AND dead_since < ? AND refs = 0 LIMIT ?",
      before,
      limit,
    );
    for (const row of dead) {
      const view = decodeManifest(row[1] as Uint8Array);
      if (view.kind === "chunks") this.#unrefChunks(view.chunksInSync(0, view.size) ?? [], now);
      else {
        for (const { hash } of view.segments()) {
          this.#sql.run("UPDATE segments SET refs = refs - 1, born = ? WHERE hash = ?", now, hash);
        }
      }
      this.#sql.run("DELETE FROM content_packs WHERE content_id = ?", row[0] as number);
      this.#sql.run("DELETE FROM contents WHERE id = ?", row[0] as number);
    }
    const segments = this.#sql.rows("SELECT id, blob FROM segments WHERE refs = 0 AND born < ? LIMIT ?", before, limit);
    for (const row of segments) {
      this.#unrefChunks(chunkList(row[1] as Uint8Array), now);
      this.#sql.run("DELETE FROM segments WHERE id = ?", row[0] as number);
    }
    let bytes = 0;
    const chunks = this.#sql.rows(
      "SELECT hash, pack_id, stored FROM chunks WHERE refs = 0 AND born < ? LIMIT ?",
      before,
      limit * 64,
    );
    for (const row of chunks) {
      bytes += row[2] as number;
      this.#sql.run("DELETE FROM chunks WHERE hash = ?", row[0] as Uint8Array);
      this.#sql.run("UPDATE packs SET live_bytes = live_bytes - ? WHERE id = ?", row[2] as number, row[1] as number);
    }
    return { contents: dead.length + segments.length, chunks: chunks.length, bytes };
  }
}
