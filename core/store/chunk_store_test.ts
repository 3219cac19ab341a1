/** The chunk store: deduplication, runs, open packs after a crash, and a disk that fails under it. */
import assert from "node:assert/strict";
import { CoreHouse } from "../../tests/support/core_house.ts";
import { rejects } from "../../tests/support/expect.ts";
import { PACK_OPEN, PACK_SEALED } from "../index/schema.ts";
import type { ChunkRef } from "./manifest.ts";
import { OPEN_FOLDER } from "./chunk_store.ts";
import { OpenPack } from "./open_pack.ts";
import { packChunk } from "./codec.ts";
import { sha256 } from "./hash.ts";
import { patternBytes } from "./testing/bytes.ts";

const piece = (seed: number, length = 20_000, style: "random" | "text" = "random") => {
  const bytes = patternBytes(seed, length, style);
  return { hash: sha256(bytes), bytes };
};
const ref = ({ hash, bytes }: { hash: Uint8Array; bytes: Uint8Array }): ChunkRef => ({ hash, length: bytes.length });

Deno.test("chunks come back in order, known ones, zeros, compressed and repeated ones mixed, from open and sealed packs", async () => {
  await using house = new CoreHouse({ upload: { flushBytes: 200_000 }, cacheBytes: 0 });
  const { chunks } = await house.open();
  const all = Array.from({ length: 40 }, (_, i) => piece(i, 1000 + i * 700, i % 3 === 0 ? "text" : "random"));
  const zeros = { hash: sha256(new Uint8Array(8192)), bytes: new Uint8Array(8192) };
  await chunks.put(all.slice(0, 20), { verify: true });
  await chunks.put([zeros, ...all.slice(10), ...all.slice(0, 5)]);
  const asked = [...all.slice(30), zeros, ...all.slice(0, 30).reverse(), zeros, all[3] ?? zeros];
  const got = await Array.fromAsync(chunks.readMany(asked.map(ref)));
  assert.equal(got.length, asked.length);
  for (const [i, { bytes }] of asked.entries()) assert.deepEqual(new Uint8Array(got[i] ?? []), bytes);
});

Deno.test("the same chunk put by many at once is stored once", async () => {
  await using house = new CoreHouse();
  const core = await house.open();
  const one = piece(1);
  await Promise.all(Array.from({ length: 20 }, () => core.chunks.put([one])));
  const [pack] = await core.index.packPage(0, 10);
  assert.equal((await core.index.chunksOfPack(pack?.id ?? 0)).length, 1);
  assert.ok((pack?.bytes ?? 0) < 30_000);
});

Deno.test("after a crash an open pack is cut back to what was committed and sealed, torn bytes and tails included", async () => {
  await using house = new CoreHouse();
  const core = await house.open();
  await core.fs.write("/a", piece(1).bytes);
  await core.fs.write("/b", piece(2).bytes);
  const copy = house.snapshot();
  const [file = ""] = Array.from(Deno.readDirSync(`${house.hot(copy)}/${OPEN_FOLDER}`), ({ name }) => name);
  const path = `${house.hot(copy)}/${OPEN_FOLDER}/${file}`;
  Deno.writeFileSync(path, patternBytes(9, 5000), { append: true });
  Deno.writeFileSync(`${house.hot(copy)}/${OPEN_FOLDER}/999.pack`, patternBytes(9, 5000));
  const again = await house.open(copy);
  assert.deepEqual(Array.from(Deno.readDirSync(`${house.hot(copy)}/${OPEN_FOLDER}`)), []);
  assert.deepEqual(await again.fs.read("/a"), piece(1).bytes);
  assert.deepEqual(await again.fs.read("/b"), piece(2).bytes);
  assert.deepEqual((await again.index.packsInState(PACK_OPEN)).length, 0);
  assert.deepEqual((await again.tiers.scrub({ deep: true })).problems, []);
});

Deno.test("a sealed pack whose file was not moved yet is moved at the next start", async () => {
  await using house = new CoreHouse();
  const core = await house.open();
  await core.fs.write("/a", piece(1).bytes);
  await core.chunks.seal();
  const [pack] = await core.index.packsInState(PACK_SEALED);
  const copy = house.snapshot();
  const [place = ""] = house.hotPacks(copy);
  Deno.renameSync(place, `${house.hot(copy)}/${OPEN_FOLDER}/${pack?.id}.pack`);
  const again = await house.open(copy);
  assert.deepEqual(house.hotPacks(copy), [place]);
  assert.deepEqual(await again.fs.read("/a"), piece(1).bytes);
});

