/** The client's filesystem against a real index: what it promises a program, a crash, a cut connection and another client. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { FakeServer } from "../../tests/support/fake_server.ts";
import { handClock } from "../../tests/support/hand_clock.ts";
import { caller, quiet, SimDevice } from "../../tests/support/sim_device.ts";
import { FsError } from "../fs/error.ts";
import { decodeName } from "../fs/names.ts";
import type { Stat } from "../fs/stat.ts";
import { systemClock } from "../platform/clock.ts";
import { ChunkPool } from "../store/chunk_pool.ts";
import { MountFs } from "./mount_fs.ts";

const flags = { killSuidgid: false, fromCache: false };
const O_RDWR = 2;
const text = (s: string) => new TextEncoder().encode(s);

const pool = new ChunkPool({ workers: 1 });

type Device = SimDevice;
const device = (server: FakeServer, name: string, folder?: string, online = true): Promise<Device> =>
  SimDevice.open({ server, name, pool, online, ...(folder === undefined ? {} : { folder }) });
const stop = (d: Device): Promise<void> => d.stop();
async function write(fs: MountFs, parent: number, name: string, data: Uint8Array): Promise<number> {
  const { stat, open } = await fs.create(parent, name, 0o644, O_RDWR, caller);
  await fs.write(stat.ino, open.fh, 0, data, flags);
  await fs.flush(stat.ino, open.fh, 0n);
  fs.release(stat.ino, open.fh, 0n, false);
  return stat.ino;
}
async function rewrite(fs: MountFs, ino: number, data: Uint8Array): Promise<void> {
  const { fh } = await fs.open(ino, O_RDWR, caller);
  await fs.write(ino, fh, 0, data, flags);
  await fs.flush(ino, fh, 0n);
  fs.release(ino, fh, 0n, false);
}
async function readAll(fs: MountFs, ino: number): Promise<Uint8Array> {
  const { size } = await fs.getattr(ino, undefined);
  const { fh } = await fs.open(ino, 0, caller);
  const into = new Uint8Array(size);
  let done = 0;
  while (done < size) {
    const part = into.subarray(done, Math.min(size, done + 100_000));
    const got = await fs.read(ino, fh, done, part);
    if (typeof got === "number") {
      if (got === 0) break;
      done += got;
    } else {
      if (got.length === 0) break;
      into.set(got, done);
      done += got.length;
    }
  }
  fs.release(ino, fh, 0n, false);
  return into;
}
async function find(fs: MountFs, name: string): Promise<number> {
  const stat = await fs.lookup(1, name, caller);
  assert.ok(stat, `${name} is there`);
  return stat.ino;
}
function random(size: number, seed: number): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(size);
  let x = seed * 2654435761 >>> 0 || 1;
  for (let i = 0; i < size; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    out[i] = x;
  }
  return out;
}

Deno.test({ name: "what one device closes, another opens", sanitizeResources: false, sanitizeOps: false }, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  const b = await device(server, "b");
  assert.equal(await b.fs.lookup(1, "hello", caller), null);
  const ino = await write(a.fs, 1, "hello", text("world"));
  await b.link.told();
  assert.equal(await find(b.fs, "hello"), ino);
  assert.deepEqual(await readAll(b.fs, ino), text("world"));
  const big = random(3_000_000, 7);
  const large = await write(a.fs, 1, "large", big);
  assert.ok(await a.fs.drain(5000));
  await b.link.told();
  assert.deepEqual(await readAll(b.fs, await find(b.fs, "large")), big);
  assert.deepEqual(await readAll(a.fs, large), big);
  await stop(a);
  await stop(b);
});

Deno.test({
  name: "times set right after a write do not hide the content",
  sanitizeResources: false,
  sanitizeOps: false,
}, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  const { stat, open } = await a.fs.create(1, "f", 0o644, O_RDWR, caller);
  await a.fs.write(stat.ino, open.fh, 0, text("abc"), flags);
  await a.fs.setattr(stat.ino, { mtime: { sec: 1000, nsec: 5 } }, open.fh, caller);
  await a.fs.flush(stat.ino, open.fh, 0n);
  a.fs.release(stat.ino, open.fh, 0n, false);
  assert.ok(await a.fs.drain(5000));
  assert.deepEqual(await readAll(a.fs, stat.ino), text("abc"));
  const there = await server.index.stat(stat.ino);
  assert.equal(there?.mtimeSec, 1000);
  assert.deepEqual(await server.content(there?.content ?? null), text("abc"));
  await stop(a);
});

Deno.test({
  name: "attributes set while bytes are unflushed hold after them, here, on the server and after a crash",
  sanitizeResources: false,
  sanitizeOps: false,
}, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  const { stat, open } = await a.fs.create(1, "f", 0o644, O_RDWR, caller);
  await a.fs.drain(5000);
  a.link.disconnect();
  await a.fs.write(stat.ino, open.fh, 0, text("abc"), flags);
  await a.fs.setattr(stat.ino, { mtime: { sec: 1000, nsec: 5 }, atime: { sec: 900, nsec: 1 } }, open.fh, caller);
  await a.fs.setattr(stat.ino, { mode: 0o750 }, open.fh, caller);
  await a.fs.setattr(stat.ino, { uid: 7, gid: 8 }, open.fh, caller);
  const wanted = { mode: 0o100750, uid: 7, gid: 8, mtimeSec: 1000, mtimeNsec: 5, atimeSec: 900, size: 3 };
  const has = (got: Stat | null) => {
    for (const [key, value] of Object.entries(wanted)) assert.equal(got?.[key as keyof Stat], value, key);
  };
  has(await a.fs.getattr(stat.ino, open.fh));
  await a.fs.flush(stat.ino, open.fh, 0n);
  const copy = Deno.makeTempDirSync();
  await new Deno.Command("cp", { args: ["-a", `${a.folder}/.`, copy] }).output();
  await stop(a);
  const b = await device(server, "a", copy);
  has(await b.fs.getattr(stat.ino, undefined));
  assert.ok(await b.fs.drain(5000));
  has(await server.index.stat(stat.ino));
  has(await b.fs.getattr(stat.ino, undefined));
  assert.deepEqual(await readAll(b.fs, stat.ino), text("abc"));
  await stop(b);
});

Deno.test({
  name: "bug 12: offline, what is unknown is an error and never an empty folder",
  sanitizeResources: false,
  sanitizeOps: false,
}, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  const b = await device(server, "b");
  const { ino: dir } = await a.fs.mkdir(1, "dir", 0o755, caller);
  await write(a.fs, dir, "file", text("a few bytes"));
  await a.fs.drain(5000);
  await b.link.told();
  assert.equal(await find(b.fs, "dir"), dir);
  b.link.disconnect();
  await assert.rejects(
    async () => await b.fs.readdir(dir, null, 100),
    (e) => e instanceof FsError && e.code === "unavailable",
  );
  await assert.rejects(
    async () => await b.fs.readnames(dir, null, 100),
    (e) => e instanceof FsError && e.code === "unavailable",
  );
  await assert.rejects(
    async () => await b.fs.lookup(dir, "unknown", caller),
    (e) => e instanceof FsError && e.code === "unavailable",
  );
  await stop(a);
  await stop(b);
});

Deno.test({
  name: "two devices that change one file apart keep both versions",
  sanitizeResources: false,
  sanitizeOps: false,
}, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  const b = await device(server, "b");
  const ino = await write(a.fs, 1, "note.txt", text("base"));
  await b.link.told();
  assert.deepEqual(await readAll(b.fs, await find(b.fs, "note.txt")), text("base"));
  b.link.disconnect();
  for (const [d, words] of [[a, "from a"], [b, "from b, longer"]] as const) {
    const { fh } = await d.fs.open(ino, O_RDWR, caller);
    await d.fs.write(ino, fh, 0, text(words), flags);
    await d.fs.flush(ino, fh, 0n);
    d.fs.release(ino, fh, 0n, false);
  }
  assert.ok(await a.fs.drain(5000));
  await b.link.connect();
  assert.ok(await b.fs.drain(5000));
  await a.link.told();
  for (const d of [a, b]) {
    const entries = await d.fs.readdir(1, null, 100);
    assert.equal(entries.length, 2, entries.map((e) => e.name).join());
    const names = entries.map((e) => e.name).sort();
    assert.match(names[0] ?? "", /^note \(conflict b \d{4}-\d\d-\d\d \d\d\.\d\d\)\.txt$/);
    const contents = await Promise.all(
      entries.map(async (e) => new TextDecoder().decode(await readAll(d.fs, e.stat.ino))),
    );
    assert.deepEqual(contents.sort(), ["from a", "from b, longer"]);
  }
  await stop(a);
  await stop(b);
});

Deno.test({
  name: "two devices that create one name apart keep both files",
  sanitizeResources: false,
  sanitizeOps: false,
}, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  const b = await device(server, "b");
  await b.fs.readdir(1, null, 10);
  b.link.disconnect();
  await write(a.fs, 1, "x", text("A"));
  await a.fs.drain(5000);
  await write(b.fs, 1, "x", text("B"));
  const sub = await b.fs.mkdir(1, "later", 0o755, caller);
  await write(b.fs, sub.ino, "inner", text("I"));
  await b.link.connect();
  assert.ok(await b.fs.drain(5000));
  await a.link.told();
  const names = (await a.fs.readdir(1, null, 100)).map((e) => e.name).sort();
  assert.equal(names.length, 3, names.join());
  assert.deepEqual(await readAll(a.fs, await find(a.fs, "x")), text("A"));
  const other = names.find((n) => n.startsWith("x (conflict"));
  assert.ok(other);
  assert.deepEqual(await readAll(a.fs, await find(a.fs, other)), text("B"));
  const inner = await a.fs.lookup(await find(a.fs, "later"), "inner", caller);
  assert.ok(inner);
  assert.deepEqual(await readAll(a.fs, inner.ino), text("I"));
  await stop(a);
  await stop(b);
});

Deno.test({
  name: "bug 9: conflict copies of one file never share a name, however quickly they follow each other",
  sanitizeResources: false,
  sanitizeOps: false,
}, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  const b = await device(server, "b");
  const ino = await write(a.fs, 1, "n.txt", text("base"));
  await b.link.told();
  const edit = async (d: Device, words: string) => {
    const { fh } = await d.fs.open(ino, O_RDWR, caller);
    await d.fs.write(ino, fh, 0, text(words), flags);
    await d.fs.flush(ino, fh, 0n);
    d.fs.release(ino, fh, 0n, false);
  };
  const rounds = 3;
  for (let round = 0; round < rounds; round++) {
    assert.ok((await readAll(b.fs, ino)).length > 0);
    b.link.disconnect();
    await edit(a, `from a, ${round}`);
    assert.ok(await a.fs.drain(5000));
    await edit(b, `from b, round ${round}`);
    await b.link.connect();
    assert.ok(await b.fs.drain(5000));
    await b.link.told();
  }
  await a.link.told();
  const entries = await a.fs.readdir(1, null, 100);
  assert.equal(entries.length, 1 + rounds, entries.map((e) => e.name).join(" | "));
  const contents = await Promise.all(
    entries.map(async (e) => new TextDecoder().decode(await readAll(a.fs, e.stat.ino))),
  );
  for (let round = 0; round < rounds; round++) assert.ok(contents.includes(`from b, round ${round}`));
  await stop(a);
  await stop(b);
});

type Change = { readonly op: "create" | "write" | "unlink" | "rename" | "mkdir" | "read"; a: number; b: number };
const change: fc.Arbitrary<Change> = fc.record({
  op: fc.constantFrom("create", "write", "unlink", "rename", "mkdir", "read"),
  a: fc.nat(5),
  b: fc.nat(5),
});

Deno.test({
  name: "a listing shows what is not delivered yet, with the attributes that a stat of each name tells",
  sanitizeResources: false,
  sanitizeOps: false,
}, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 12 }), fc.boolean(), async (changes, online) => {
      await a.link.connect();
      const top = (await a.fs.mkdir(1, crypto.randomUUID(), 0o755, caller)).ino;
      if (!online) a.link.disconnect();
      // A name of bytes that are no UTF-8 among them, and one with a line's end.
      const names = ["a", "b\n", "\udcff", "é", "c,", '"'];
      const model = new Set<string>();
      for (const { op, a: i, b: j } of changes) {
        const [name = "", other = ""] = [names[i], names[j]];
        const ino = model.has(name) ? (await a.fs.lookup(top, name, caller))?.ino ?? 0 : 0;
        const folder = ino !== 0 && ((await a.fs.getattr(ino, undefined)).mode & 0o170000) === 0o040000;
        if (op === "create" && ino === 0) await write(a.fs, top, name, text(name));
        else if (op === "mkdir" && ino === 0) await a.fs.mkdir(top, name, 0o700, caller);
        else if (op === "write" && ino !== 0 && !folder) await replace(a.fs, ino, text(`${name}${j}`));
        else if (op === "read" && ino !== 0 && !folder) await readAll(a.fs, ino);
        else if (op === "unlink" && ino !== 0 && !folder) await a.fs.unlink(top, name, caller);
        else if (op === "rename" && ino !== 0 && !model.has(other)) await a.fs.rename(top, name, top, other, 0, caller);
        else continue;
        if (op === "unlink" || op === "rename") model.delete(name);
        if (op !== "unlink") model.add(op === "rename" ? other : name);
      }
      const listed = await a.fs.readdir(top, null, 100);
      assert.deepEqual(new Set(listed.map(({ name }) => name)), model);
      for (const { name, stat } of listed) {
        const found = await a.fs.lookup(top, name, caller);
        for (const [key, value] of Object.entries(stat)) assert.equal(value, found?.[key as keyof Stat] ?? 0, key);
      }
      assert.deepEqual(
        (await a.fs.readnames(top, null, 100)).map(({ name, stat }) => [name, stat.ino, stat.mode]),
        listed.map(({ name, stat }) => [name, stat.ino, stat.mode]),
      );
    }),
    { numRuns: 30 },
  );
  await stop(a);
});

/** Opens, replaces all and closes. */
async function replace(fs: MountFs, ino: number, data: Uint8Array): Promise<void> {
  const { fh } = await fs.open(ino, O_RDWR, caller);
  await fs.setattr(ino, { size: 0 }, fh, caller);
  await fs.write(ino, fh, 0, data, flags);
  await fs.flush(ino, fh, 0n);
  fs.release(ino, fh, 0n, false);
}
/** Nothing is left to be delivered, unless the connection goes meanwhile. */
async function delivered(d: Device): Promise<void> {
  const alive = setInterval(() => {}, 1000);
  try {
    for (let tries = 0; d.link.connected && !await d.fs.drain(100); tries++) {
      assert.ok(tries < 100, "everything is delivered");
    }
  } finally {
    clearInterval(alive);
  }
}
/** The next change reaches the server, but its answer is lost with the connection. */
function loseAnswer(d: Device): void {
  d.link.after = (method) => {
    if (method !== "apply") return;
    d.link.after = () => {};
    d.link.disconnect();
  };
}
const unchecked = { sanitizeResources: false, sanitizeOps: false };

