/** A client without its server: modes, what is pinned, what waits, and a server that comes back with another past. */
import assert from "node:assert/strict";
import { FakeServer } from "../../tests/support/fake_server.ts";
import { caller, quiet, SimDevice } from "../../tests/support/sim_device.ts";
import { FsError } from "../fs/error.ts";
import { type Clock, systemClock } from "../platform/clock.ts";
import { ChunkPool } from "../store/chunk_pool.ts";

const pool = new ChunkPool({ workers: 1 });
/** The devices' own timers don't keep a process alive. */
const alive = setInterval(() => {}, 1000);
const unchecked = { sanitizeResources: false, sanitizeOps: false };
const text = (s: string) => new TextEncoder().encode(s);
const xattr = async (d: SimDevice, ino: number) =>
  new TextDecoder().decode(await d.fs.getxattr(ino, "user.anyfs.state"));
async function until(what: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 1000; i++) {
    if (await what()) return;
    await systemClock.sleep(10);
  }
  assert.fail("it did not come");
}
const unavailable = (error: unknown) => error instanceof FsError && error.code === "unavailable";

Deno.test({ name: "what is not delivered is told, for the mount and for each file", ...unchecked }, async () => {
  const server = new FakeServer();
  const a = await SimDevice.open({ server, name: "a", pool });
  const ino = await a.write(1, "f", text("one"));
  await quiet([a]);
  await a.names();
  assert.equal(await xattr(a, ino), "clean");
  assert.equal(await xattr(a, 1), "clean mode=online dirty=0 queued=0 bytes=0 conflicts=0");
  a.link.disconnect();
  const { fh } = await a.fs.open(ino, 2, caller);
  await a.fs.write(ino, fh, 0, text("two"), { killSuidgid: false, fromCache: false });
  assert.equal(await xattr(a, ino), "dirty");
  await a.fs.flush(ino, fh, 0n);
  assert.equal(await xattr(a, ino), "queued");
  await a.fs.mkdir(1, "d", 0o755, caller);
  assert.equal(await xattr(a, 1), "queued mode=reconnecting dirty=0 queued=2 bytes=3 conflicts=0");
  const { items } = a.fs.journal();
  assert.deepEqual(items.map(({ what, path, bytes, state }) => ({ what, path, bytes, state })), [
    { what: "write", path: "/f", bytes: 3, state: "queued" },
    { what: "create", path: "/d", bytes: 0, state: "queued" },
  ]);
  assert.deepEqual(a.fs.journal(items[0]?.id).items.map(({ id }) => id), [items[1]?.id]);
  a.fs.release(ino, fh, 0n, false);
  await a.link.connect();
  await quiet([a]);
  assert.equal(await xattr(a, ino), "clean");
  await a.stop();
});

Deno.test(
  { name: "a full server is told as the reason why nothing is delivered, and not for ever", ...unchecked },
  async () => {
    const server = new FakeServer();
    const a = await SimDevice.open({ server, name: "a", pool });
    let full = true;
    a.link.before = (method) =>
      method === "apply" && full
        ? Promise.reject(new FsError("quota_exceeded", "the quota is used up"))
        : Promise.resolve();
    await a.write(1, "f", text("waits"));
    await until(() => a.fs.status().blocked !== null);
    assert.equal(a.fs.status().blocked?.code, "quota_exceeded");
    assert.match(a.fs.journal().items[0]?.last_error ?? "", /quota is used up/);
    assert.ok(a.log.some((line) => /delivery waits: the quota is used up/.test(line)));
    full = false;
    await quiet([a]);
    assert.equal(a.fs.status().blocked, null);
    await a.stop();
  },
);

Deno.test(
  { name: "a change that is given up is gone with what builds on it, and nothing else", ...unchecked },
  async () => {
    const server = new FakeServer();
    const a = await SimDevice.open({ server, name: "a", pool });
    const ino = await a.write(1, "f", text("old"));
    await quiet([a]);
    await a.names();
    a.link.disconnect();
    await a.write(1, "unwanted", text("x"));
    await a.write(1, "f", text("new"));
    await a.write(1, "wanted", text("y"));
    const find = (path: string, what: string) =>
      a.fs.journal().items.find((item) => item.path === path && item.what === what)?.id ?? 0;
    a.fs.dropJournal(find("/unwanted", "create"));
    a.fs.dropJournal(find("/f", "write"));
    assert.throws(() => a.fs.dropJournal(99_999), { code: "not_found" });
    await a.link.connect();
    await quiet([a]);
    assert.deepEqual((await server.index.readDir(1, null, 10)).map((e) => e.name), ["f", "wanted"]);
    assert.deepEqual(await a.names(), ["f", "wanted"]);
    assert.equal(new TextDecoder().decode(await a.read(ino)), "old");
    await a.stop();
  },
);

