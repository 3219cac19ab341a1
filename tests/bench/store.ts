/**
 * How fast contents are cut and hashed: `deno run -A tests/bench/store.ts [MB]`. Prints MB/s (10^6 bytes, the median of
 * five rounds) beside plain SHA-256 of the same bytes in the same run, because machines differ and ratios do not.
 */
import { chunkInline } from "../../core/store/chunk_inline.ts";
import { ChunkPool, packedAll } from "../../core/store/chunk_pool.ts";
import { chunkStream } from "../../core/store/chunk_stream.ts";
import { type Chunker, MAX_CHUNK } from "../../core/store/chunker.ts";
import { TsChunker } from "../../core/store/chunker_ts.ts";
import { WasmChunker } from "../../core/store/chunker_wasm.ts";
import { unpackChunk } from "../../core/store/codec.ts";
import { Extents } from "../../core/store/extents.ts";
import { sha256 } from "../../core/store/hash.ts";
import { decodeManifest, encodeManifest, ManifestBuilder } from "../../core/store/manifest.ts";
import { rechunk } from "../../core/store/rechunk.ts";
import { patternBytes } from "../../core/store/testing/bytes.ts";

const ROUNDS = 5;
const megabytes = Number(Deno.args[0] ?? 256);
const data = patternBytes(1, megabytes * 1_000_000);
const text = patternBytes(2, 32_000_000, "text");
let plain = 0;

/** Runs `work` once to warm up, then ROUNDS times; prints the median. */
async function measure(name: string, bytes: number, work: () => unknown): Promise<number> {
  await work();
  const rates: number[] = [];
  for (let i = 0; i < ROUNDS; i++) {
    const start = performance.now();
    await work();
    rates.push(bytes / (performance.now() - start) / 1000);
  }
  rates.sort((a, b) => a - b);
  const rate = rates[ROUNDS >> 1] ?? 0;
  const ratio = plain === 0 ? "" : `   ${(rate / plain).toFixed(2)} x plain SHA-256`;
  console.log(`${name.padEnd(52)} ${rate.toFixed(0).padStart(6)} MB/s${ratio}`);
  return rate;
}

function cut(chunker: Chunker, bytes: Uint8Array): void {
  chunker.cutAll(bytes, 0, bytes.length, true);
}

plain = await measure("plain SHA-256, 64 KiB pieces", data.length, () => {
  for (let at = 0; at < data.length; at += 65536) sha256(data.subarray(at, at + 65536));
});
await measure("cut, TypeScript", data.length, () => cut(new TsChunker(), data));
const wasm = new WasmChunker();
await measure("cut, WebAssembly, copied in", data.length, () => cut(wasm, data));
const placed = new WasmChunker();
const room = placed.workspace(8_000_000);
room.set(data.subarray(0, room.length));
await measure("cut, WebAssembly, in place (8 MB)", room.length * 20, () => {
  for (let i = 0; i < 20; i++) cut(placed, room);
});
await measure("cut and hash on the calling thread", data.length, () => chunkInline(data));

const path = await Deno.makeTempFile();
await Deno.writeFile(path, data);
const source = () => {
  let at = 0;
  return new ReadableStream<Uint8Array>({
    pull(controller) {
      if (at >= data.length) return controller.close();
      controller.enqueue(data.subarray(at, at += 1 << 20));
    },
  }, { highWaterMark: 0 });
};
for (const workers of [1, 2]) {
  await using pool = new ChunkPool({ workers });
  const threads = `${workers} worker${workers > 1 ? "s" : ""}`;
  await measure(`process, 4 MiB buffers, ${threads}`, data.length, async () => {
    const size = 4 << 20;
    let at = 0;
    await Promise.all(Array.from({ length: workers * 2 }, async () => {
      let buffer = new ArrayBuffer(size);
      while (at < data.length) {
        const piece = data.subarray(at, at += size);
        new Uint8Array(buffer).set(piece);
        ({ buffer } = await pool.process(buffer, true, { length: piece.length }));
      }
    }));
  });
  await measure(`file, read and hashed where it lies, ${threads}`, data.length * workers, async () => {
    await Promise.all(Array.from({ length: workers }, () => pool.processFile(path, undefined, () => {})));
  });
  await measure(`one stream, ${threads}`, data.length, async () => {
    for await (const batch of chunkStream(source(), pool)) batch.release();
  });
}
await Deno.remove(path);

const chunks = chunkInline(text);
await using pool = new ChunkPool();
await measure("compress text, 2 workers", text.length, async () => {
  const half = chunks[chunks.length >> 1]?.offset ?? 0;
  await Promise.all([[0, half], [half, text.length]].map(async ([from = 0, to = 0]) => {
    const part = chunks.filter(({ offset }) => offset >= from && offset < to)
      .map(({ offset, length }) => ({ offset: offset - from, length }));
    await pool.pack(text.slice(from, to).buffer, part);
  }));
});
const { packed } = await pool.pack(text.slice().buffer, chunks);
const stored = [...packedAll(packed, (i) => text.subarray(chunks[i]?.offset ?? 0).subarray(0, chunks[i]?.length ?? 0))];
await measure("decompress and check text, this thread", text.length, () => {
  for (const [i, chunk] of stored.entries()) {
    unpackChunk(chunk.stored, chunk.flags, chunk.rawLength, chunks[i]?.hash);
  }
});

const refs = chunkInline(data);
let start = performance.now();
const entries = 1_000_000;
const builder = new ManifestBuilder({ onSegment: () => {} });
for (let i = 0; i < entries; i++) {
  const ref = refs[i % refs.length];
  if (ref !== undefined) builder.add(ref.hash, ref.length);
}
builder.finish();
console.log(`manifest: ${(entries / (performance.now() - start)).toFixed(0)}k chunks/s`);

const base = encodeManifest(refs);
const segments = new Map(base.segments.map(({ hash, blob }) => [hash.toHex(), blob]));
const edits = 200;
let read = 0;
start = performance.now();
for (let i = 0; i < edits; i++) {
  const at = (i * 7_919_317) % (data.length - 4096);
  const { readBytes } = await rechunk({
    base: decodeManifest(base.blob),
    loadSegment: (hash) => segments.get(hash.toHex()) ?? new Uint8Array(0),
    dirty: Extents.of([{ start: at, end: at + 4096 }]),
    size: data.length,
    readNew: (offset, length) => {
      const bytes = data.slice(offset, offset + length);
      for (let b = Math.max(at, offset); b < Math.min(at + 4096, offset + length); b++) bytes[b - offset] = 0x55;
      return Promise.resolve(bytes);
    },
    onChunk: () => {},
    chunker: wasm,
  });
  read += readBytes;
}
const each = (performance.now() - start) / edits;
console.log(
  `rechunk after a 4 KiB write into ${megabytes} MB: ${each.toFixed(2)} ms, ${
    (read / edits / 1000).toFixed(0)
  } kB read` +
    ` (a chunk has at most ${MAX_CHUNK / 1000} kB)`,
);
