/** A small ServerCore for tests of the wire: a real index in memory, chunks in a map, no path operations. */
import { FsError } from "../../fs/error.ts";
import { SqliteIndex } from "../../index/sqlite_index.ts";
import type { ChunkStore, IndexedFs, ServerCore, Tiers } from "../../indexed/core.ts";
import { systemClock } from "../../platform/clock.ts";
import { systemRandom } from "../../platform/random.ts";
import { hex, sameBytes, sha256 } from "../../store/hash.ts";
import { type ChunkSpan, decodeManifest } from "../../store/manifest.ts";
import { isZeroChunk } from "../../store/zeros.ts";

export interface MemoryCore extends ServerCore {
  readonly index: SqliteIndex;
  /** Chunks stored so far. */
  readonly stored: ReadonlyMap<string, Uint8Array>;
}

export function openMemoryCore(options: { readonly path?: string } = {}): MemoryCore {
  const stored = new Map<string, Uint8Array>();
  const index = new SqliteIndex({
    path: options.path ?? ":memory:",
    clock: systemClock,
    random: systemRandom,
    hotBit: 1,
    targets: [],
    data: { hasUnsynced: () => false, sync: () => Promise.resolve() },
  });
  let packId = 0;
  let end = 0;
  const chunks: ChunkStore = {
    async put(parts, { verify = false } = {}) {
      if (packId === 0) packId = await index.createPack();
      const added = parts.map(({ hash, bytes }) => {
        if (verify && !sameBytes(sha256(bytes), hash)) throw new FsError("corrupt", "a chunk does not have its hash");
        stored.set(hex(hash), bytes.slice());
        const offset = end;
        end += bytes.length;
        return { hash, offset, stored: bytes.length, raw: bytes.length, flags: 0 };
      });
      await index.addChunks(packId, added, end);
    },
    read({ hash, length }) {
      if (isZeroChunk(hash, length)) return Promise.resolve(new Uint8Array(length));
      const bytes = stored.get(hex(hash));
      return bytes === undefined ? Promise.reject(new FsError("corrupt", "no such chunk")) : Promise.resolve(bytes);
    },
    async *readMany(wanted) {
      for (const chunk of wanted) yield await chunks.read(chunk);
    },
  };
  const view = async (hash: string) => {
    const blob = await index.manifest(hash);
    if (blob === null) throw new FsError("not_found", `there is no content ${hash}`);
    return decodeManifest(blob);
  };
  const spans = async (hash: string, offset: number, length: number): Promise<ChunkSpan[]> =>
    await (await view(hash)).chunksIn(
      offset,
      length,
      async (segment) => await index.segment(segment) ?? new Uint8Array(),
    );
  const fs: Partial<IndexedFs> = {
    contentView: view,
    chunksOf: (from, offset, length) =>
      from.chunksIn(offset, length, async (s) => await index.segment(s) ?? new Uint8Array()),
    withTiers: (stats) => Promise.resolve(stats),
    statFs: () => Promise.resolve({ total: 1e12, free: 1e12, files: 1e9, freeFiles: 1e9 }),
    readContent(hash, offset, length) {
      return ReadableStream.from((async function* () {
        for (const span of await spans(hash, offset, length)) {
          const bytes = await chunks.read(span);
          yield bytes.subarray(Math.max(0, offset - span.offset), Math.min(span.length, offset + length - span.offset));
        }
      })());
    },
  };
  fs.contentBytes = async (hash, offset, length) => {
    const { size } = await view(hash);
    const parts = fs.readContent?.(hash, offset, Math.min(length, size - offset));
    return await new Response(parts ?? null).bytes();
  };
  const tiers: Partial<Tiers> = { bits: 1, status: () => Promise.resolve([]) };
  return {
    index,
    chunks,
    stored,
    fs: fs as IndexedFs,
    tiers: tiers as Tiers,
    close: () => index.close(),
  };
}
