/** TieredFs against a model in memory, with crashes; streams, handles, and what a full disk and a second server meet. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { OpenPack } from "../store/open_pack.ts";
import { CoreHouse } from "../../tests/support/core_house.ts";
import { collect, rejects, text, utf8 } from "../../tests/support/expect.ts";
import { hasCode } from "../fs/error.ts";
import { patternBytes } from "../store/testing/bytes.ts";
import type { OpenServerCore } from "./open_core.ts";

const PATHS = ["/a", "/b", "/d/a", "/d/b", "/d/e/a"];
type Files = Map<string, Uint8Array>;

type Step =
  | { t: "write" | "stream" | "append" | "handle"; path: number; seed: number; size: number; at: number }
  | { t: "truncate"; path: number; size: number }
  | { t: "copy" | "rename"; path: number; to: number }
  | { t: "remove"; path: number }
  | { t: "seal" | "snapshot" | "collect" };

const path = fc.nat(PATHS.length - 1);
const size = fc.oneof(fc.nat(2000), fc.nat(40_000), fc.nat(400_000));
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    t: fc.constantFrom("write" as const, "stream" as const, "append" as const, "handle" as const),
    path,
    seed: fc.nat(5),
    size,
    at: fc.nat(300_000),
  }),
  fc.record({ t: fc.constant("truncate" as const), path, size: fc.nat(500_000) }),
  fc.record({ t: fc.constantFrom("copy" as const, "rename" as const), path, to: path }),
  fc.record({ t: fc.constant("remove" as const), path }),
  fc.record({ t: fc.constantFrom("seal" as const, "snapshot" as const, "snapshot" as const, "collect" as const) }),
);

function resized(bytes: Uint8Array, size: number): Uint8Array {
  const out = new Uint8Array(size);
  out.set(bytes.subarray(0, size));
  return out;
}
function patched(bytes: Uint8Array, at: number, data: Uint8Array): Uint8Array {
  const out = resized(bytes, Math.max(bytes.length, at + data.length));
  out.set(data, at);
  return out;
}

/** What the step makes of the model's files; null: it must fail with not_found. */
function expected(files: Files, s: Step): Files | null {
  const next = new Map(files);
  if (!("path" in s)) return next;
  const name = PATHS[s.path] ?? "/a";
  const old = files.get(name);
  switch (s.t) {
    case "write":
    case "stream":
      return next.set(name, patternBytes(s.seed, s.size));
    case "append":
      return next.set(name, patched(old ?? new Uint8Array(), old?.length ?? 0, patternBytes(s.seed, s.size)));
    case "handle":
      return next.set(name, patched(old ?? new Uint8Array(), s.at, patternBytes(s.seed, Math.max(1, s.size))));
    case "truncate":
      return old === undefined ? null : next.set(name, resized(old, s.size));
    case "copy":
      return old === undefined ? null : next.set(PATHS[s.to] ?? "/a", old);
    case "rename":
      if (old === undefined) return null;
      next.delete(name);
      return next.set(PATHS[s.to] ?? "/a", old);
    case "remove":
      return old !== undefined && next.delete(name) ? next : null;
  }
}

async function run(core: OpenServerCore, s: Step): Promise<void> {
  const { fs } = core;
  if (s.t === "seal") await core.chunks.seal();
  if (s.t === "collect") await core.collect();
  if (!("path" in s)) return;
  const name = PATHS[s.path] ?? "/a";
  if (s.t === "write") await fs.write(name, patternBytes(s.seed, s.size));
  else if (s.t === "append") await fs.append(name, patternBytes(s.seed, s.size));
  else if (s.t === "truncate") await fs.truncate(name, s.size);
  else if (s.t === "copy") await fs.copy(name, PATHS[s.to] ?? "/a");
  else if (s.t === "rename") await fs.rename(name, PATHS[s.to] ?? "/a");
  else if (s.t === "remove") await fs.removeFile(name);
  else if (s.t === "stream") {
    const { writable, done } = await fs.openWrite(name);
    const writer = writable.getWriter();
    const bytes = patternBytes(s.seed, s.size);
    for (let at = 0; at < bytes.length; at += 70_001) await writer.write(bytes.slice(at, at + 70_001));
    await writer.close();
    await done;
  } else if (s.t === "handle") {
    await using handle = await fs.open(name, { create: true });
    const bytes = patternBytes(s.seed, Math.max(1, s.size));
    const half = bytes.length >> 1;
    await handle.writeAt(s.at + half, bytes.subarray(half));
    await handle.writeAt(s.at, bytes.subarray(0, half));
    assert.deepEqual(await handle.readAt(s.at, bytes.length), bytes);
  }
}