Deno.test({
  name: "bytes that were never flushed are gone after a crash, with the size and time they gave the file",
  ...unchecked,
}, async () => {
  const server = new FakeServer();
  let d = await device(server, "d");
  const ino = await write(d.fs, 1, "f", text("as it was"));
  assert.ok(await d.fs.drain(5000));
  for (const size of [3, 500_000]) {
    const { fh } = await d.fs.open(ino, O_RDWR, caller);
    await d.fs.write(ino, fh, 0, random(size, 5), flags);
    await d.fs.setattr(ino, { size }, fh, caller);
    // Another change makes sure that the database has seen it all.
    await d.fs.mkdir(1, `dir ${size}`, 0o755, caller);
    await new Promise((resolve) => setTimeout(resolve, 250));
    d = await d.crash(false);
    assert.equal((await d.fs.getattr(ino, undefined)).size, 9);
    assert.deepEqual(await readAll(d.fs, ino), text("as it was"));
    await d.link.connect();
    assert.deepEqual(await readAll(d.fs, ino), text("as it was"));
    assert.ok(await d.fs.drain(5000));
  }
  await stop(d);
});

Deno.test({
  name:
    "after a crash without the server, a file whose first change was delivered and whose second was not is readable",
  ...unchecked,
}, async () => {
  const server = new FakeServer();
  let d = await device(server, "d");
  const { stat: { ino }, open: { fh } } = await d.fs.create(1, "f", 0o644, O_RDWR, caller);
  await d.fs.write(ino, fh, 0, text("one"), flags);
  const gate = Promise.withResolvers<void>();
  await d.fs.fsync(ino, fh, false);
  await d.fs.write(ino, fh, 3, text("two"), flags);
  await d.fs.fsync(ino, fh, false);
  // The first may be answered, the second is held up.
  let applies = 0;
  d.link.before = (method) => method === "apply" && ++applies > 2 ? gate.promise : Promise.resolve();
  await d.fs.write(ino, fh, 6, text("three"), flags);
  await d.fs.fsync(ino, fh, false);
  await new Promise((resolve) => setTimeout(resolve, 250));
  const copy = Deno.makeTempDirSync();
  await new Deno.Command("cp", { args: ["-a", `${d.folder}/.`, copy] }).output();
  d.link.disconnect();
  gate.resolve();
  await stop(d);
  d = await device(server, "d", copy, false);
  assert.deepEqual(await readAll(d.fs, ino), text("onetwothree"));
  await d.link.connect();
  assert.ok(await d.fs.drain(5000));
  assert.deepEqual(await server.content((await server.index.stat(ino))?.content ?? null), text("onetwothree"));
  await stop(d);
});