for (const keep of ["ours", "theirs", "both"] as const) {
  Deno.test(
    { name: `a conflict that waits for somebody is settled with ${keep}; no version goes`, ...unchecked },
    async () => {
      const server = new FakeServer();
      const a = await SimDevice.open({ server, name: "a", pool, policy: "manual" });
      const b = await SimDevice.open({ server, name: "b", pool, policy: "manual" });
      const ino = await a.write(1, "f", text("base"));
      await quiet([a, b]);
      await b.tree();
      b.link.disconnect();
      await a.write(1, "f", text("by a"));
      await b.write(1, "f", text("by b"));
      await quiet([a]);
      await b.link.connect();
      await quiet([a, b]);
      const [conflict] = b.fs.journal().conflicts;
      assert.equal(conflict?.path, "/f");
      assert.equal(await xattr(b, ino), "conflict");
      assert.match(await xattr(b, 1), /^conflict .* conflicts=1$/);
      await b.fs.resolveConflict(conflict?.id ?? 0, keep);
      await assert.rejects(b.fs.resolveConflict(conflict?.id ?? 0, keep), { code: "conflict" });
      await quiet([a, b]);
      assert.equal(await xattr(b, await b.at("f")), "clean");
      assert.equal(await a.text("f"), keep === "ours" ? "by b" : "by a");
      const names = (await a.names()).filter((name) => name !== ".anyfs-conflicts");
      assert.equal(names.length, keep === "both" ? 2 : 1);
      const texts = [];
      for (const [path, { what, ino }] of await a.tree()) {
        if (what !== "folder") texts.push(new TextDecoder().decode(await a.read(ino)), path.length > 0);
      }
      assert.ok(texts.includes("by a") && texts.includes("by b"));
      await a.stop();
      await b.stop();
    },
  );
}

Deno.test({
  name: "what is pinned is complete offline, follows what others change, and survives a restart",
  ...unchecked,
}, async () => {
  const server = new FakeServer();
  const a = await SimDevice.open({ server, name: "a", pool });
  // A cache that could hold next to nothing.
  let b = await SimDevice.open({ server, name: "b", pool, cacheBytes: 1000 });
  const dir = await a.fs.mkdir(1, "dir", 0o755, caller);
  const deep = await a.fs.mkdir(dir.ino, "deep", 0o755, caller);
  const big = new Uint8Array(700_000).map((_, i) => (i * 7 + (i >> 9)) & 0xff);
  await a.write(deep.ino, "big", big);
  await a.write(dir.ino, "small", text("small"));
  await a.fs.symlink(dir.ino, "link", "small", caller);
  await quiet([a, b]);
  await b.fs.pin("/dir");
  await assert.rejects(b.fs.pin("/dir"), { code: "already_exists" });
  await assert.rejects(b.fs.pin("/nothing"), { code: "not_found" });
  const complete = async () => (await b.fs.listPins())[0]?.state === "complete";
  await until(complete);
  await a.write(dir.ino, "later", text("came later"));
  await a.write(dir.ino, "small", text("changed"));
  await quiet([a, b]);
  await until(async () => await complete() && (await b.fs.listPins())[0]?.files === 3);
  for (let i = 0; i < 3; i++) await b.write(1, `other ${i}`, new Uint8Array(300_000).fill(i));
  await quiet([a, b]);
  b.fs.clearCache();
  const check = async () => {
    assert.deepEqual(await b.names(await b.at("dir")), ["deep", "later", "link", "small"]);
    assert.equal(await b.text("dir", "later"), "came later");
    assert.equal(await b.text("dir", "small"), "changed");
    assert.equal(await b.fs.readlink(await b.at("dir", "link")), "small");
    assert.deepEqual(await b.read(await b.at("dir", "deep", "big")), big);
    assert.deepEqual(await b.fs.listxattr(await b.at("dir", "deep", "big"), caller), []);
  };
  b.link.disconnect();
  await check();
  b = await b.crash();
  await check();
  const [pin] = await b.fs.listPins();
  assert.deepEqual([pin?.path, pin?.files, pin?.files_here], ["/dir", 3, 3]);
  await b.link.connect();
  await b.fs.unpin("/dir");
  assert.deepEqual(await b.fs.listPins(), []);
  await assert.rejects(b.fs.unpin("/dir"), { code: "not_found" });
  // What was held is let go of when the work that was under way has ended; until then there may be other bytes to clear.
  await until(async () => {
    b.fs.clearCache();
    b.link.disconnect();
    const gone = await b.text("dir", "later").then(() => false, unavailable);
    if (!gone) await b.link.connect();
    return gone;
  });
  await a.stop();
  await b.stop();
});

