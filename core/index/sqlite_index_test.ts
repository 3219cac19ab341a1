/** The index: contents and their references, packs and the log, requests that are repeated, the change feed. */
import assert from "node:assert/strict";
import { type FsError, hasCode } from "../fs/error.ts";
import { S_IFREG } from "../fs/stat.ts";
import { type Clock, systemClock } from "../platform/clock.ts";
import { hex, sha256 } from "../store/hash.ts";
import { encodeManifest, ManifestBuilder, type SegmentBlob } from "../store/manifest.ts";
import type { Change, Op } from "./ops.ts";
import { ROOT_INO } from "./ops.ts";
import { PACK_DEAD, PACK_OPEN, PACK_SEALED } from "./schema.ts";
import type { SqliteIndex } from "./sqlite_index.ts";
import { openIndex, TIME } from "./testing/open_index.ts";

const chunk = (n: number) => ({ hash: sha256(Uint8Array.of(n & 255, n >> 8)), length: 1000 + n });
const asStored = (n: number, offset: number) => ({ hash: chunk(n).hash, offset, stored: 900, raw: 1000 + n, flags: 0 });

/** A pack with these chunks; sealed when it has a name. */
async function pack(index: SqliteIndex, chunks: readonly number[], name?: string): Promise<number> {
  const id = await index.createPack();
  await index.addChunks(id, chunks.map((n, i) => asStored(n, 100 + i * 1000)), 100 + chunks.length * 1000);
  if (name !== undefined) await index.sealPack(id, name, 200 + chunks.length * 1000);
  return id;
}
const manifest = (...numbers: number[]) => encodeManifest(numbers.map(chunk));

async function write(index: SqliteIndex, name: string, ...numbers: number[]): Promise<number> {
  const built = manifest(...numbers);
  const ino = await index.allotIno();
  const { durable } = await index.apply({
    device: 0,
    request: 0,
    manifests: [built.blob],
    ops: [
      { t: "create", parent: ROOT_INO, name, ino, mode: S_IFREG | 0o644, uid: 0, gid: 0, rdev: 0, time: TIME },
      { t: "content", ino, base: null, content: hex(built.hash), size: built.size, time: TIME },
    ],
  });
  await durable;
  return ino;
}
const remove = async (index: SqliteIndex, name: string) => {
  const op: Op = { t: "unlink", parent: ROOT_INO, name, ino: 0, time: TIME };
  await (await index.apply({ device: 0, request: 0, manifests: [], ops: [op] })).durable;
};

Deno.test("a content whose chunks are not all stored is refused, and nothing of its request stays", async () => {
  const index = openIndex();
  await pack(index, [1]);
  await assert.rejects(write(index, "f", 1, 2), (e: FsError) => e.code === "conflict" && /not stored/.test(e.message));
  assert.equal(await index.lookup(ROOT_INO, "f"), null);
  assert.equal(await index.hasContent(hex(manifest(1, 2).hash)), false);
  assert.deepEqual(await index.check(), []);
  await index.close();
});

Deno.test("bug 1: a pack's log entries name that pack, and an entry that exists stays whose it is", async () => {
  const index = openIndex();
  const first = await pack(index, [1], "a".repeat(64));
  const second = await pack(index, [2], "b".repeat(64));
  for (const tier of [2, 4]) {
    assert.deepEqual((await index.walDue(tier, 10)).map((e) => [e.packId, e.object]), [
      [first, "a".repeat(64)],
      [second, "b".repeat(64)],
    ]);
  }
  // Asked for again, an entry that waits is not doubled, and the id that comes back is nobody else's.
  await index.lostFrom(first, 2, true);
  const third = await pack(index, [3], "c".repeat(64));
  assert.equal(new Set([first, second, third]).size, 3);
  assert.deepEqual((await index.walDue(2, 10)).map((e) => e.packId), [first, second, third]);
  await index.close();
});