Deno.test({
  name: "what others change while ours is on its way is not missed, neither content nor names",
  ...unchecked,
}, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  const b = await device(server, "b");
  const ino = await write(a.fs, 1, "f", text("0"));
  await b.link.told();
  assert.equal(await find(b.fs, "f"), ino);
  await a.fs.readdir(1, null, 100);
  for (let i = 1; i <= 10; i++) {
    const [first, second] = i % 2 === 0 ? [a, b] : [b, a];
    await replace(first.fs, ino, text(`first ${i}`));
    await second.link.told();
    await replace(second.fs, ino, text(`second ${i}`));
    await first.link.told();
    assert.deepEqual(await readAll(first.fs, ino), text(`second ${i}`));
    await first.fs.rename(1, i === 1 ? "f" : `name ${i - 1}`, 1, `name ${i}`, 0, caller);
    await quiet([a, b]);
    for (const d of [a, b]) {
      assert.deepEqual((await d.fs.readdir(1, null, 100)).map((e) => e.name), [`name ${i}`]);
      assert.deepEqual(await readAll(d.fs, ino), text(`second ${i}`));
    }
  }
  await stop(a);
  await stop(b);
});

Deno.test({
  name: "when everything known is void, what is ours stays visible: new bytes, renames, modes",
  ...unchecked,
}, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  const ino = await write(a.fs, 1, "old", text("old bytes"));
  const other = await write(a.fs, 1, "other", text("other"));
  assert.ok(await a.fs.drain(5000));
  await a.fs.readdir(1, null, 100);
  a.link.disconnect();
  await replace(a.fs, ino, text("new bytes, longer"));
  await a.fs.rename(1, "old", 1, "new", 0, caller);
  await a.fs.setattr(other, { mode: 0o600 }, undefined, caller);
  const sub = await a.fs.mkdir(1, "sub", 0o755, caller);
  const gate = Promise.withResolvers<void>();
  a.link.before = (method) => method === "apply" ? gate.promise : Promise.resolve();
  a.link.resumeFrom = () => ({ after: -1, epoch: "another" });
  await a.link.connect();
  const check = async () => {
    const entries = await a.fs.readdir(1, null, 100);
    assert.deepEqual(entries.map((e) => e.name).sort(), ["new", "other", "sub"]);
    assert.equal(entries.find((e) => e.name === "new")?.stat.size, 17);
    assert.equal((entries.find((e) => e.name === "other")?.stat.mode ?? 0) & 0o777, 0o600);
    assert.deepEqual(await readAll(a.fs, ino), text("new bytes, longer"));
    assert.deepEqual(await a.fs.readdir(sub.ino, null, 10), []);
  };
  await check();
  gate.resolve();
  await quiet([a]);
  await check();
  await stop(a);
});

Deno.test({ name: "a file that one changes and another removes lives on, changed", ...unchecked }, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  const b = await device(server, "b");
  const ino = await write(a.fs, 1, "f", text("base"));
  await quiet([a, b]);
  assert.equal(await find(b.fs, "f"), ino);
  const { fh } = await b.fs.open(ino, O_RDWR, caller);
  await b.fs.write(ino, fh, 0, text("changed"), flags);
  await a.fs.unlink(1, "f", caller);
  await quiet([a]);
  await b.link.told();
  await b.fs.flush(ino, fh, 0n);
  b.fs.release(ino, fh, 0n, false);
  await quiet([a, b]);
  for (const d of [a, b]) {
    const entries = await d.fs.readdir(1, null, 100);
    assert.equal(entries.length, 1);
    assert.deepEqual(await readAll(d.fs, entries[0]?.stat.ino ?? 0), text("changed"));
  }
  await stop(a);
  await stop(b);
});

Deno.test(
  { name: "room asked for where there is some is a change that is delivered, also behind bytes", ...unchecked },
  async () => {
    const server = new FakeServer();
    const a = await device(server, "a");
    await a.fs.readdir(1, null, 10);
    a.link.disconnect();
    const ino = await write(a.fs, 1, "f", text("text"));
    const { fh } = await a.fs.open(ino, O_RDWR, caller);
    const before = await a.fs.getattr(ino, fh);
    await a.fs.fallocate(ino, fh, 1, 0, 4, caller);
    const after = await a.fs.getattr(ino, fh);
    const at = (stat: typeof after) => stat.mtimeSec * 1e9 + stat.mtimeNsec;
    assert.ok(at(after) > at(before));
    a.fs.release(ino, fh, 0n, false);
    await a.link.connect();
    await quiet([a]);
    assert.equal(at(await a.fs.getattr(ino, undefined)), at(after));
    assert.equal(at(await server.index.stat(ino) ?? before), at(after));
    await stop(a);
  },
);

Deno.test({ name: "news of a name tells the kernel of the node that comes with it", ...unchecked }, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  const b = await device(server, "b");
  // Not the root, whose listing is here: what it does not have isn't asked for.
  const { ino: dir } = await a.fs.mkdir(1, "dir", 0o755, caller);
  const ino = await write(a.fs, dir, "f", text("before"));
  assert.ok(await a.fs.drain(5000));
  await b.link.told();
  assert.equal(await find(b.fs, "dir"), dir);
  const found = async (name: string) => (await b.fs.lookup(dir, name, caller))?.ino;
  assert.equal(await found("f"), ino);
  assert.deepEqual(await readAll(b.fs, ino), text("before"));
  const heard: string[] = [];
  b.fs.attach({
    invalidateInode: (node, data) => void heard.push(`node ${node === ino} ${data}`),
    invalidateEntry: () => {},
    invalidateAll: () => {},
    holds: () => true,
  });
  const news = Promise.withResolvers<void>();
  b.link.newsAfter = news.promise;
  const { fh } = await a.fs.open(ino, O_RDWR, caller);
  await a.fs.write(ino, fh, 0, text("afterwards"), flags);
  await a.fs.flush(ino, fh, 0n);
  a.fs.release(ino, fh, 0n, false);
  await a.fs.link(ino, dir, "g", caller);
  assert.ok(await a.fs.drain(5000));
  // The answer overtakes the news, which will say nothing that is not known by then.
  assert.equal(await found("g"), ino);
  assert.deepEqual(heard.filter((one) => one.startsWith("node true")), ["node true true"]);
  heard.length = 0;
  await a.fs.setattr(ino, { mode: 0o600 }, undefined, caller);
  await a.fs.link(ino, dir, "h", caller);
  assert.ok(await a.fs.drain(5000));
  assert.equal(await found("h"), ino);
  assert.deepEqual(heard.filter((one) => one.startsWith("node true")), ["node true false"]);
  news.resolve();
  await b.link.told();
  await stop(a);
  await stop(b);
});