Deno.test("a damaged open pack is reported, keeps what is intact readable, and does not stop the server", async () => {
  await using house = new CoreHouse();
  const core = await house.open();
  await core.fs.write("/a", piece(1).bytes);
  await core.fs.write("/b", piece(2).bytes);
  const copy = house.snapshot();
  const [file = ""] = Array.from(Deno.readDirSync(`${house.hot(copy)}/${OPEN_FOLDER}`), ({ name }) => name);
  const path = `${house.hot(copy)}/${OPEN_FOLDER}/${file}`;
  const bytes = Deno.readFileSync(path);
  bytes[bytes.length - 100] = (bytes[bytes.length - 100] ?? 0) ^ 1;
  Deno.writeFileSync(path, bytes);
  const again = await house.open(copy);
  assert.deepEqual(await again.fs.read("/a"), piece(1).bytes);
  await rejects("corrupt", again.fs.read("/b"));
  await again.fs.write("/c", piece(3).bytes);
  assert.deepEqual(await again.fs.read("/c"), piece(3).bytes);
  assert.ok((await again.tiers.scrub({})).problems.length > 0);
});

Deno.test("an old open pack is sealed without being asked", async () => {
  await using house = new CoreHouse({ upload: { flushIntervalMs: 40 } });
  const core = await house.open();
  await core.fs.write("/a", piece(1).bytes);
  for (let i = 0; i < 500 && house.hotPacks().length === 0; i++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.equal(house.hotPacks().length, 1);
  assert.deepEqual(await core.fs.read("/a"), piece(1).bytes);
});

Deno.test("when a group of changes is taken back, its writers hear of it and the store goes on from what is committed", async () => {
  await using house = new CoreHouse();
  let lost = 0;
  const core = await house.open(house.folder, { onRollback: () => lost++ });
  await core.fs.write("/a", piece(1).bytes);
  // The pack's file breaks under the store: what it holds of this group can't be put on the disk.
  const { OpenPack } = await import("./open_pack.ts");
  const sync = OpenPack.prototype.sync;
  const { FsError } = await import("../fs/error.ts");
  OpenPack.prototype.sync = () => Promise.reject(new FsError("internal", "the disk broke"));
  try {
    await assert.rejects(core.fs.write("/b", piece(2).bytes), /the disk broke/);
  } finally {
    OpenPack.prototype.sync = sync;
  }
  assert.ok(lost > 0);
  assert.equal(await core.fs.exists("/b"), false);
  await core.fs.write("/b", piece(2).bytes);
  assert.deepEqual(await core.fs.read("/a"), piece(1).bytes);
  assert.deepEqual(await core.fs.read("/b"), piece(2).bytes);
  assert.deepEqual((await core.tiers.scrub({ deep: true })).problems, []);
});

Deno.test("bytes on their way to the disk count as not there yet, and if they don't arrive whoever waits hears of it", async () => {
  const folder = Deno.makeTempDirSync({ prefix: "anyfs-pack-" });
  const pack = await OpenPack.create(folder, 1);
  const { hash, bytes } = piece(1);
  await pack.append([{ hash, packed: packChunk(bytes, { compress: false }) }]);
  assert.equal(pack.dirty, true);
  const syncing = pack.sync();
  assert.equal(pack.dirty, true);
  await syncing;
  assert.equal(pack.dirty, false);
  pack.close();
  Deno.removeSync(folder, { recursive: true });
});

Deno.test("a pack that can't be put into its place stays readable and gets there as soon as it can", async () => {
  await using house = new CoreHouse({ upload: { flushIntervalMs: 40 } });
  const core = await house.open();
  // A file where the folder of packs belongs.
  const place = `${house.hot()}/packs`;
  Deno.writeTextFileSync(place, "");
  await core.fs.write("/a", piece(1).bytes);
  await assert.rejects(core.chunks.seal());
  assert.deepEqual(await core.fs.read("/a"), piece(1).bytes);
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.deepEqual(await core.fs.read("/a"), piece(1).bytes);
  Deno.removeSync(place);
  for (let i = 0; i < 500 && house.hotPacks().length === 0; i++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.equal(house.hotPacks().length, 1);
  assert.deepEqual(await core.fs.read("/a"), piece(1).bytes);
});
