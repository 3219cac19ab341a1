/** The cache of contents: many large ones at once, and what it may show when nothing can be compared. */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { FakeServer } from "../../tests/support/fake_server.ts";
import { SimDevice } from "../../tests/support/sim_device.ts";
import { FsError } from "../fs/error.ts";
import { systemClock } from "../platform/clock.ts";
import { ChunkPool } from "../store/chunk_pool.ts";
import { ContentCache } from "./content_cache.ts";

const unchecked = { sanitizeResources: false, sanitizeOps: false };
const SIZE = 300_000;

/** A server with so many large files, and a link to it. */
async function house(files: number) {
  const server = new FakeServer();
  const pool = new ChunkPool({ workers: 1 });
  const writer = await SimDevice.open({ server, name: "writer", pool });
  const contents: { hash: string; bytes: Uint8Array }[] = [];
  for (let n = 0; n < files; n++) {
    const bytes = new Uint8Array(SIZE);
    for (let i = 0; i < SIZE; i++) bytes[i] = (i * 31 + (i >> 8) * n + n) & 0xff;
    const ino = await writer.write(1, `f${n}`, bytes);
    const alive = setInterval(() => {}, 1000);
    assert.ok(await writer.fs.drain(10_000));
    clearInterval(alive);
    const hash = (await server.index.stat(ino))?.content;
    assert.ok(hash);
    contents.push({ hash, bytes });
  }
  await writer.stop();
  pool.close();
  const link = server.link("reader");
  await link.connect();
  const folder = Deno.makeTempDirSync({ prefix: "anyfs-cache-" });
  const open = () =>
    ContentCache.open({ folder, maxBytes: 1e9, prefetch: false, clock: systemClock, link: () => link });
  return { contents, link, folder, open };
}

Deno.test(
  { name: "more large files than stay open by themselves can be read while all are in use", ...unchecked },
  async () => {
    const { contents, open, folder } = await house(70);
    const cache = await open();
    for (const { hash } of contents) cache.retain(hash, SIZE);
    for (const { hash, bytes } of contents) {
      assert.deepEqual(await cache.read(hash, SIZE, 1000, 200_000), bytes.slice(1000, 201_000));
    }
    // Others come while these are in use, and are looked at without being opened.
    for (const { hash } of contents) cache.release(hash, SIZE);
    await Promise.all(contents.map(async ({ hash, bytes }) => {
      await cache.fetch(hash, SIZE);
      assert.deepEqual(await cache.read(hash, SIZE, 0, SIZE), bytes);
    }));
    cache.close();
    Deno.removeSync(folder, { recursive: true });
  },
);

Deno.test(
  { name: "what was never fetched is not shown as zeros when nothing can be compared", ...unchecked },
  async () => {
    const { contents, open, folder, link } = await house(1);
    const [content] = contents;
    assert.ok(content);
    const { hash, bytes } = content;
    const first = await open();
    await first.read(hash, SIZE, 0, 1000);
    first.close();
    const database = new DatabaseSync(`${folder}/cache.db`);
    database.exec("DELETE FROM manifests");
    const row = database.prepare("SELECT present FROM big").get() as { present: string };
    database.close();
    const [, end = 0] = JSON.parse(row.present) as number[];
    assert.ok(end >= 1000 && end < SIZE, "only a part was fetched");
    link.disconnect();
    const cache = await open();
    const away = (error: unknown) => error instanceof FsError && error.code === "unavailable";
    for (let i = 0; i < 2; i++) {
      await assert.rejects(cache.read(hash, SIZE, 0, SIZE), away);
      assert.equal(cache.readNow(hash, SIZE, 0, new Uint8Array(SIZE)), false);
    }
    assert.deepEqual(await cache.read(hash, SIZE, 0, 1000), bytes.slice(0, 1000));
    cache.close();
    Deno.removeSync(folder, { recursive: true });
  },
);