Deno.test({ name: "what is pinned stays complete when it is changed in part here", ...unchecked }, async () => {
  const server = new FakeServer();
  const a = await SimDevice.open({ server, name: "a", pool });
  const big = new Uint8Array(700_000).map((_, i) => (i * 7 + (i >> 9)) & 0xff);
  const { ino: dir } = await a.fs.mkdir(1, "dir", 0o755, caller);
  const ino = await a.write(dir, "big", big);
  await quiet([a]);
  await a.fs.pin("/dir");
  const complete = async () => (await a.fs.listPins())[0]?.state === "complete";
  await until(complete);
  await a.patch(ino, 400_000, text("changed"));
  big.set(text("changed"), 400_000);
  await quiet([a]);
  await systemClock.sleep(1000);
  await until(complete);
  a.link.disconnect();
  assert.deepEqual(await a.read(ino), big);
  await a.stop();
  await server.index.close();
});

Deno.test({
  name: "a large file changed in part here can be read offline, open or not, and nothing of it is fetched again",
  ...unchecked,
}, async () => {
  for (const [kept, merged] of [[false, false], [true, false], [false, true]] as const) {
    const server = new FakeServer();
    const a = await SimDevice.open({ server, name: "a", pool });
    const big = new Uint8Array(900_000).map((_, i) => (i * 7 + (i >> 9)) & 0xff);
    const ino = await a.write(1, "big", big);
    await quiet([a]);
    const fh = kept ? (await a.fs.open(ino, 2, caller)).fh : 0;
    let fetched = 0;
    const readContent = a.link.readContent.bind(a.link);
    a.link.readContent = (hash, offset, length, ...rest) => {
      fetched += length;
      return readContent(hash, offset, length, ...rest);
    };
    if (merged) a.link.disconnect();
    for (const [at, words] of [[400_000, "changed"], [100, "again"], [899_000, "at the end"]] as const) {
      await a.patch(ino, at, text(words));
      big.set(text(words), at);
      if (!merged) await quiet([a]);
    }
    if (merged) {
      await a.link.connect();
      await quiet([a]);
    }
    await until(() => Promise.resolve(a.fs.status().pending.records === 0));
    a.link.disconnect();
    assert.deepEqual(await a.read(ino), big);
    if (kept) a.fs.release(ino, fh, 0n, false);
    const again = await a.crash(false);
    again.link.disconnect();
    assert.deepEqual(await again.read(ino), big);
    assert.equal(fetched, 0);
    await again.stop();
    await server.index.close();
  }
});

Deno.test(
  { name: "who opens what was closed elsewhere waits for it though delivery is slow", ...unchecked },
  async () => {
    const server = new FakeServer();
    const a = await SimDevice.open({ server, name: "a", pool });
    const b = await SimDevice.open({ server, name: "b", pool });
    await a.write(1, "f", text("before"));
    await quiet([a, b]);
    assert.equal(await b.text("f"), "before");
    const go = Promise.withResolvers<void>();
    a.link.before = (method) => method === "apply" ? go.promise : Promise.resolve();
    await a.write(1, "f", text("behind"));
    setTimeout(() => go.resolve(), 500);
    assert.equal(await b.text("f"), "behind");
    await quiet([a, b]);
    for (const d of [a, b]) await d.stop();
    await server.index.close();
  },
);