Deno.test({
  name: "the root is listed as soon as there is a connection, so that new names can be made without one",
  ...unchecked,
}, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  await write(a.fs, 1, "theirs", text("theirs"));
  assert.ok(await a.fs.drain(5000));
  // Its clock stands: nothing that comes a while later counts.
  const b = await SimDevice.open({ server, name: "b", pool, clock: handClock() });
  for (let i = 0; i < 10; i++) await systemClock.sleep(0);
  b.link.disconnect();
  assert.deepEqual(await b.names(), ["theirs"]);
  await b.fs.mkdir(1, "ours", 0o755, caller);
  assert.deepEqual(await b.names(), ["ours", "theirs"]);
  await stop(a);
  await stop(b);
});

Deno.test({
  name: "a client is connected when it has the root's listing; a second page or a late answer is not waited for",
  ...unchecked,
}, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  await a.fs.mkdir(1, "theirs", 0o755, caller);
  assert.ok(await a.fs.drain(5000));
  /** A new client, whose questions for pages of the root wait for what is given. */
  const opened = async (name: string, page: (after: string | null) => Promise<void>) => {
    const clock = handClock();
    const b = await SimDevice.open({ server, name, pool, clock, online: false });
    b.link.before = (method, params) =>
      method === "readDir" ? page((params as { after: string | null }).after) : Promise.resolve();
    let connected = false;
    void b.fs.connectedOnce.then(() => connected = true);
    await b.link.connect();
    for (let i = 0; i < 10; i++) await systemClock.sleep(0);
    return { b, clock, connected: () => connected };
  };
  const never = new Promise<void>(() => {});
  {
    const answer = Promise.withResolvers<void>();
    const { b, connected } = await opened("waits", () => answer.promise);
    assert.ok(!connected());
    answer.resolve();
    await b.fs.connectedOnce;
    b.link.disconnect();
    assert.deepEqual(await b.names(), ["theirs"]);
    await stop(b);
  }
  {
    const { b, clock, connected } = await opened("late", () => never);
    assert.ok(!connected());
    await clock.move(1000);
    assert.ok(connected());
    await stop(b);
  }
  for (let i = 0; i < 1000; i++) await a.fs.mkdir(1, `${i}`, 0o755, caller);
  assert.ok(await a.fs.drain(20_000));
  {
    const { b, connected } = await opened("two pages", (after) => after === null ? Promise.resolve() : never);
    assert.ok(connected());
    await stop(b);
  }
  await stop(a);
});

Deno.test({
  name:
    "values of attributes that wait for delivery are bounded: full without a connection, and with one they go first",
  ...unchecked,
}, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  const value = new Uint8Array(65_536);
  const files: number[] = [];
  for (let i = 0; i < 60; i++) files.push((await a.fs.mkdir(1, `${i}`, 0o755, caller)).ino);
  const set = async (from: number, to: number) => {
    for (let i = from; i < to; i++) await a.fs.setxattr(files[i % 60] ?? 0, `user.${Math.floor(i / 60)}`, value, 0);
  };
  await set(0, 1100);
  assert.ok(await a.fs.drain(30_000));
  a.link.disconnect();
  await set(0, 1024);
  await assert.rejects(set(1024, 1025), (error: FsError) => error.code === "no_space" && error.errno === 28);
  await a.fs.mkdir(1, "other changes go on", 0o755, caller);
  await a.link.connect();
  await set(1024, 1025);
  assert.ok(await a.fs.drain(30_000));
  a.link.disconnect();
  await set(0, 1024);
  await stop(a);
});

Deno.test({ name: "a folder whose listing was cut off is listed with the next connection", ...unchecked }, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  const dir = (await a.fs.mkdir(1, "d", 0o755, caller)).ino;
  await write(a.fs, dir, "theirs", text("theirs"));
  assert.ok(await a.fs.drain(5000));
  const b = await device(server, "b");
  const found = await find(b.fs, "d");
  let asked = false;
  b.link.before = (method, params) => {
    if (method !== "readDir" || (params as { parent: number }).parent !== found) return Promise.resolve();
    b.link.disconnect();
    asked = true;
    return Promise.resolve();
  };
  await write(b.fs, found, "ours", text("ours"));
  while (!asked) await systemClock.sleep(10);
  b.link.before = () => Promise.resolve();
  await b.link.connect();
  await quiet([a, b]);
  b.link.disconnect();
  assert.deepEqual(await b.names(found), ["ours", "theirs"]);
  await stop(a);
  await stop(b);
});

/** Makes an empty file in the folder, or writes to it; resolves when the other device has heard of it. */
async function meanwhile(a: Device, b: Device, change: () => Promise<void>): Promise<void> {
  await change();
  assert.ok(await a.fs.drain(5000));
  await b.link.told();
}

Deno.test({
  name: "a file that is written while its name is asked for is not what it was before: listed, and made meanwhile",
  ...unchecked,
}, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  const { ino: dir } = await a.fs.mkdir(1, "dir", 0o755, caller);
  assert.ok(await a.fs.drain(5000));
  const b = await device(server, "b");
  assert.equal(await find(b.fs, "dir"), dir);
  let ino = 0;
  b.link.before = async (method) => {
    if (method !== "readDir" || ino !== 0) return;
    await meanwhile(a, b, async () => {
      const { stat, open } = await a.fs.create(dir, "f", 0o644, O_RDWR, caller);
      ino = stat.ino;
      a.fs.release(ino, open.fh, 0n, false);
    });
  };
  b.link.after = async (method) => {
    if (method !== "lookup") return;
    b.link.after = () => {};
    await meanwhile(a, b, () => rewrite(a.fs, ino, text("text")));
  };
  await b.names(dir);
  await quiet([a, b]);
  assert.deepEqual(await b.names(dir), ["f"]);
  assert.deepEqual(await readAll(b.fs, ino), text("text"));
  await stop(a);
  await stop(b);
});

Deno.test({
  name: "a file that is written while its name is asked for is not what it was before: looked up",
  ...unchecked,
}, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  const { ino: dir } = await a.fs.mkdir(1, "dir", 0o755, caller);
  const ino = await write(a.fs, dir, "f", text("before"));
  assert.ok(await a.fs.drain(5000));
  const b = await device(server, "b");
  assert.equal(await find(b.fs, "dir"), dir);
  b.link.after = async (method) => {
    if (method !== "lookup") return;
    b.link.after = () => {};
    await meanwhile(a, b, () => rewrite(a.fs, ino, text("afterwards")));
  };
  assert.equal((await b.fs.lookup(dir, "f", caller))?.ino, ino);
  await quiet([a, b]);
  assert.deepEqual(await readAll(b.fs, ino), text("afterwards"));
  await stop(a);
  await stop(b);
});

/** A file that device a gave an extended attribute, of which b knows nothing but that it has one. */
async function withAttribute(name: string, value: string): Promise<{ a: Device; b: Device; ino: number }> {
  const server = new FakeServer();
  const a = await device(server, "a");
  const ino = await write(a.fs, 1, "f", text("text"));
  await a.fs.setxattr(ino, name, text(value), 0);
  assert.ok(await a.fs.drain(5000));
  const b = await device(server, "b");
  assert.equal(await find(b.fs, "f"), ino);
  return { a, b, ino };
}

Deno.test({ name: "an extended attribute whose name is not UTF-8 is the same elsewhere", ...unchecked }, async () => {
  const name = decodeName(Uint8Array.of(...text("user."), 0xff, 0xfe));
  const { a, b, ino } = await withAttribute(name, "value");
  assert.deepEqual(await b.fs.listxattr(ino, caller), [name]);
  assert.deepEqual(await b.fs.getxattr(ino, name), text("value"));
  await b.fs.removexattr(ino, name);
  await quiet([a, b]);
  for (const d of [a, b]) assert.deepEqual(await d.fs.listxattr(ino, caller), []);
  await stop(a);
  await stop(b);
});