async function contents(core: OpenServerCore): Promise<Files> {
  const files: Files = new Map();
  for (const name of PATHS) {
    const bytes = await core.fs.read(name).catch((error) => {
      if (hasCode(error, "not_found")) return null;
      throw error;
    });
    if (bytes !== null) files.set(name, bytes);
  }
  return files;
}
function same(a: Files, b: Files): boolean {
  if (a.size !== b.size) return false;
  for (const [name, bytes] of a) {
    const other = b.get(name);
    if (other === undefined || other.length !== bytes.length || !bytes.every((x, i) => x === other[i])) return false;
  }
  return true;
}

Deno.test("what was acknowledged is there after a crash at any moment, and never anything else", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 6, maxLength: 22 }),
      fc.infiniteStream(fc.nat(30)),
      async (steps, turns) => {
        // Small packs, so that sealing and moving happen all the time; garbage goes at once.
        await using house = new CoreHouse({ upload: { flushBytes: 150_000 }, gcGraceMs: 0, workers: 1 });
        const core = await house.open();
        await core.fs.createDirAll("/d/e");
        let files: Files = new Map();
        const crashes: { folder: string; before: Files; after: Files }[] = [];
        let crashNext = false;
        for (const s of steps) {
          if (s.t === "snapshot") {
            crashNext = true;
            continue;
          }
          const after = expected(files, s);
          const work = run(core, s);
          if (crashNext && crashes.length < 3) {
            crashNext = false;
            let ended = false;
            work.catch(() => {}).finally(() => ended = true);
            for (let turn = turns.next().value; turn > 0 && !ended; turn--) {
              await new Promise((resolve) => setTimeout(resolve, 0));
            }
            crashes.push({ folder: house.snapshot(), before: files, after: after ?? files });
          }
          if (after === null) await rejects("not_found", work);
          else {
            await work;
            files = after;
          }
        }
        assert.ok(same(await contents(core), files), "the running server has other files than the model");
        assert.deepEqual((await core.tiers.scrub({ deep: true })).problems, []);
        for (const { folder, before, after } of crashes) {
          const again = await house.open(folder);
          const found = await contents(again);
          const between = [...before.keys()].length;
          // A handle that creates its file is two steps: the empty file may be there already.
          const empty = new Map([...after].map(([name, bytes]) => [name, before.has(name) ? bytes : new Uint8Array()]));
          assert.ok(
            same(found, before) || same(found, after) || same(found, empty),
            `after a crash: ${[...found].map(([n, b]) => `${n} ${b.length}`)}; had ${between} files`,
          );
          assert.deepEqual((await again.tiers.scrub({ deep: true })).problems, []);
          await again.fs.write("/after", utf8("still works"));
          await again.close();
        }
        assert.deepEqual(house.log, []);
      },
    ),
    { numRuns: 8 },
  );
});

Deno.test("a pack that is just being moved to its place is no problem", async () => {
  await using house = new CoreHouse();
  const core = await house.open();
  await core.fs.write("/f", patternBytes(1, 500_000));
  const { moveTo } = OpenPack.prototype;
  const moving = Promise.withResolvers<void>();
  OpenPack.prototype.moveTo = async function (folder, name) {
    moving.resolve();
    await new Promise((resolve) => setTimeout(resolve, 300));
    await moveTo.call(this, folder, name);
  };
  try {
    const flushed = core.tiers.flush({});
    await moving.promise;
    assert.deepEqual((await core.tiers.scrub({ deep: true })).problems, []);
    await flushed;
  } finally {
    OpenPack.prototype.moveTo = moveTo;
  }
});