Deno.test(
  { name: "nobody waits for what became a file of its own beside the one that others changed", ...unchecked },
  async () => {
    const server = new FakeServer();
    const a = await SimDevice.open({ server, name: "a", pool });
    const b = await SimDevice.open({ server, name: "b", pool });
    const ino = await a.write(1, "f", text("before"));
    await quiet([a, b]);
    await b.text("f");
    const go = Promise.withResolvers<void>();
    a.link.before = (method) => method === "apply" ? go.promise : Promise.resolve();
    await a.write(1, "f", text("from a"));
    await until(() => server.busy.has(ino));
    server.busy.clear();
    const { fh } = await b.fs.open(ino, 2, caller);
    server.busy.set(ino, a.link);
    await b.fs.write(ino, fh, 0, text("from b"), { killSuidgid: false, fromCache: false });
    await b.fs.flush(ino, fh, 0n);
    b.fs.release(ino, fh, 0n, false);
    go.resolve();
    await quiet([a, b]);
    assert.deepEqual([...server.busy.keys()], []);
    assert.equal((await b.names()).length, 2);
    for (const d of [a, b]) await d.stop();
    await server.index.close();
  },
);
Deno.test({ name: "after a cut others are told again what to wait for, and what not", ...unchecked }, async () => {
  const server = new FakeServer();
  const a = await SimDevice.open({ server, name: "a", pool });
  const b = await SimDevice.open({ server, name: "b", pool });
  const [f, g] = [await a.write(1, "f", text("before")), await a.write(1, "g", text("before"))];
  await quiet([a, b]);
  let go = Promise.withResolvers<void>();
  a.link.before = (method) => method === "apply" ? go.promise : Promise.resolve();
  await a.write(1, "f", text("after"));
  await until(() => server.busy.has(f));
  a.link.disconnect();
  assert.deepEqual([...server.busy.keys()], []);
  await a.link.connect();
  await until(() => server.busy.has(f));
  assert.deepEqual([...server.busy.keys()], [f]);
  go.resolve();
  await quiet([a, b]);
  assert.deepEqual([...server.busy.keys()], []);
  // A close that comes while an earlier one of the file is waited for: it is waited for to the last of them.
  go = Promise.withResolvers<void>();
  await a.write(1, "g", text("once.."));
  await until(() => server.busy.has(g));
  await a.write(1, "g", text("twice."));
  go.resolve();
  assert.equal(await b.text("g"), "twice.");
  await quiet([a, b]);
  assert.deepEqual([...server.busy.keys()], []);
  for (const d of [a, b]) await d.stop();
  await server.index.close();
});

/** The server as it was when `at` was copied. */
async function restored(folder: string, from: FakeServer): Promise<FakeServer> {
  const back = new FakeServer(`${folder}/backup.db`);
  for (const [hash, bytes] of from.chunks) back.chunks.set(hash, bytes);
  await back.index.settle();
  return back;
}
for (const keep of ["keep-server", "keep-mine"] as const) {
  Deno.test({ name: `a server restored from an older backup is noticed; ${keep} goes on`, ...unchecked }, async () => {
    const folder = Deno.makeTempDirSync();
    const server = new FakeServer(`${folder}/index.db`);
    let a = await SimDevice.open({ server, name: "a", pool });
    await a.write(1, "old", text("in the backup"));
    await a.write(1, "changed", text("in the backup"));
    await quiet([a]);
    await server.index.settle();
    for (const end of ["", "-wal"]) Deno.copyFileSync(`${folder}/index.db${end}`, `${folder}/backup.db${end}`);
    await a.write(1, "changed", text("after the backup"));
    const dir = await a.fs.mkdir(1, "new folder", 0o755, caller);
    await a.write(dir.ino, "new", text("after the backup"));
    await quiet([a]);
    await a.tree();
    a.link.disconnect();
    await a.write(1, "offline", text("not delivered"));
    // What was confirmed before is kept.
    await until(() => a.fs.status().confirmed >= 8);
    await a.fs.destroy();
    a = await a.crash();
    const back = await restored(folder, server);
    a.link.server = back;
    await a.link.connect();
    const { mode, stopped } = a.fs.status();
    assert.equal(mode, "offline");
    assert.match(stopped ?? "", /restored from an older backup.*--epoch keep-server.*--epoch keep-mine/s);
    assert.ok((await a.fs.events(0, 0)).some((event) => event.event === "stopped"));
    // Nothing is sent, nothing is taken over, all that is here works.
    assert.equal(await a.text("changed"), "after the backup");
    assert.equal(await a.text("new folder", "new"), "after the backup");
    await a.write(1, "while stopped", text("not delivered"));
    assert.equal((await back.index.readDir(1, null, 10)).length, 2);
    await a.fs.resolveEpoch(keep);
    await quiet([a]);
    assert.equal(a.fs.status().mode, "online");
    assert.equal(a.fs.status().stopped, null);
    const mine = keep === "keep-mine";
    const names = ["changed", ...(mine ? ["new folder"] : []), "offline", "old", "while stopped"];
    assert.deepEqual((await a.names()).filter((name) => name !== ".anyfs-conflicts"), names);
    assert.deepEqual(
      (await back.index.readDir(1, null, 10)).map((e) => e.name).filter((n) => !n.startsWith(".")),
      names,
    );
    assert.equal(await a.text("offline"), "not delivered");
    assert.equal(await a.text("changed"), mine ? "after the backup" : "in the backup");
    if (mine) assert.equal(await a.text("new folder", "new"), "after the backup");
    await assert.rejects(a.fs.resolveEpoch(keep), { code: "conflict" });
    await a.stop();
    await back.index.close();
    await server.index.close();
    Deno.removeSync(folder, { recursive: true });
  });
}