Deno.test({ name: "what the extended attributes of a file take is bounded", ...unchecked }, async () => {
  const a = await device(new FakeServer(), "a");
  const { stat: { ino: unnamed } } = await a.fs.tmpfile(1, 0o644, O_RDWR, caller);
  const named = await write(a.fs, 1, "f", text("text"));
  for (const ino of [named, unnamed]) {
    const set = (name: string, length: number) => a.fs.setxattr(ino, name, new Uint8Array(length), 0);
    const full = (name: string, length: number) => assert.rejects(set(name, length), { code: "no_space" });
    for (let i = 0; i < 32; i++) await set(`user.long ${i}`, 65_536);
    await full("user.one more byte", 1);
    await set("user.long 0", 65_535);
    await set("user.one more byte", 1);
    for (let i = 0; i < 32; i++) await a.fs.removexattr(ino, `user.long ${i}`);
    for (let i = 1; i < 2000; i++) await set(`user.${i}`, 1);
    await full("user.2000", 1);
    await set("user.1999", 100);
    assert.equal((await a.fs.listxattr(ino, caller)).length, 2000);
    for (let i = 1; i < 2000; i++) await a.fs.removexattr(ino, `user.${i}`);
    const long = (i: number) => `user.${String(i).padStart(250, "x")}`;
    for (let i = 0; i < 255; i++) await set(long(i), 1);
    await full(long(255), 1);
    await set(long(254), 2);
  }
  await stop(a);
});

Deno.test(
  { name: "a file made without a name brings as many extended attributes as it can have", ...unchecked },
  async () => {
    const server = new FakeServer();
    const a = await device(server, "a");
    const { stat: { ino } } = await a.fs.tmpfile(1, 0o644, O_RDWR, caller);
    for (let i = 0; i < 2000; i++) await a.fs.setxattr(ino, `user.${i}`, new Uint8Array(1000), 0);
    await a.fs.link(ino, 1, "named", caller);
    assert.ok(await a.fs.drain(10_000));
    const b = await device(server, "b");
    assert.equal((await b.fs.listxattr(await find(b.fs, "named"), caller)).length, 2000);
    await stop(a);
    await stop(b);
  },
);

Deno.test(
  { name: "extended attributes that others set while they are asked for are as they are", ...unchecked },
  async () => {
    const { a, b, ino } = await withAttribute("user.one", "before");
    b.link.after = async (method) => {
      if (method !== "getXattr") return;
      b.link.after = () => {};
      await meanwhile(a, b, () => a.fs.setxattr(ino, "user.one", text("afterwards"), 0));
    };
    await b.fs.getxattr(ino, "user.one");
    await quiet([a, b]);
    assert.deepEqual(await b.fs.getxattr(ino, "user.one"), text("afterwards"));
    await stop(a);
    await stop(b);
  },
);

Deno.test(
  { name: "extended attributes of a file that others change all the time are told", ...unchecked },
  async () => {
    const { a, b, ino } = await withAttribute("user.one", "0");
    let changes = 0;
    b.link.after = async (method) => {
      if (method !== "getXattr") return;
      assert.ok(changes < 20, "it ends");
      changes++;
      await meanwhile(a, b, () => a.fs.setxattr(ino, "user.one", text(String(changes)), 0));
    };
    const told = new TextDecoder().decode(await b.fs.getxattr(ino, "user.one"));
    assert.equal(told, String(changes - 1), "what the last question was answered with");
    b.link.after = () => {};
    // The next change says that it was out of date.
    await meanwhile(a, b, () => a.fs.setxattr(ino, "user.one", text("last"), 0));
    assert.deepEqual(await b.fs.getxattr(ino, "user.one"), text("last"));
    await stop(a);
    await stop(b);
  },
);

Deno.test({ name: "an extended attribute that is set here while they are asked for stays", ...unchecked }, async () => {
  const { a, b, ino } = await withAttribute("user.theirs", "theirs");
  const set = Promise.withResolvers<void>();
  b.link.after = async (method) => {
    if (method !== "listXattr") return;
    b.link.after = () => {};
    await set.promise;
  };
  const listing = b.fs.listxattr(ino, caller);
  await b.fs.setxattr(ino, "user.ours", text("ours"), 0);
  set.resolve();
  await listing;
  assert.deepEqual((await b.fs.listxattr(ino, caller)).sort(), ["user.ours", "user.theirs"]);
  await quiet([a, b]);
  assert.deepEqual((await b.fs.listxattr(ino, caller)).sort(), ["user.ours", "user.theirs"]);
  await stop(a);
  await stop(b);
});

for (const fate of ["removed", "replaced", "written"] as const) {
  Deno.test({
    name: `what was changed here and ${fate} elsewhere keeps its extended attributes, also those set afterwards`,
    ...unchecked,
  }, async () => {
    const server = new FakeServer();
    const a = await device(server, "a");
    const b = await device(server, "b");
    const ino = await write(b.fs, 1, "f", text("base"));
    await b.fs.setxattr(ino, "user.before", text("1"), 0);
    await quiet([a, b]);
    assert.equal(await find(a.fs, "f"), ino);
    b.link.disconnect();
    await rewrite(b.fs, ino, text("ours"));
    await b.fs.setxattr(ino, "user.after", text("2"), 0);
    if (fate === "written") await rewrite(a.fs, ino, text("theirs"));
    else await a.fs.unlink(1, "f", caller);
    if (fate === "replaced") await write(a.fs, 1, "f", text("theirs"));
    assert.ok(await a.fs.drain(5000));
    await b.link.connect();
    await quiet([a, b]);
    for (const d of [a, b]) {
      const files = new Map<string, string[]>();
      for (const { stat } of await d.fs.readdir(1, null, 100)) {
        const content = new TextDecoder().decode(await readAll(d.fs, stat.ino));
        files.set(content, (await d.fs.listxattr(stat.ino, caller)).sort());
      }
      assert.deepEqual(files.get("ours"), ["user.after", "user.before"], d.link.id);
      assert.equal(files.size, fate === "removed" ? 1 : 2);
    }
    await stop(a);
    await stop(b);
  });
}

for (const fate of ["moved", "written", "given an attribute"] as const) {
  Deno.test({
    name: `what was removed here and ${fate} elsewhere has its extended attributes when it is back`,
    ...unchecked,
  }, async () => {
    const { a, b, ino } = await withAttribute("user.one", "1");
    assert.deepEqual(await b.fs.getxattr(ino, "user.one"), text("1"));
    await b.names();
    b.link.disconnect();
    await b.fs.unlink(1, "f", caller);
    if (fate === "moved") await a.fs.rename(1, "f", 1, "g", 0, caller);
    else if (fate === "written") await rewrite(a.fs, ino, text("more"));
    else await a.fs.setxattr(ino, "user.two", text("2"), 0);
    assert.ok(await a.fs.drain(5000));
    await b.link.connect();
    await quiet([a, b]);
    const seen = async (d: Device) => {
      const out: string[] = [];
      for (const name of (await d.names()).sort()) {
        out.push(name, ...(await d.fs.listxattr(await find(d.fs, name), caller)).sort());
      }
      return out;
    };
    assert.deepEqual(await seen(b), await seen(a));
    if (fate === "moved") assert.deepEqual(await seen(b), ["g", "user.one"]);
    await stop(a);
    await stop(b);
  });
}