Deno.test("bug 6: a random write keeps every other byte, and a read that fails on the way changes nothing", async () => {
  await using house = new CoreHouse({ cold: ["s3"], promotions: 0, cacheBytes: 0 });
  const core = await house.open();
  const bytes = patternBytes(1, 1_000_000);
  await core.fs.write("/f", bytes);
  await core.tiers.flush({});
  await core.tiers.evict({ to: 0 });
  const fault = house.faults.s3.add({ operations: ["get"], kind: { error: "unavailable" } });
  await rejects("unavailable", core.fs.append("/f", utf8("more")));
  {
    const handle = await core.fs.open("/f");
    await handle.writeAt(500_000, utf8("patch"));
    await rejects("unavailable", handle.close());
  }
  fault();
  assert.ok(same(new Map([["/f", await core.fs.read("/f")]]), new Map([["/f", bytes]])));
  await using handle = await core.fs.open("/f");
  await handle.writeAt(500_000, utf8("patch"));
  await handle.sync();
  const now = await core.fs.read("/f");
  assert.equal(text(now.subarray(500_000, 500_005)), "patch");
  assert.ok(same(new Map([["x", now]]), new Map([["x", patched(bytes, 500_000, utf8("patch"))]])));
});

Deno.test("bug 11: a short answer of a tier is never taken for the end of a file", async () => {
  await using house = new CoreHouse({ cold: ["nas", "s3"], promotions: 0, cacheBytes: 0 });
  const core = await house.open();
  const bytes = patternBytes(2, 400_000);
  await core.fs.write("/f", bytes);
  await core.tiers.flush({});
  await core.tiers.evict({ to: 0 });
  house.faults.nas.add({ operations: ["get"], kind: { shortRead: 7 } });
  assert.deepEqual(await core.fs.read("/f"), bytes, "the next tier has the whole");
  house.faults.s3.add({ operations: ["get"], kind: { shortRead: 7 } });
  await rejects(["corrupt", "unavailable"], core.fs.read("/f"));
  await assert.rejects(collect(await core.fs.openRead("/f")));
});

Deno.test("bug 10: a chunk is known by SHA-256, and bytes that do not have the hash they are sent under are refused", async () => {
  await using house = new CoreHouse();
  const core = await house.open();
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", patternBytes(1, 1000)));
  await rejects("corrupt", core.chunks.put([{ hash, bytes: patternBytes(2, 1000) }], { verify: true }));
  // Nor does it help to agree in 64 bits, or in all but the last one.
  for (const at of [8, 31]) {
    const near = hash.map((byte, i) => i === at ? byte ^ 1 : byte);
    await rejects("corrupt", core.chunks.put([{ hash: near, bytes: patternBytes(1, 1000) }], { verify: true }));
  }
  assert.deepEqual(await core.index.missing([{ hash, length: 1000 }]), [0]);
  await core.chunks.put([{ hash, bytes: patternBytes(1, 1000) }], { verify: true });
  assert.deepEqual(await core.chunks.read({ hash, length: 1000 }), patternBytes(1, 1000));
  await core.fs.write("/f", patternBytes(1, 1000));
  const view = await core.fs.contentView((await core.fs.stat("/f")).content ?? "");
  assert.deepEqual((await core.fs.chunksOf(view, 0, 1000))[0]?.hash, hash);
});

Deno.test("the same bytes are stored once, zeros not at all, and a copy takes no room", async () => {
  await using house = new CoreHouse();
  const core = await house.open();
  const bytes = patternBytes(3, 2_000_000);
  await core.fs.write("/f", bytes);
  const [before] = await core.tiers.status();
  await core.fs.write("/g", bytes);
  await core.fs.copy("/f", "/h");
  await core.fs.write("/hole", new Uint8Array(8 * 1024 * 1024));
  const [after] = await core.tiers.status();
  assert.equal(after?.bytes, before?.bytes);
  assert.equal((await core.fs.stat("/hole")).size, 8 * 1024 * 1024);
  assert.ok((await core.fs.read("/hole")).every((byte) => byte === 0));
  assert.equal((await core.fs.stat("/h")).content, (await core.fs.stat("/f")).content);
});

Deno.test("a change of a large file reads and stores only what is around it", async () => {
  await using house = new CoreHouse({ workers: 2 });
  const core = await house.open();
  await core.fs.write("/f", patternBytes(4, 30_000_000));
  const [before] = await core.tiers.status();
  await core.fs.append("/f", utf8("end"));
  await core.fs.truncate("/f", 29_000_000);
  {
    await using handle = await core.fs.open("/f");
    await handle.writeAt(10_000_000, utf8("middle"));
  }
  const [after] = await core.tiers.status();
  assert.ok((after?.bytes ?? 0) - (before?.bytes ?? 0) < 2_000_000);
  assert.equal(text(await core.fs.read("/f", { offset: 10_000_000, length: 6 })), "middle");
});