Deno.test({
  name: "told to work offline it does, with events for whoever watches, until it is told to connect",
  ...unchecked,
}, async () => {
  const server = new FakeServer();
  const a = await SimDevice.open({ server, name: "a", pool });
  await a.write(1, "f", text("here"));
  await quiet([a]);
  await a.names();
  const seen = (await a.fs.events(0, 0)).at(-1)?.id ?? 0;
  const waiting = a.fs.events(seen, 5000);
  a.fs.setOffline(true);
  assert.deepEqual((await waiting).map(({ event, mode }) => ({ event, mode })), [{ event: "mode", mode: "offline" }]);
  assert.equal(a.fs.status().mode, "offline");
  assert.equal(await a.text("f"), "here");
  await a.write(1, "g", text("offline"));
  a.fs.setOffline(false);
  await until(() => a.fs.mode === "online");
  await quiet([a]);
  assert.ok(await server.index.lookup(1, "g"));
  await a.stop();
});

Deno.test({ name: "when the machine has slept the connection is checked", ...unchecked }, async () => {
  let wall = 1_000_000;
  let steady = 0;
  const ticks: (() => void)[] = [];
  const clock: Clock = {
    ...systemClock,
    now: () => wall,
    monotonic: () => steady,
    every: (ms, callback) => {
      if (ms === 2000) ticks.push(callback);
      return () => {};
    },
  };
  const server = new FakeServer();
  const a = await SimDevice.open({ server, name: "a", pool, clock });
  const tick = (wallMs: number, steadyMs: number) => {
    wall += wallMs;
    steady += steadyMs;
    for (const callback of ticks) callback();
  };
  tick(2000, 2000);
  tick(2010, 2000);
  assert.equal(a.link.checks, 0);
  tick(3_600_000, 2000);
  assert.equal(a.link.checks, 1);
  tick(2000, 2000);
  assert.equal(a.link.checks, 1);
  tick(-60_000, 2000);
  assert.equal(a.link.checks, 2);
  assert.deepEqual((await a.fs.events(0, 0)).map(({ event }) => event), ["mode", "wake", "wake"]);
  await a.stop();
});

Deno.test({
  name:
    "a listing that comes before the news of a change does not mix what is here of a file with what others made of it",
  ...unchecked,
}, async () => {
  const server = new FakeServer();
  const a = await SimDevice.open({ server, name: "a", pool });
  const b = await SimDevice.open({ server, name: "b", pool });
  const ino = await a.write(1, "f", text("what a wrote"));
  await quiet([a, b]);
  await b.write(1, "f", text("theirs"));
  await a.tree();
  a.link.disconnect();
  const read = await a.read(ino).then((bytes) => new TextDecoder().decode(bytes), (error) => {
    assert.ok(unavailable(error), String(error));
    return "theirs";
  });
  assert.ok(["what a wrote", "theirs"].includes(read), read);
  await a.link.connect();
  await quiet([a, b]);
  assert.equal(await a.text("f"), "theirs");
  for (const d of [a, b]) await d.stop();
  await server.index.close();
});

Deno.test(
  { name: "a file that is being written stays as long as it is when its folder is listed", ...unchecked },
  async () => {
    const server = new FakeServer();
    const a = await SimDevice.open({ server, name: "a", pool });
    const b = await SimDevice.open({ server, name: "b", pool });
    const { ino: folder } = await a.fs.mkdir(1, "d", 0o755, caller);
    await a.write(folder, "f", text("one"));
    await quiet([a, b]);
    const ino = await b.at("d", "f");
    const { fh } = await b.fs.open(ino, 2, caller);
    await b.fs.write(ino, fh, 3, text(" and more"), { killSuidgid: false, fromCache: false });
    const listed = await b.fs.readdir(folder, null, 10);
    assert.deepEqual(listed.map(({ name, stat }) => [name, stat.size]), [["f", 12]]);
    assert.equal((await b.fs.getattr(ino, undefined)).size, 12);
    await b.fs.flush(ino, fh, 0n);
    b.fs.release(ino, fh, 0n, false);
    await quiet([a, b]);
    assert.equal(await a.text("d", "f"), "one and more");
    for (const d of [a, b]) await d.stop();
    await server.index.close();
  },
);

Deno.test({
  name: "close the pool",
  ...unchecked,
  fn: () => {
    clearInterval(alive);
    pool.close();
  },
});