/** Gives the file the extended attributes `user.FROM` to `user.TO - 1`. */
async function setMany(d: Device, ino: number, from: number, to: number): Promise<void> {
  for (let i = from; i < to; i++) await d.fs.setxattr(ino, `user.${i}`, text("1"), 0);
}
Deno.test({ name: "files that come back together have all their extended attributes", ...unchecked }, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  const b = await device(server, "b");
  const files: number[] = [];
  for (const name of ["f", "g", "h"]) {
    const ino = await write(b.fs, 1, name, text("base"));
    await setMany(b, ino, 0, 2000);
    files.push(ino);
  }
  await quiet([a, b]);
  b.link.disconnect();
  for (const ino of files) await rewrite(b.fs, ino, text("ours"));
  for (const name of ["f", "g", "h"]) await a.fs.unlink(1, name, caller);
  assert.ok(await a.fs.drain(5000));
  await b.link.connect();
  await quiet([a, b]);
  for (const ino of files) {
    for (const d of [a, b]) {
      assert.deepEqual(await readAll(d.fs, ino), text("ours"));
      assert.equal((await d.fs.listxattr(ino, caller)).length, 2000, d.link.id);
    }
  }
  await stop(a);
  await stop(b);
});
Deno.test(
  { name: "more extended attributes than two devices can have set do not stop a file that comes back", ...unchecked },
  async () => {
    const server = new FakeServer();
    const a = await device(server, "a");
    const b = await device(server, "b");
    const c = await device(server, "c");
    const ino = await write(b.fs, 1, "f", text("base"));
    await quiet([a, b, c]);
    for (const d of [a, b, c]) assert.deepEqual(await d.fs.listxattr(ino, caller), []);
    for (const d of [b, c]) d.link.disconnect();
    await setMany(a, ino, 0, 2000);
    await setMany(b, ino, 2000, 4000);
    await setMany(c, ino, 4000, 4200);
    assert.ok(await a.fs.drain(5000));
    for (const d of [b, c]) await d.link.connect();
    await quiet([a, b, c]);
    assert.equal((await b.fs.listxattr(ino, caller)).length, 4200);
    b.link.disconnect();
    await rewrite(b.fs, ino, text("ours"));
    await a.fs.unlink(1, "f", caller);
    assert.ok(await a.fs.drain(5000));
    await b.link.connect();
    await quiet([a, b, c]);
    assert.match(b.log.join("\n"), /200 of 4200 extended attributes are left out/);
    for (const d of [a, b, c]) {
      assert.deepEqual(await readAll(d.fs, ino), text("ours"));
      assert.equal((await d.fs.listxattr(ino, caller)).length, 4000, d.link.id);
    }
    for (const d of [a, b, c]) await stop(d);
  },
);

Deno.test({ name: "of two names of one file none is moved over the other", ...unchecked }, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  const ino = await write(a.fs, 1, "f", text("text"));
  await a.fs.link(ino, 1, "g", caller);
  await a.fs.readdir(1, null, 10);
  await quiet([a]);
  a.link.disconnect();
  await a.fs.rename(1, "f", 1, "g", 0, caller);
  assert.equal(a.fs.status().pending.records, 0);
  assert.deepEqual((await a.fs.readdir(1, null, 10)).map((entry) => entry.name), ["f", "g"]);
  await stop(a);
});

type Many =
  | { t: "write"; device: number; file: number; size: number }
  | { t: "cut" | "heal" | "crash" | "lose"; device: number }
  | { t: "quiet" };
const which = fc.integer({ min: 0, max: 2 });
const many: fc.Arbitrary<Many> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      t: fc.constant("write" as const),
      device: which,
      file: fc.integer({ min: 0, max: 1 }),
      size: fc.oneof(fc.nat(100), fc.nat(400_000)),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ t: fc.constantFrom("cut" as const, "heal" as const, "lose" as const), device: which }),
  },
  { weight: 1, arbitrary: fc.record({ t: fc.constant("crash" as const), device: which }) },
  { weight: 1, arbitrary: fc.constant({ t: "quiet" as const }) },
);

Deno.test({
  name:
    "whatever several devices write apart, through cuts and crashes, is afterwards in the file or in a copy beside it",
  ...unchecked,
}, async () => {
  const version = (bytes: Uint8Array): number => Number(new TextDecoder().decode(bytes.subarray(0, 8)));
  await fc.assert(
    fc.asyncProperty(fc.array(many, { maxLength: 25 }), async (steps) => {
      const server = new FakeServer();
      const devices: Device[] = [];
      for (const name of ["a", "b", "c"]) devices.push(await device(server, name));
      for (const d of devices) await d.fs.readdir(1, null, 100);
      const written = new Map<number, Uint8Array>();
      const replaced = new Set<number>();
      const perform = async (s: Many) => {
        if (s.t === "quiet") return await quiet(devices);
        const d = devices[s.device];
        if (d === undefined) return;
        if (s.t === "cut") return d.link.disconnect();
        if (s.t === "lose") return loseAnswer(d);
        if (s.t === "heal") return d.link.connected ? undefined : await d.link.connect();
        if (s.t === "crash") {
          devices[s.device] = await d.crash();
          return;
        }
        if (s.t !== "write") return;
        // Those who are connected know what they replace.
        await quiet(devices);
        const name = `file ${s.file}`;
        const stat = await d.fs.lookup(1, name, caller);
        const next = written.size + 1;
        const data = random(8 + s.size, next);
        data.set(text(String(next).padStart(8)));
        if (stat === null) await write(d.fs, 1, name, data);
        else {
          const before = version(await readAll(d.fs, stat.ino));
          await replace(d.fs, stat.ino, data);
          replaced.add(before);
        }
        written.set(next, data);
      };
      for (const s of steps) {
        try {
          await perform(s);
        } catch (error) {
          if (!(error instanceof FsError && error.code === "unavailable")) throw error;
        }
      }
      for (const d of devices) {
        d.link.after = () => {};
        if (!d.link.connected) await d.link.connect();
      }
      await quiet(devices);
      const listings: string[] = [];
      for (const d of devices) {
        const found = new Set<number>();
        const entries = await d.fs.readdir(1, null, 1000);
        for (const { stat } of entries) {
          const bytes = await readAll(d.fs, stat.ino);
          const expected = written.get(version(bytes));
          assert.ok(expected !== undefined && same(bytes, expected), "every file is one that was written, whole");
          found.add(version(bytes));
        }
        const contents = await Promise.all(
          entries.map(async (e) => (await d.fs.getattr(e.stat.ino, undefined)).content),
        );
        listings.push(entries.map((e, i) => `${e.name}: ${contents[i]}`).sort().join("\n"));
        for (const n of written.keys()) {
          assert.ok(
            found.has(n) || replaced.has(n),
            `version ${n} is somewhere on ${d.link.id}, which has ${[...found]} of ${written.size} (replaced: ${[
              ...replaced,
            ]})`,
          );
        }
      }
      assert.equal(new Set(listings).size, 1, `all see the same:\n${listings.join("\n\n")}`);
      for (const d of devices) await stop(d);
      await server.index.close();
    }),
    {
      numRuns: Number(Deno.env.get("ANYFS_RUNS") ?? 25),
      examples: [
        // Alone, one delivers behind its writer's back: the cut comes while all wait for that.
        [[
          { t: "lose", device: 2 },
          { t: "cut", device: 1 },
          { t: "cut", device: 0 },
          { t: "write", device: 2, file: 0, size: 0 },
          { t: "write", device: 0, file: 0, size: 0 },
        ]],
      ],
    },
  );
});

Deno.test({
  name: "of the records that travel together, only the refused one is settled",
  sanitizeResources: false,
  sanitizeOps: false,
}, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  const b = await device(server, "b");
  await a.fs.readdir(1, null, 100);
  a.link.disconnect();
  await write(b.fs, 1, "x", text("b's"));
  assert.ok(await b.fs.drain(5000));
  for (let n = 0; n < 20; n++) await write(a.fs, 1, n === 10 ? "x" : `f${n}`, text(`a's ${n}`));
  let groups = 0;
  a.link.before = (method, params) => {
    if (method === "apply" && (params as { group: boolean }).group) groups++;
    return Promise.resolve();
  };
  await a.link.connect();
  assert.ok(await a.fs.drain(10_000));
  assert.ok(groups > 0, "records travelled together");
  const names = (await server.index.readDir(1, null, 100)).map((entry) => entry.name);
  assert.equal(names.length, 21);
  assert.equal(names.filter((name) => name.startsWith("x (conflict")).length, 1);
  for (const { name, stat } of await server.index.readDir(1, null, 100)) {
    const expected = name === "x" ? "b's" : name.startsWith("x ") ? "a's 10" : `a's ${name.slice(1)}`;
    assert.deepEqual(await server.content(stat.content), text(expected));
  }
  await stop(a);
  await stop(b);
});