Deno.test("the write-ahead file does not grow from one kill to the next, however little each process writes", async () => {
  const folder = await Deno.makeTempDir();
  const before = openIndex({ path: `${folder}/index` });
  const size = (name: string) => Deno.statSync(`${folder}/${name}`).size;
  await pack(before, [1]);
  for (let n = 0; size("index-wal") < 17 * 1024 * 1024; n++) await write(before, `f${n}`, 1);
  assert.ok(size("index") < 1024 * 1024);
  Deno.mkdirSync(`${folder}/killed`);
  for (const name of ["index", "index-wal"]) Deno.copyFileSync(`${folder}/${name}`, `${folder}/killed/${name}`);
  await before.close();
  const after = openIndex({ path: `${folder}/killed/index` });
  const taken = size("killed/index");
  await write(after, "one more", 1);
  for (let i = 0; i < 500 && size("killed/index") === taken; i++) await systemClock.sleep(10);
  assert.ok(size("killed/index") > taken);
  await after.close();
  await Deno.remove(folder, { recursive: true });
});

Deno.test("bug 2: a pack, its chunks and its log entries are there together after a crash, or none of them", async () => {
  const folder = await Deno.makeTempDir();
  const index = openIndex({ path: `${folder}/index` });
  const copies: string[] = [];
  const copy = () => {
    const to = `${folder}/copy${copies.length}`;
    Deno.mkdirSync(to);
    for (const file of ["index", "index-wal"]) Deno.copyFileSync(`${folder}/${file}`, `${to}/${file}`);
    copies.push(to);
  };
  copy();
  for (let n = 0; n < 4; n++) {
    const work = pack(index, [n], hex(sha256(Uint8Array.of(n))));
    for (let i = 0; i < 6; i++) {
      copy();
      await Promise.resolve();
    }
    await work;
    await index.settle();
    copy();
  }
  await index.close();
  let complete = 0;
  for (const path of copies) {
    const again = openIndex({ path: `${path}/index` });
    assert.deepEqual(await again.check(), []);
    const { entries } = await again.walCount();
    const packs = await again.packPage(0, 100);
    assert.equal(entries, packs.length * 2, "each pack has its entry for each tier");
    for (const { id, bytes } of packs) if (bytes > 0) assert.equal((await again.chunksOfPack(id)).length, 1);
    if (packs.length === 4) complete++;
    await again.close();
  }
  assert.ok(complete > 0);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("bug 3: a pack counts as on a tier only for what was uploaded: an overwritten file is not safe by its old bytes", async () => {
  const index = openIndex();
  const first = await pack(index, [1], "a".repeat(64));
  await write(index, "f", 1);
  const [entry] = await index.walDue(4, 1);
  assert.ok(entry);
  // While the upload is under way the file gets other bytes, in another pack.
  const second = await pack(index, [2], "b".repeat(64));
  const built = manifest(2);
  const ino = (await index.lookup(ROOT_INO, "f"))?.ino ?? 0;
  const op: Op = { t: "content", ino, base: null, content: hex(built.hash), size: built.size, time: TIME };
  await index.apply({ device: 0, request: 0, manifests: [built.blob], ops: [op] });
  await index.putDone(entry);
  const stat = await index.stat(ino);
  assert.equal(await index.tiersOf(stat?.content ?? null, 7), 1);
  assert.equal((await index.pack(first))?.tiers, 5);
  assert.equal((await index.pack(second))?.tiers, 1);
  assert.equal((await index.dropTier(second, 1, 4)).value, false, "the new bytes must not leave");
  await index.close();
});

Deno.test("bug 4: two replicators that finish together both have their bit", async () => {
  const index = openIndex();
  const id = await pack(index, [1], "a".repeat(64));
  const [nas] = await index.walDue(2, 1);
  const [s3] = await index.walDue(4, 1);
  assert.ok(nas && s3);
  await Promise.all([index.putDone(nas), index.putDone(s3)]);
  assert.equal((await index.pack(id))?.tiers, 7);
  await Promise.all([index.dropTier(id, 1, 6), index.lostFrom(id, 2, true)]);
  assert.equal((await index.pack(id))?.tiers, 4);
  assert.equal((await index.dropTier(id, 4, 0)).value, false, "nothing needed is not a licence to drop the last copy");
  await index.close();
});

Deno.test("bug 5: an entry that fails waits, keeps its last error, and is never dropped", async () => {
  let now = 1_000_000;
  const index = openIndex({ now: () => now });
  await pack(index, [1], "a".repeat(64));
  for (let n = 1; n <= 50; n++) {
    const [entry] = await index.walDue(2, 10);
    assert.ok(entry, `gone after ${n - 1} failures`);
    assert.equal(entry.attempts, n - 1);
    await index.walFailed(entry.id, `failure ${n}`, now + 300_000);
    assert.deepEqual(await index.walDue(2, 10), []);
    assert.equal(await index.walNextDue(2), now + 300_000);
    now += 300_000;
  }
  const [entry] = await index.walPage(0, 10);
  assert.equal(entry?.lastError, "failure 50");
  await index.walFailed(entry?.id ?? 0, "once more", now + 300_000);
  assert.equal(await index.walRetry(entry?.id ?? 0), 1);
  assert.equal((await index.walDue(2, 10)).length, 1);
  await index.close();
});

Deno.test("what loses its last reference is collected after its grace time, with the packs that become empty", async () => {
  let now = 1000;
  const index = openIndex({ now: () => now });
  const one = await pack(index, [1, 2], "a".repeat(64));
  const two = await pack(index, [3], "b".repeat(64));
  await write(index, "x", 1, 2, 1);
  await write(index, "y", 2, 3);
  await remove(index, "x");
  now = 2000;
  assert.deepEqual(await index.collect(1000, 10), { contents: 0, chunks: 0, bytes: 0, packs: 0 });
  const sum = { contents: 0, chunks: 0 };
  for (let i = 0; i < 5; i++) {
    const { contents, chunks } = await index.collect(now, 10);
    sum.contents += contents;
    sum.chunks += chunks;
    assert.deepEqual(await index.check(), []);
    now += 1000;
  }
  assert.deepEqual(sum, { contents: 1, chunks: 1 });
  assert.equal((await index.pack(one))?.liveBytes, 900);
  await remove(index, "y");
  for (let i = 0; i < 5; i++) await index.collect(now += 1000, 10);
  for (const id of [one, two]) assert.equal((await index.pack(id))?.state, PACK_DEAD);
  const entries = await index.walPage(0, 100);
  assert.deepEqual(new Set(entries.map((e) => e.op)), new Set(["delete"]));
  assert.equal(entries.length, 6);
  for (const entry of entries) await index.deleteDone(entry);
  assert.deepEqual(await index.packPage(0, 10), []);
  assert.deepEqual(await index.check(), []);
  await index.close();
});

Deno.test("bug 16: a chunk that a writer has just been told is stored outlives the collection of what else referred to it", async () => {
  let now = 1000;
  const index = openIndex({ now: () => now });
  await pack(index, [1], "a".repeat(64));
  await write(index, "old", 1);
  await remove(index, "old");
  now = 100_000;
  // The old content has been dead for long; the writer finds its chunk stored and refers to it a moment later.
  assert.deepEqual(await index.missing([chunk(1)]), []);
  for (let i = 0; i < 3; i++) await index.collect(now - 50_000, 10);
  await write(index, "new", 1);
  assert.deepEqual(await index.check(), []);
  // The same for a chunk to which nothing referred.
  await pack(index, [2], "b".repeat(64));
  now = 200_000;
  assert.deepEqual(await index.missing([chunk(2)]), []);
  await index.collect(now - 50_000, 10);
  await write(index, "new2", 2);
  // And a writer that comes too late is told so, instead of making a file of nothing.
  await pack(index, [3], "c".repeat(64));
  assert.deepEqual(await index.missing([chunk(3)]), []);
  now = 400_000;
  await index.collect(now - 50_000, 10);
  await assert.rejects(write(index, "new3", 3), (e) => hasCode(e, "conflict"));
  await index.close();
});

Deno.test("segments are counted like contents, and a large content's packs are known", async () => {
  let now = 1000;
  const index = openIndex({ now: () => now });
  const numbers = Array.from({ length: 3000 }, (_, i) => i + 10);
  const first = await pack(index, numbers.slice(0, 1500), "a".repeat(64));
  const second = await pack(index, numbers.slice(1500), "b".repeat(64));
  const segments: SegmentBlob[] = [];
  const builder = new ManifestBuilder({ onSegment: (s) => void segments.push(s) });
  builder.addAll(numbers.map(chunk));
  const built = builder.finish();
  assert.ok(segments.length > 1);
  const ino = await index.allotIno();
  const create: Op = {
    t: "create",
    parent: ROOT_INO,
    name: "big",
    ino,
    mode: S_IFREG | 0o644,
    uid: 0,
    gid: 0,
    rdev: 0,
    time: TIME,
  };
  const content: Op = { t: "content", ino, base: null, content: hex(built.hash), size: built.size, time: TIME };
  const request = { device: 0, request: 0, manifests: [built.blob], ops: [create, content] };
  await assert.rejects(index.apply(request), (e) => hasCode(e, "conflict"));
  for (const { blob } of segments) await index.addSegment(blob);
  await index.addSegment(segments[0]?.blob ?? new Uint8Array());
  await index.apply(request);
  assert.deepEqual(await index.check(), []);
  const tiers = async () => await index.tiersOf(hex(built.hash), 7);
  assert.equal(await tiers(), 1);
  await index.addTier(first, 4);
  assert.equal(await tiers(), 1);
  await index.addTier(second, 4);
  assert.equal(await tiers(), 5);
  await remove(index, "big");
  for (let i = 0; i < 200; i++) {
    now += 1000;
    const { contents, chunks } = await index.collect(now, 10);
    if (i > 3 && contents + chunks === 0) break;
  }
  assert.deepEqual(await index.check(), []);
  assert.deepEqual(await index.chunks([chunk(10).hash]), [null]);
  for (const id of [first, second]) assert.equal((await index.pack(id))?.state, PACK_DEAD);
  await index.close();
});

Deno.test("an upload that ends after its pack has died is deleted again", async () => {
  let now = 1000;
  const index = openIndex({ now: () => now });
  const id = await pack(index, [1], "a".repeat(64));
  const [entry] = await index.walDue(4, 1);
  assert.ok(entry);
  now = 5000;
  await index.collect(now, 10);
  assert.equal((await index.pack(id))?.state, PACK_DEAD);
  for (const dead of await index.walPage(0, 10)) if (dead.tier === 4) await index.deleteDone(dead);
  await index.putDone(entry);
  assert.deepEqual((await index.walDue(4, 10)).map((e) => [e.op, e.packId]), [["delete", id]]);
  assert.equal((await index.pack(id))?.tiers, 1);
  await index.close();
});

Deno.test("accesses fade with time, so a pack that was popular last year is not kept for it", async () => {
  let now = 1000;
  const index = openIndex({ now: () => now });
  const id = await pack(index, [1], "a".repeat(64));
  await index.touchPacks(new Map([[id, 100]]));
  assert.equal((await index.pack(id))?.hits, 100);
  now += 15 * 86_400_000;
  await index.touchPacks(new Map([[id, 1]]));
  assert.equal((await index.pack(id))?.hits, 51);
  now += 40 * 86_400_000;
  await index.touchPacks(new Map([[id, 1]]));
  const after = await index.pack(id);
  assert.deepEqual([after?.hits, after?.lastAccess], [1, now]);
  await index.close();
});

const mk = (name: string): Op => ({
  t: "create",
  parent: ROOT_INO,
  name,
  ino: 0,
  mode: S_IFREG | 0o644,
  uid: 0,
  gid: 0,
  rdev: 0,
  time: TIME,
});

Deno.test("a request that is sent twice is applied once, and a failed one fails the same way again", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/index`;
  let index = openIndex({ path });
  const { no } = await index.device("laptop", "host");
  const send = (request: number, ...ops: Op[]) => index.apply({ device: no, request, manifests: [], ops });
  const first = (await send(1, mk("a"))).value;
  assert.equal(first.repeated, false);
  const again = (await send(1, mk("a"))).value;
  assert.deepEqual([again.repeated, again.done, again.stats], [true, [], []]);
  await assert.rejects(send(2, mk("a")), (e) => hasCode(e, "already_exists"));
  await index.close();
  index = openIndex({ path });
  const failed = await send(2, mk("a")).then(() => null, (e: FsError) => e);
  assert.equal(failed?.code, "already_exists");
  assert.equal((await index.device("laptop", "host")).lastRequest, 2);
  assert.equal((await send(3, mk("b"))).value.repeated, false);
  // A chunk that must be sent again does not use the number up.
  const content: Op = {
    t: "content",
    ino: first.done[0]?.ino ?? 0,
    base: null,
    content: hex(manifest(1).hash),
    size: 1001,
    time: TIME,
  };
  const large = { device: no, request: 4, manifests: [manifest(1).blob], ops: [content] };
  await assert.rejects(index.apply(large), (e) => hasCode(e, "conflict"));
  await pack(index, [1]);
  assert.equal((await index.apply(large)).value.repeated, false);
  assert.deepEqual(await index.check(), []);
  await index.close();
  await Deno.remove(folder, { recursive: true });
});

Deno.test("requests that come together are applied all or none, never twice, and a failure leaves them free to come one by one", async () => {
  const index = openIndex();
  const { no } = await index.device("laptop", "host");
  const group = (previous: number, request: number, ...ops: Op[]) =>
    index.apply({ device: no, request, previous, group: true, manifests: [], ops });
  const send = (previous: number, request: number, ...ops: Op[]) =>
    index.apply({ device: no, request, previous, manifests: [], ops });
  assert.equal((await group(0, 2, mk("a"), mk("b"))).value.done.length, 2);
  await assert.rejects(group(2, 4, mk("c"), mk("a")), (e) => hasCode(e, "already_exists"));
  assert.equal(await index.lookup(ROOT_INO, "c"), null);
  assert.equal((await index.device("laptop", "host")).lastRequest, 2);
  assert.equal((await send(2, 3, mk("c"))).value.repeated, false);
  // Request 3 is there: together with it nothing may come again.
  await assert.rejects(group(2, 5, mk("c"), mk("d"), mk("e")), (e) => hasCode(e, "unavailable"));
  assert.equal(await index.lookup(ROOT_INO, "d"), null);
  await assert.rejects(send(3, 4, mk("a")), (e) => hasCode(e, "already_exists"));
  assert.equal((await group(4, 6, mk("d"), mk("e"))).value.repeated, false);
  // Out of turn.
  await assert.rejects(group(8, 10, mk("f"), mk("g")), (e) => hasCode(e, "unavailable"));
  assert.deepEqual(await index.check(), []);
  await index.close();
});

Deno.test("a device is never in conflict with its own bytes, whatever it expects, and always with another's", async () => {
  const index = openIndex();
  const [a, b] = [(await index.device("a", "host")).no, (await index.device("b", "host")).no];
  await pack(index, [1, 2]);
  const send = (device: number, request: number, op: Op, ...manifests: Uint8Array[]) =>
    index.apply({ device, request, manifests, ops: [op] });
  const ino = (await send(a, 1, mk("f"))).value.done[0]?.ino ?? 0;
  const write = (n: number, baseContent: string | null): Op => ({
    t: "content",
    ino,
    base: null,
    baseContent,
    content: hex(manifest(n).hash),
    size: 1000 + n,
    time: TIME,
  });
  await send(a, 2, write(1, null), manifest(1).blob);
  // It lost count of what it sent.
  await send(a, 3, write(2, null), manifest(2).blob);
  await assert.rejects(send(b, 1, write(1, null), manifest(1).blob), (e) => hasCode(e, "conflict"));
  await send(b, 2, write(1, hex(manifest(2).hash)), manifest(1).blob);
  await assert.rejects(send(a, 4, write(2, hex(manifest(2).hash))), (e) => hasCode(e, "conflict"));
  const remove: Op = { t: "unlink", parent: ROOT_INO, name: "f", ino, baseContent: null, time: TIME };
  await assert.rejects(send(a, 5, remove), (e) => hasCode(e, "conflict"));
  await send(b, 3, remove);
  assert.equal(await index.lookup(ROOT_INO, "f"), null);
  assert.deepEqual(await index.check(), []);
  await index.close();
});

Deno.test("a stale version is a conflict and changes nothing", async () => {
  const index = openIndex();
  await pack(index, [1, 2]);
  const ino = await write(index, "f", 1);
  const { version = 0 } = await index.stat(ino) ?? {};
  const built = manifest(2);
  const op = (base: number): Op => ({
    t: "content",
    ino,
    base,
    content: hex(built.hash),
    size: built.size,
    time: TIME,
  });
  const send = (base: number) => index.apply({ device: 0, request: 0, manifests: [built.blob], ops: [op(base)] });
  await assert.rejects(send(version - 1), (e) => hasCode(e, "conflict"));
  assert.equal((await index.stat(ino))?.content, hex(manifest(1).hash));
  await send(version);
  await assert.rejects(send(version), (e) => hasCode(e, "conflict"));
  assert.deepEqual(await index.check(), []);
  await index.close();
});

Deno.test("the change feed tells every change once, in order, and survives a restart with numbers that only grow", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/index`;
  let index = openIndex({ path });
  const heard: Change[] = [];
  const stop = index.onChanges((changes) => void heard.push(...changes));
  await index.apply({ device: 0, request: 0, manifests: [], ops: [mk("a"), mk("b")] });
  await remove(index, "a");
  stop();
  await index.apply({ device: 0, request: 0, manifests: [], ops: [mk("c")] });
  const all = await index.changesSince(0, 1000);
  assert.ok(all);
  assert.deepEqual(all.slice(0, heard.length), heard);
  assert.ok(all.length > heard.length);
  assert.ok(all.every((change, i) => i === 0 || change.seq > (all[i - 1]?.seq ?? 0)));
  const names = heard.filter((c) => c.kind === "entry").map((c) => [c.name, c.ino > 0]);
  assert.deepEqual(names, [["a", true], ["b", true], ["a", false]]);
  const last = await index.lastSeq();
  assert.deepEqual(await index.changesSince(last, 10), []);
  await index.close();
  index = openIndex({ path });
  assert.equal(index.bootSeq, last);
  await index.apply({ device: 0, request: 0, manifests: [], ops: [mk("d")] });
  const [next] = await index.changesSince(last, 1) ?? [];
  assert.ok((next?.seq ?? 0) > last);
  await index.close();
  await Deno.remove(folder, { recursive: true });
});

Deno.test("a newer format and a file that is no database are told apart and named", async () => {
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(
    `${folder}/text`,
    "this is no database, and it is longer than a header of SQLite would be".repeat(20),
  );
  assert.throws(() => openIndex({ path: `${folder}/text` }), (e) => hasCode(e, "corrupt"));
  const index = openIndex({ path: `${folder}/index` });
  await index.close();
  const { openDatabase } = await import("../platform/sqlite.ts");
  const db = openDatabase(`${folder}/index`);
  db.exec("PRAGMA user_version = 99");
  db.close();
  assert.throws(() => openIndex({ path: `${folder}/index` }), (e) => hasCode(e, "not_supported"));
  await Deno.remove(folder, { recursive: true });
});

Deno.test("tokens are found by hash until they are revoked, answers are kept by key, meta survives", async () => {
  const index = openIndex();
  const hash = sha256(Uint8Array.of(1));
  const token = { id: "t1", scope: "write" as const, path: "/music", created: 5, expires: null };
  await index.addToken(hash, token);
  assert.deepEqual(await index.tokenByHash(hash), token);
  assert.deepEqual(await index.tokens(), [token]);
  assert.equal(await index.revokeToken("t1"), true);
  assert.equal(await index.revokeToken("t1"), false);
  assert.equal(await index.tokenByHash(hash), null);
  await index.keepAnswer("k", Uint8Array.of(1));
  await index.keepAnswer("k", Uint8Array.of(2));
  assert.deepEqual(await index.answer("k"), Uint8Array.of(1));
  await index.setMeta("m", "1");
  await index.setMeta("m", "2");
  assert.equal(await index.getMeta("m"), "2");
  await index.close();
});

Deno.test("a check finds every kind of damage", async () => {
  const folder = await Deno.makeTempDir();
  const { openDatabase } = await import("../platform/sqlite.ts");
  const damages = [
    "UPDATE contents SET refs = refs + 1",
    "UPDATE chunks SET refs = 0",
    "DELETE FROM chunks",
    "UPDATE packs SET live_bytes = 1",
    "DELETE FROM content_packs",
    "UPDATE nodes SET nlink = 9",
    "UPDATE nodes SET size = 1 WHERE content IS NOT NULL",
    "DELETE FROM nodes WHERE ino <> 1",
    "DELETE FROM dentries",
    "UPDATE chunks SET offset = 1000000",
    "DELETE FROM packs",
  ];
  for (const [i, damage] of damages.entries()) {
    const path = `${folder}/${i}`;
    const index = openIndex({ path });
    await pack(index, [1, 2], "a".repeat(64));
    await write(index, "f", 1, 2);
    assert.deepEqual(await index.check(), []);
    await index.close();
    const db = openDatabase(path);
    db.exec(damage);
    db.close();
    const again = openIndex({ path });
    assert.notDeepEqual(await again.check(), [], damage);
    assert.equal(
      (await again.packsInState(PACK_OPEN)).length + (await again.packsInState(PACK_SEALED)).length <= 1,
      true,
    );
    await again.close();
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("chunks are not recorded in a pack whose beginning was taken back", async () => {
  const index = openIndex();
  const id = await pack(index, [1]);
  await assert.rejects(index.addChunks(id + 1, [asStored(2, 100)], 1100), (e: FsError) => e.code === "unavailable");
  assert.deepEqual(await index.missing([chunk(2)]), [0]);
  await assert.rejects(index.sealPack(id + 1, "name", 1100), (e: FsError) => e.code === "unavailable");
  await index.close();
});

Deno.test("why a device's request was refused is told months later, too", async () => {
  let now = 1_000_000_000_000;
  const ticks: (() => void)[] = [];
  const clock: Clock = {
    ...systemClock,
    now: () => now,
    every: (_ms, run) => {
      ticks.push(run);
      return () => {};
    },
  };
  const index = openIndex({ clock });
  const { no } = await index.device("a-device-of-a-test", "host");
  const op: Op = { t: "unlink", parent: ROOT_INO, name: "nothing", ino: 5, time: TIME };
  const send = async () => await (await index.apply({ device: no, request: 1, manifests: [], ops: [op] })).durable;
  await assert.rejects(send(), (e: FsError) => e.code === "not_found");
  now += 90 * 86_400_000;
  for (const tick of ticks) tick();
  await index.settle();
  await assert.rejects(send(), (e: FsError) => e.code === "not_found");
  await index.close();
});