Deno.test("handles on one file lay their changes over each other's, and one on a removed file lets go", async () => {
  await using house = new CoreHouse();
  const { fs } = await house.open();
  await fs.write("/f", utf8("0123456789"));
  const a = await fs.open("/f");
  const b = await fs.open("/f");
  await a.writeAt(0, utf8("A"));
  await b.writeAt(9, utf8("B"));
  await a.sync();
  await b.sync();
  assert.equal(text(await fs.read("/f")), "A12345678B");
  await b.truncate(3);
  await b.truncate(5);
  assert.deepEqual(await b.readAt(0, 99), Uint8Array.of(65, 49, 50, 0, 0));
  await b.sync();
  assert.deepEqual(await fs.read("/f"), Uint8Array.of(65, 49, 50, 0, 0));
  await fs.removeFile("/f");
  await a.writeAt(0, utf8("gone"));
  await a.close();
  await b.close();
  assert.equal(await fs.exists("/f"), false);
  await assert.rejects(a.readAt(0, 1), (e) => hasCode(e, "invalid_input"));
});

Deno.test("many appends at once never overlap and none is lost", async () => {
  await using house = new CoreHouse();
  const { fs } = await house.open();
  await Promise.all(Array.from({ length: 40 }, (_, i) => fs.append("/log", utf8(`line ${i}\n`))));
  const lines = text(await fs.read("/log")).trim().split("\n");
  assert.deepEqual(new Set(lines), new Set(Array.from({ length: 40 }, (_, i) => `line ${i}`)));
  assert.equal(lines.length, 40);
});

Deno.test("a content is read by its identity, and an unknown one is not found", async () => {
  await using house = new CoreHouse();
  const { fs } = await house.open();
  const bytes = patternBytes(5, 3_000_000);
  const { content } = await fs.write("/f", bytes);
  assert.ok(content);
  assert.deepEqual(await collect(fs.readContent(content, 1_000_000, 1_500_000)), bytes.slice(1_000_000, 2_500_000));
  await assert.rejects(collect(fs.readContent("0".repeat(64), 0, 1)), (e) => hasCode(e, "not_found"));
});

Deno.test("a full disk is no_space for the writer, harms nothing that was written, and ends when there is room again", async () => {
  await using house = new CoreHouse({ reserveBytes: 2 ** 60 });
  const core = await house.open();
  await rejects("no_space", core.fs.write("/f", patternBytes(1, 1000)));
  await core.fs.createDir("/the index still works");
  await core.close();
  const again = await house.open(house.folder, { reserveBytes: 0 });
  await again.fs.write("/f", patternBytes(1, 1000));
  assert.deepEqual((await again.tiers.scrub({ deep: true })).problems, []);
});

Deno.test("only one server uses a state folder; the second is told who has it", async () => {
  await using house = new CoreHouse();
  const core = await house.open();
  const error = await rejects("unavailable", house.open());
  assert.match(error.message, new RegExp(`process ${Deno.pid}`));
  await core.close();
  await (await house.open()).close();
});

Deno.test("a missing local folder is an error, not an empty tier, and staging leftovers are removed", async () => {
  await using house = new CoreHouse();
  const core = await house.open();
  await core.close();
  await Deno.writeTextFile(`${house.folder}/state/staging/left`, "x");
  await (await house.open()).close();
  assert.deepEqual(Array.from(Deno.readDirSync(`${house.folder}/state/staging`)), []);
  await Deno.rename(`${house.folder}/hot`, `${house.folder}/away`);
  await rejects("unavailable", house.open());
});

Deno.test("the tier mask is an attribute that can't be set", async () => {
  await using house = new CoreHouse({ cold: ["s3"] });
  const core = await house.open();
  await core.fs.write("/f", patternBytes(1, 1000));
  assert.equal(text(await core.fs.getXattr("/f", "user.anyfs.tiers")), "0x1");
  await core.tiers.flush({});
  assert.equal(text(await core.fs.getXattr("/f", "user.anyfs.tiers")), "0x5");
  await rejects("permission_denied", core.fs.setXattr("/f", "user.anyfs.tiers", utf8("0x7")));
});