Deno.test({
  name: "many flushes of one file travel as few contents, and only bytes near what changed",
  sanitizeResources: false,
  sanitizeOps: false,
}, async () => {
  const server = new FakeServer();
  const a = await device(server, "a");
  await a.fs.readdir(1, null, 100);
  const expected = new Uint8Array(4_000_000);
  for (let i = 0; i < expected.length; i += 4) new DataView(expected.buffer).setUint32(i, Math.imul(i + 1, 0x9e3779b1));
  const large = await write(a.fs, 1, "large", expected.slice());
  const log = await write(a.fs, 1, "log", text("start\n"));
  assert.ok(await a.fs.drain(10_000));
  a.link.disconnect();
  const file = await a.fs.open(large, O_RDWR, caller);
  const lines = await a.fs.open(log, O_RDWR, caller);
  let words = "start\n";
  for (let n = 0; n < 100; n++) {
    const at = [100_000, 2_000_000, 3_900_000][n % 3] ?? 0;
    const piece = text(`change ${n}`);
    await a.fs.write(large, file.fh, at, piece, flags);
    expected.set(piece, at);
    await a.fs.fsync(large, file.fh, false);
    await a.fs.write(log, lines.fh, words.length, text(`line ${n}\n`), flags);
    words += `line ${n}\n`;
    await a.fs.fsync(log, lines.fh, false);
  }
  await a.fs.setattr(large, { size: 3_950_000 }, file.fh, caller);
  await a.fs.fsync(large, file.fh, false);
  let contents = 0;
  let sent = 0;
  a.link.before = (method, params) => {
    if (method === "apply") {
      const { ops, chunks } = params as { ops: { t: string }[]; chunks: { bytes: Uint8Array }[] };
      contents += ops.filter((op) => op.t === "content").length;
      for (const { bytes } of chunks) sent += bytes.length;
    }
    return Promise.resolve();
  };
  const put = a.link.putChunks.bind(a.link);
  a.link.putChunks = (chunks) => {
    for (const { bytes } of chunks) sent += bytes.length;
    return put(chunks);
  };
  await a.link.connect();
  assert.ok(await a.fs.drain(10_000));
  assert.ok(contents <= 30, `${contents} contents for 201 flushes`);
  assert.ok(sent < 2_500_000, `${sent} bytes sent for 3 places changed a few times`);
  assert.deepEqual(
    await server.content((await server.index.stat(large))?.content ?? null),
    expected.subarray(0, 3_950_000),
  );
  assert.deepEqual(await server.content((await server.index.stat(log))?.content ?? null), text(words));
  assert.deepEqual(await readAll(a.fs, large), expected.subarray(0, 3_950_000));
  a.fs.release(large, file.fh, 0n, false);
  a.fs.release(log, lines.fh, 0n, false);
  await stop(a);
});

Deno.test({
  name: "what the server has of a large file is what was sent, not what would be made of the same bytes now",
  ...unchecked,
}, async () => {
  const server = new FakeServer();
  let a = await device(server, "a");
  await a.fs.readdir(1, null, 100);
  let expected = random(400_000, 1);
  const ino = await write(a.fs, 1, "log", expected.slice());
  assert.ok(await a.fs.drain(10_000));
  // Where an appended file is cut depends on how it grew.
  const append = async (n: number) => {
    const more = random(30_000, n);
    const { fh } = await a.fs.open(ino, O_RDWR, caller);
    await a.fs.write(ino, fh, expected.length, more, flags);
    expected = new Uint8Array([...expected, ...more]);
    await a.fs.flush(ino, fh, 0n);
    a.fs.release(ino, fh, 0n, false);
  };
  // One that everybody can see and no disk of the server has yet; then one whose answer never comes.
  a.link.holdDurable = true;
  await append(2);
  const seen = await contentOf(server, ino);
  for (let i = 0; i < 500 && (await a.fs.getattr(ino, undefined)).content !== seen; i++) await systemClock.sleep(5);
  const never = Promise.withResolvers<void>();
  a.link.after = (method) => method === "apply" ? never.promise : undefined;
  await append(3);
  for (let i = 0; i < 500 && await contentOf(server, ino) === seen; i++) await systemClock.sleep(5);
  // The first one is let go of.
  a.link.holdDurable = false;
  await a.link.settled();
  await systemClock.sleep(150);
  a.link.after = () => {};
  a = await a.crash(true);
  never.resolve();
  await append(4);
  assert.ok(await a.fs.drain(10_000));
  await append(5);
  assert.ok(await a.fs.drain(10_000));
  assert.ok(same(await server.content(await contentOf(server, ino)), expected));
  assert.ok(same(await readAll(a.fs, ino), expected));
  assert.equal((await server.index.readDir(1, null, 100)).length, 1, "no conflict copies");
  await stop(a);
});

Deno.test({
  name:
    "records that travelled together and whose answer was lost are not told twice, and build on what the server has",
  ...unchecked,
}, async () => {
  for (const restart of [false, true]) {
    const server = new FakeServer();
    let a = await device(server, "a");
    await a.fs.readdir(1, null, 100);
    const expected = random(600_000, 1);
    const large = await write(a.fs, 1, "large", expected.slice());
    const log = await write(a.fs, 1, "log", text("start\n"));
    assert.ok(await a.fs.drain(10_000));
    a.link.disconnect();
    let words = "start\n";
    const change = async (n: number) => {
      const file = await a.fs.open(large, O_RDWR, caller);
      const piece = text(`change ${n}`);
      await a.fs.write(large, file.fh, n * 50_000, piece, flags);
      expected.set(piece, n * 50_000);
      await a.fs.flush(large, file.fh, 0n);
      a.fs.release(large, file.fh, 0n, false);
      words += `line ${n}\n`;
      await replace(a.fs, log, text(words));
    };
    for (let n = 0; n < 6; n++) await change(n);
    const { lastRequest } = await server.index.device("a", "a");
    loseAnswer(a);
    await a.link.connect();
    for (let i = 0; i < 500 && a.link.connected; i++) await systemClock.sleep(10);
    assert.ok((await server.index.device("a", "a")).lastRequest > lastRequest, "the server has done it");
    if (restart) a = await a.crash(false);
    await change(7);
    // The first of them are heard of, and let go of, long before the others.
    let applies = 0;
    a.link.before = (method) => method === "apply" && ++applies > 2 ? systemClock.sleep(200) : Promise.resolve();
    await a.link.connect();
    await delivered(a);
    a.link.before = () => Promise.resolve();
    await change(8);
    assert.ok(await a.fs.drain(10_000));
    for (const side of [() => readAll(a.fs, large), async () => server.content(await contentOf(server, large))]) {
      assert.ok(same(await side(), expected));
    }
    for (const side of [() => readAll(a.fs, log), async () => server.content(await contentOf(server, log))]) {
      assert.deepEqual(await side(), text(words));
    }
    assert.equal((await server.index.readDir(1, null, 100)).length, 2, "no conflict copies");
    await stop(a);
  }
});

Deno.test({
  name: "what a crash of the server took back stays as the program left it, and is told again",
  sanitizeResources: false,
  sanitizeOps: false,
}, async () => {
  const folder = Deno.makeTempDirSync();
  const server = new FakeServer(`${folder}/index.db`);
  const a = await device(server, "a");
  const journal = await write(a.fs, 1, "db-journal", text("hot"));
  const db = await write(a.fs, 1, "db", text("old"));
  await write(a.fs, 1, "temporary", text("new name"));
  assert.ok(await a.fs.drain(5000));
  await server.index.settle();
  for (const end of ["", "-wal"]) Deno.copyFileSync(`${folder}/index.db${end}`, `${folder}/before.db${end}`);
  a.link.holdDurable = true;
  const { fh } = await a.fs.open(db, O_RDWR, caller);
  await a.fs.write(db, fh, 0, text("NEW"), flags);
  await a.fs.flush(db, fh, 0n);
  await a.fs.unlink(1, "db-journal", caller);
  await a.fs.rename(1, "temporary", 1, "final", 0, caller);
  for (let i = 0; i < 500 && await server.index.lookup(1, "final") === null; i++) await systemClock.sleep(10);
  assert.ok(await server.index.lookup(1, "final"), "everybody sees it");
  assert.equal(await server.index.stat(journal), null);
  a.link.disconnect();
  // The server comes back as it was on its disk before.
  const crashed = new FakeServer(`${folder}/before.db`);
  for (const [hash, bytes] of server.chunks) crashed.chunks.set(hash, bytes);
  a.link.server = crashed;
  a.link.holdDurable = false;
  let checked = 0;
  a.link.before = async (method) => {
    if (method !== "apply") return;
    // Before the first of ours is told again: nothing may look as it did before the crash of the server.
    checked++;
    assert.equal(await a.fs.lookup(1, "db-journal", caller), null);
    assert.equal(await a.fs.lookup(1, "temporary", caller), null);
    assert.ok(await a.fs.lookup(1, "final", caller));
    assert.deepEqual(await readAll(a.fs, db), text("NEW"));
  };
  await a.link.connect();
  assert.equal(await a.fs.lookup(1, "db-journal", caller), null);
  assert.equal(await a.fs.lookup(1, "temporary", caller), null);
  assert.ok(await a.fs.drain(5000));
  assert.ok(checked >= 1);
  assert.equal(await crashed.index.lookup(1, "db-journal"), null);
  assert.equal(await crashed.index.lookup(1, "temporary"), null);
  assert.ok(await crashed.index.lookup(1, "final"));
  assert.deepEqual(await crashed.content((await crashed.index.stat(db))?.content ?? null), text("NEW"));
  a.fs.release(db, fh, 0n, false);
  await stop(a);
  Deno.removeSync(folder, { recursive: true });
});

type Step =
  | { t: "write"; file: number; offset: number; length: number; seed: number }
  | { t: "truncate"; file: number; size: number }
  | { t: "remove"; file: number }
  | { t: "rename"; file: number; to: number }
  | { t: "cut" }
  | { t: "lose" }
  | { t: "heal" }
  | { t: "crash" }
  | { t: "check"; file: number };

const file = fc.integer({ min: 0, max: 3 });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      t: fc.constant("write" as const),
      file,
      offset: fc.oneof(fc.nat(1000), fc.nat(700_000)),
      length: fc.oneof(fc.nat(2000), fc.nat(400_000)),
      seed: fc.integer({ min: 1, max: 99 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ t: fc.constant("truncate" as const), file, size: fc.nat(800_000) }) },
  { weight: 1, arbitrary: fc.record({ t: fc.constant("remove" as const), file }) },
  { weight: 1, arbitrary: fc.record({ t: fc.constant("rename" as const), file, to: file }) },
  { weight: 1, arbitrary: fc.constant({ t: "cut" as const }) },
  { weight: 1, arbitrary: fc.constant({ t: "lose" as const }) },
  { weight: 1, arbitrary: fc.constant({ t: "heal" as const }) },
  { weight: 1, arbitrary: fc.constant({ t: "crash" as const }) },
  { weight: 3, arbitrary: fc.record({ t: fc.constant("check" as const), file }) },
);

Deno.test({
  name: "whatever is closed is read back, through cuts and crashes, here and on the server",
  sanitizeResources: false,
  sanitizeOps: false,
}, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const server = new FakeServer();
      let d = await device(server, "d");
      await d.fs.readdir(1, null, 100);
      const model = new Map<string, Uint8Array>();
      const name = (n: number) => `file ${n}`;
      const check = async (n: number) => {
        const expected = model.get(name(n));
        const stat = await d.fs.lookup(1, name(n), caller);
        assert.equal(stat !== null, expected !== undefined, `${name(n)} there`);
        if (stat === null || expected === undefined) return;
        assert.equal(stat.size, expected.length, "size");
        assert.ok(same(await readAll(d.fs, stat.ino), expected), `${name(n)} has its bytes`);
      };
      const perform = async (s: Step) => {
        if (s.t === "write") {
          const stat = await d.fs.lookup(1, name(s.file), caller);
          const opened = stat === null
            ? await d.fs.create(1, name(s.file), 0o644, O_RDWR, caller)
            : { stat, open: await d.fs.open(stat.ino, O_RDWR, caller) };
          const data = random(s.length, s.seed);
          const old = model.get(name(s.file)) ?? new Uint8Array();
          for (let at = 0; at < data.length; at += 131_072) {
            await d.fs.write(opened.stat.ino, opened.open.fh, s.offset + at, data.subarray(at, at + 131_072), flags);
          }
          await d.fs.flush(opened.stat.ino, opened.open.fh, 0n);
          d.fs.release(opened.stat.ino, opened.open.fh, 0n, false);
          const next = new Uint8Array(data.length === 0 ? old.length : Math.max(old.length, s.offset + data.length));
          next.set(old);
          next.set(data, data.length === 0 ? 0 : s.offset);
          model.set(name(s.file), next);
        } else if (s.t === "truncate") {
          const old = model.get(name(s.file));
          const stat = await d.fs.lookup(1, name(s.file), caller);
          if (old === undefined || stat === null) return;
          await d.fs.setattr(stat.ino, { size: s.size }, undefined, caller);
          const next = new Uint8Array(s.size);
          next.set(old.subarray(0, s.size));
          model.set(name(s.file), next);
        } else if (s.t === "remove") {
          if (!model.has(name(s.file))) return;
          await d.fs.unlink(1, name(s.file), caller);
          model.delete(name(s.file));
        } else if (s.t === "rename") {
          const old = model.get(name(s.file));
          if (old === undefined) return;
          await d.fs.rename(1, name(s.file), 1, name(s.to), 0, caller);
          model.delete(name(s.file));
          model.set(name(s.to), old);
        } else if (s.t === "cut") d.link.disconnect();
        else if (s.t === "lose") loseAnswer(d);
        else if (s.t === "heal") {
          if (!d.link.connected) await d.link.connect();
        } else if (s.t === "crash") {
          const copy = Deno.makeTempDirSync();
          await new Deno.Command("cp", { args: ["-a", `${d.folder}/.`, copy] }).output();
          const online = d.link.connected;
          d.link.disconnect();
          await stop(d);
          d = await device(server, "d", copy, online);
        } else if (s.t === "check") await check(s.file);
      };
      for (const s of steps) {
        try {
          await perform(s);
        } catch (error) {
          // Offline after a crash, what was known a moment ago may have to be asked for again.
          if (!(error instanceof FsError && error.code === "unavailable" && !d.link.connected)) throw error;
        }
      }
      d.link.after = () => {};
      if (!d.link.connected) await d.link.connect();
      await delivered(d);
      for (let n = 0; n < 4; n++) {
        await check(n);
        const there = await server.index.lookup(1, name(n));
        const expected = model.get(name(n));
        assert.equal(there !== null, expected !== undefined, `${name(n)} on the server`);
        if (there !== null && expected !== undefined) {
          assert.ok(same(await server.content(there.content), expected), `${name(n)} right on the server`);
        }
      }
      assert.equal((await server.index.readDir(1, null, 100)).length, model.size, "nothing else on the server");
      await stop(d);
      await server.index.close();
    }),
    { numRuns: Number(Deno.env.get("ANYFS_RUNS") ?? 40) },
  );
});
async function contentOf(server: FakeServer, ino: number): Promise<string | null> {
  return (await server.index.stat(ino))?.content ?? null;
}
function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
Deno.test({
  name: "a file that is gone when it is opened is an error of the call, not of the mount",
  sanitizeOps: false,
  sanitizeResources: false,
}, async () => {
  const server = new FakeServer();
  const pool = new ChunkPool({ workers: 1 });
  const d = await SimDevice.open({ server, name: "d", pool });
  await d.names();
  const unhandled: unknown[] = [];
  const note = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    unhandled.push(event.reason);
  };
  globalThis.addEventListener("unhandledrejection", note);
  await assert.rejects(async () => await d.fs.open(987_654, 0, caller), /no longer exists/);
  await new Promise((resolve) => setTimeout(resolve, 50));
  globalThis.removeEventListener("unhandledrejection", note);
  assert.deepEqual(unhandled, []);
  await d.stop();
  pool.close();
});

Deno.test({ name: "close the pool", sanitizeOps: false, sanitizeResources: false }, () => pool.close());
