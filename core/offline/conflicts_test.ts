/** What several devices did apart, case by case (docs/semantics-offline.md): which version has the name, and where the other one is. */
import assert from "node:assert/strict";
import { FakeServer } from "../../tests/support/fake_server.ts";
import { caller, quiet, serverTree, SimDevice } from "../../tests/support/sim_device.ts";
import { ChunkPool } from "../store/chunk_pool.ts";
import { type Clock, systemClock } from "../platform/clock.ts";
import { hex, sha256 } from "../store/hash.ts";
import { encodeManifest } from "../store/manifest.ts";
import { FsError } from "../fs/error.ts";
import type { ConflictPolicy } from "./conflict_list.ts";

const pool = new ChunkPool({ workers: 1 });
const unchecked = { sanitizeResources: false, sanitizeOps: false };
const text = (s: string) => new TextEncoder().encode(s);

interface House {
  readonly server: FakeServer;
  readonly a: SimDevice;
  b: SimDevice;
}
/** Both know `f` ("base") and the folder `dir`; then b is cut off. */
async function house(policy: ConflictPolicy, test: (h: House) => Promise<void>): Promise<void> {
  const server = new FakeServer();
  const a = await SimDevice.open({ server, name: "a", pool, policy });
  const b = await SimDevice.open({ server, name: "b", pool, policy });
  await a.write(1, "f", text("base"));
  await a.fs.mkdir(1, "dir", 0o755, caller);
  await quiet([a, b]);
  for (const d of [a, b]) {
    await d.tree();
    assert.equal(await d.text("f"), "base");
  }
  b.link.disconnect();
  const h = { server, a, b };
  await test(h);
  await a.stop();
  await h.b.stop();
  await server.index.close();
}
async function heal({ a, b }: House): Promise<void> {
  await quiet([a]);
  await b.link.connect();
  await quiet([a, b]);
  assert.deepEqual([...await a.tree()].sort(), [...await b.tree()].sort(), "both show the same");
}
const CONFLICT = /^f \(conflict b \d{4}-\d\d-\d\d \d\d\.\d\d\)$/;
async function conflictCopies(d: SimDevice): Promise<string[]> {
  return (await d.names()).filter((name) => CONFLICT.test(name));
}
/** The texts of what lies in the conflict folder. */
async function aside(d: SimDevice): Promise<(string | null)[]> {
  const folder = await d.at(".anyfs-conflicts");
  if (folder === 0) return [];
  return await Promise.all((await d.names(folder)).map((name) => d.text(".anyfs-conflicts", name)));
}

Deno.test(
  { name: "a removal of what another has changed meanwhile does not take the change away", ...unchecked },
  () =>
    house("keep-both", async (h) => {
      await h.a.write(1, "f", text("changed by a"));
      await h.b.fs.unlink(1, "f", caller);
      await heal(h);
      assert.equal(await h.b.text("f"), "changed by a");
      assert.deepEqual(await h.a.names(), ["dir", "f"]);
    }),
);

Deno.test(
  { name: "a file saved by renaming over one that another has changed: both are there", ...unchecked },
  () =>
    house("keep-both", async (h) => {
      await h.a.write(1, "f", text("changed by a"));
      await h.b.write(1, "f.tmp", text("saved by b"));
      await h.b.fs.rename(1, "f.tmp", 1, "f", 0, caller);
      await heal(h);
      assert.equal(await h.a.text("f"), "changed by a");
      const [copy] = await conflictCopies(h.a);
      assert.equal(await h.a.text(copy ?? ""), "saved by b");
      assert.equal((await h.a.names()).length, 3);
    }),
);

Deno.test(
  { name: "a rename to a name that another gave meanwhile drops neither file", ...unchecked },
  () =>
    house("keep-both", async (h) => {
      await h.a.write(1, "g", text("a's g"));
      await h.b.fs.rename(1, "f", 1, "g", 0, caller);
      await heal(h);
      assert.equal(await h.a.text("g"), "a's g");
      const other = (await h.a.names()).find((name) => name.startsWith("g (conflict b "));
      assert.equal(await h.a.text(other ?? ""), "base");
    }),
);

Deno.test({
  name: "what a device wrote and removed itself is gone, also when the first half was delivered before a crash",
  ...unchecked,
}, async () => {
  const server = new FakeServer();
  for (const crash of [false, true]) {
    let a = await SimDevice.open({ server, name: "a", pool });
    await a.write(1, "f", text("one"));
    await a.write(1, "f", text("two"));
    await a.write(1, "over", text("old"));
    await a.write(1, "over", text("newer"));
    if (crash) await quiet([a]);
    await a.fs.unlink(1, "f", caller);
    await a.write(1, "tmp", text("newest"));
    await a.fs.rename(1, "tmp", 1, "over", 0, caller);
    if (crash) a = await a.crash();
    await quiet([a]);
    assert.deepEqual(await a.names(), ["over"], a.log.join("\n"));
    assert.equal(await a.text("over"), "newest");
    await a.fs.unlink(1, "over", caller);
    await quiet([a]);
    assert.deepEqual(await server.index.readDir(1, null, 10), []);
    await a.stop();
  }
  await server.index.close();
});

Deno.test(
  { name: "files made in a folder that another removed bring the folder back", ...unchecked },
  () =>
    house("keep-both", async (h) => {
      const dir = await h.b.at("dir");
      const inner = await h.b.fs.mkdir(dir, "inner", 0o755, caller);
      await h.b.write(inner.ino, "new", text("new"));
      await h.b.fs.rename(1, "f", dir, "f", 0, caller);
      await h.a.fs.rmdir(1, "dir", caller);
      await heal(h);
      assert.equal(await h.a.text("dir", "inner", "new"), "new");
      assert.equal(await h.a.text("dir", "f"), "base");
      assert.deepEqual(await h.a.names(), ["dir"]);
    }),
);

Deno.test(
  { name: "folders of one name made apart become one folder with all that is in them", ...unchecked },
  () =>
    house("keep-both", async (h) => {
      const [x, y] = [
        await h.a.fs.mkdir(1, "2026", 0o755, caller),
        await h.b.fs.mkdir(1, "2026", 0o755, caller),
      ];
      await h.a.write(x.ino, "from a", text("A"));
      await h.a.write(x.ino, "same", text("A"));
      await h.b.write(y.ino, "from b", text("B"));
      await h.b.write(y.ino, "same", text("B"));
      const deep = await h.b.fs.mkdir(y.ino, "deep", 0o755, caller);
      await h.b.write(deep.ino, "down", text("D"));
      await heal(h);
      assert.deepEqual(await h.a.names(), ["2026", "dir", "f"]);
      const folder = await h.b.at("2026");
      const names = await h.b.names(folder);
      assert.equal(names.length, 5, names.join());
      assert.equal(await h.a.text("2026", "from b"), "B");
      assert.equal(await h.b.text("2026", "same"), "A");
      assert.equal(await h.a.text("2026", "deep", "down"), "D");
    }),
);

Deno.test(
  { name: "a file and a folder of one name made apart are both there", ...unchecked },
  () =>
    house("keep-both", async (h) => {
      await h.a.write(1, "n", text("a file"));
      const folder = await h.b.fs.mkdir(1, "n", 0o755, caller);
      await h.b.write(folder.ino, "in it", text("inside"));
      await heal(h);
      assert.equal(await h.b.text("n"), "a file");
      const other = (await h.a.names()).find((name) => name.startsWith("n (conflict b ")) ?? "";
      assert.equal(await h.a.text(other, "in it"), "inside");
    }),
);

Deno.test(
  { name: "one renames a file, another changes it: the change is under the new name", ...unchecked },
  () =>
    house("keep-both", async (h) => {
      await h.a.fs.rename(1, "f", await h.a.at("dir"), "renamed", 0, caller);
      await h.b.write(1, "f", text("changed by b"));
      await heal(h);
      assert.equal(await h.a.text("dir", "renamed"), "changed by b");
      assert.deepEqual(await h.a.names(), ["dir"]);
    }),
);

Deno.test(
  { name: "two rename one file: the name that came first stands", ...unchecked },
  () =>
    house("keep-both", async (h) => {
      await h.a.fs.rename(1, "f", 1, "by a", 0, caller);
      await h.b.fs.rename(1, "f", 1, "by b", 0, caller);
      await heal(h);
      assert.deepEqual(await h.a.names(), ["by a", "dir"]);
      assert.equal(await h.b.text("by a"), "base");
    }),
);

Deno.test(
  { name: "names that differ in case or in their Unicode form are names of their own", ...unchecked },
  () =>
    house("keep-both", async (h) => {
      await h.a.fs.rename(1, "f", 1, "F", 0, caller);
      await h.a.write(1, "caf\u00e9", text("NFC"));
      await h.b.write(1, "cafe\u0301", text("NFD"));
      await h.b.write(1, "f", text("changed by b"));
      await heal(h);
      assert.deepEqual((await h.a.names()).sort(), ["F", "cafe\u0301", "caf\u00e9", "dir"]);
      assert.equal(await h.a.text("F"), "changed by b");
      assert.equal(await h.b.text("caf\u00e9"), "NFC");
      assert.equal(await h.b.text("cafe\u0301"), "NFD");
    }),
);

/** What is newer is so by its time of change, which clocks of one millisecond don't tell apart. */
async function makeOld(h: House, policy: ConflictPolicy, ...names: string[]): Promise<void> {
  if (policy !== "newer") return;
  for (const name of names) {
    await h.a.fs.setattr(await h.a.at(name), { mtime: { sec: 1000, nsec: 0 } }, undefined, caller);
  }
}
for (
  const [policy, stands, loser] of [
    ["server-wins", "by a", "by b"],
    ["manual", "by a", "by b"],
    ["client-wins", "by b", "by a"],
    ["newer", "by b", "by a"],
  ] as const
) {
  Deno.test({
    name: `${policy}: of two changes to a file one has the name, the other is in .anyfs-conflicts`,
    ...unchecked,
  }, () =>
    house(policy, async (h) => {
      await h.a.write(1, "f", text("by a"));
      await h.b.write(1, "f", text("by b"));
      await makeOld(h, policy, "f");
      await heal(h);
      assert.equal(await h.a.text("f"), stands);
      assert.deepEqual(await aside(h.b), [loser]);
      assert.deepEqual(await h.a.names(), [".anyfs-conflicts", "dir", "f"]);
    }));

  Deno.test(
    { name: `${policy}: of two files given one name apart neither is lost`, ...unchecked },
    () =>
      house(policy, async (h) => {
        await h.a.write(1, "n", text("by a"));
        await h.b.write(1, "n", text("by b"));
        await h.b.write(1, "tmp", text("by b"));
        await h.b.fs.rename(1, "tmp", 1, "m", 0, caller);
        await h.a.write(1, "m", text("by a"));
        await makeOld(h, policy, "n", "m");
        await heal(h);
        assert.equal(await h.a.text("n"), stands);
        assert.equal(await h.a.text("m"), stands);
        assert.deepEqual(await aside(h.b), [loser, loser]);
      }),
  );

  Deno.test(
    { name: `${policy}: a removal against a change never loses the change`, ...unchecked },
    () =>
      house(policy, async (h) => {
        await h.a.write(1, "f", text("changed by a"));
        await h.b.fs.unlink(1, "f", caller);
        await makeOld(h, policy, "f");
        await heal(h);
        const where = await h.a.text("f");
        const gone = policy === "client-wins" || policy === "newer";
        assert.equal(where, gone ? null : "changed by a");
        assert.deepEqual(await aside(h.a), gone ? ["changed by a"] : []);
      }),
  );

  Deno.test(
    { name: `${policy}: a change against a removal never loses the change`, ...unchecked },
    () =>
      house(policy, async (h) => {
        await h.a.fs.unlink(1, "f", caller);
        await h.b.write(1, "f", text("changed by b"));
        await heal(h);
        const serverWins = policy === "server-wins" || policy === "manual";
        assert.equal(await h.a.text("f"), serverWins ? null : "changed by b");
        assert.deepEqual(await aside(h.a), serverWins ? ["changed by b"] : []);
      }),
  );
}

/** The server has forgotten everything that no file has now. */
async function collect(server: FakeServer): Promise<void> {
  await server.index.settle();
  while ((await server.index.collect(Date.now() + 1e9, 1000)).contents > 0);
}
const big = (byte: number, size = 600_000) => {
  const out = new Uint8Array(size);
  for (let i = 0; i < size; i++) out[i] = (i * byte + (i >> 8) * 31) & 0xff;
  return out;
};

for (const cached of [true, false]) {
  Deno.test({
    name: cached
      ? "a change made from bytes the server has forgotten is delivered whole when they are all here"
      : "a change made from bytes that nobody has any more is kept as far as it is here, and blocks nothing",
    ...unchecked,
  }, async () => {
    const server = new FakeServer();
    const a = await SimDevice.open({ server, name: "a", pool });
    const b = await SimDevice.open({ server, name: "b", pool });
    const ino = await a.write(1, "f", big(7));
    await quiet([a, b]);
    await b.tree();
    if (cached) assert.deepEqual(await b.read(ino), big(7));
    b.link.disconnect();
    await b.patch(ino, 300_000, text("CHANGED"));
    await b.write(1, "next", text("behind it"));
    await a.write(1, "f", big(9));
    await quiet([a]);
    await collect(server);
    await b.link.connect();
    await quiet([a, b]);
    assert.equal(await a.text("next"), "behind it");
    assert.deepEqual(await a.read(await a.at("f")), big(9));
    const copy = (await a.names()).find((name) => name.startsWith("f (conflict b ")) ?? "";
    const expected = cached ? big(7) : new Uint8Array(600_000);
    expected.set(text("CHANGED"), 300_000);
    assert.deepEqual(await a.read(await a.at(copy)), expected);
    assert.equal(/ partial\)$/.test(copy), !cached);
    await a.stop();
    await b.stop();
    await server.index.close();
  });
}

for (const cached of ["all of it", "nothing of it"]) {
  for (const size of [600_000, 5000]) {
    Deno.test({
      name: `a copy of what the server has forgotten is delivered when ${cached} is here (${size} bytes)`,
      ...unchecked,
    }, async () => {
      const server = new FakeServer();
      const a = await SimDevice.open({ server, name: "a", pool });
      let b = await SimDevice.open({ server, name: "b", pool });
      const ino = await a.write(1, "f", big(7, size));
      await a.write(1, "over", text("replaced"));
      await quiet([a, b]);
      await b.tree();
      if (cached === "all of it") assert.deepEqual(await b.read(ino), big(7, size));
      b.link.disconnect();
      await b.copy(ino, 1, "copy");
      await b.copy(ino, 1, "over");
      await b.patch(await b.at("over"), 2000, text("CHANGED"));
      await b.write(1, "next", text("behind it"));
      if (size < 600_000) b = await b.crash();
      await a.write(1, "f", big(9, size));
      await quiet([a]);
      await collect(server);
      await b.link.connect();
      await quiet([a, b]);
      assert.equal(await a.text("next"), "behind it");
      assert.deepEqual(await a.read(await a.at("f")), big(9, size));
      const changed = cached === "all of it" ? big(7, size) : new Uint8Array(size);
      changed.set(text("CHANGED"), 2000);
      if (cached === "all of it") {
        assert.deepEqual((await a.names()).sort(), ["copy", "f", "next", "over"]);
        assert.deepEqual(await a.read(await a.at("copy")), big(7, size));
        assert.deepEqual(await a.read(await a.at("over")), changed);
      } else {
        const partial = (await a.names()).filter((name) => / partial( \d)?\)$/.test(name));
        const found = await Promise.all(partial.map(async (name) => await a.read(await a.at(name))));
        assert.equal(await a.text("over"), "replaced");
        assert.ok(found.some((bytes) => bytes.toHex() === changed.toHex()), "what was changed of it is there");
      }
      assert.deepEqual([...await a.tree()].sort(), [...await b.tree()].sort(), "both show the same");
      await a.stop();
      await b.stop();
      await server.index.close();
    });
  }
}

for (const policy of ["keep-both", "client-wins", "server-wins"] as const) {
  for (const crash of [false, true]) {
    Deno.test(
      {
        name: `${policy}: a copy over what another changed is kept like a write${crash ? ", after a kill" : ""}`,
        ...unchecked,
      },
      () =>
        house(policy, async (h) => {
          await h.b.link.connect();
          await h.b.write(1, "g", text("of b, to be copied"));
          await quiet([h.a, h.b]);
          h.b.link.disconnect();
          await h.b.copy(await h.b.at("g"), 1, "made");
          await h.b.copy(await h.b.at("g"), 1, "f");
          await h.a.write(1, "f", text("of a"));
          if (crash) h.b = await h.b.crash();
          await heal(h);
          const ours = policy === "client-wins" ? "of b, to be copied" : "of a";
          const other = policy === "client-wins" ? "of a" : "of b, to be copied";
          assert.equal(await h.a.text("f"), ours);
          assert.equal(await h.a.text("made"), "of b, to be copied");
          const [copy] = await conflictCopies(h.a);
          if (policy === "keep-both") assert.equal(await h.a.text(copy ?? ""), other);
          else assert.deepEqual(await aside(h.a), [other]);
        }),
    );
  }
}

Deno.test(
  { name: "a copy over what another removed brings the file back", ...unchecked },
  () =>
    house("keep-both", async (h) => {
      await h.b.link.connect();
      await h.b.write(1, "g", text("of b"));
      await quiet([h.a, h.b]);
      h.b.link.disconnect();
      await h.b.copy(await h.b.at("g"), 1, "f");
      await h.a.fs.unlink(1, "f", caller);
      await heal(h);
      assert.equal(await h.a.text("f"), "of b");
    }),
);

/** b, offline, copied g and then perhaps h over f; all of them are files of a that b has read. */
async function copiers(policy: ConflictPolicy, test: (h: House) => Promise<void>): Promise<void> {
  const server = new FakeServer();
  const a = await SimDevice.open({ server, name: "a", pool, policy });
  const b = await SimDevice.open({ server, name: "b", pool, policy });
  for (const name of ["f", "g", "h"]) await a.write(1, name, text(`what ${name} has`));
  await quiet([a, b]);
  for (const name of ["f", "g", "h"]) await b.text(name);
  await b.names();
  b.link.disconnect();
  await b.copy(await b.at("g"), 1, "f");
  const h = { server, a, b };
  await test(h);
  await a.stop();
  await h.b.stop();
  await server.index.close();
}
/** The server knows nothing any more of what g was when it was copied. */
async function forgetG({ server, a }: House): Promise<void> {
  await a.write(1, "g", text("another g"));
  await quiet([a]);
  await collect(server);
}
async function copyOf(d: SimDevice): Promise<string | null> {
  const [name = ""] = await conflictCopies(d);
  return await d.text(name);
}

for (const refused of [true, false]) {
  const why = refused ? "the first is refused" : "the server has forgotten what the first was";
  Deno.test(
    { name: `two copies over one file: the second counts, with what is written into it, though ${why}`, ...unchecked },
    () =>
      copiers("keep-both", async (h) => {
        const { a, b } = h;
        await b.copy(await b.at("h"), 1, "f");
        const f = await b.at("f");
        const { fh } = await b.fs.open(f, 2, caller);
        await b.fs.write(f, fh, 0, text("WROTE"), { killSuidgid: false, fromCache: false });
        if (refused) await a.write(1, "f", text("of a"));
        else await forgetG(h);
        await heal(h);
        if (!refused) assert.equal(await a.text("f"), "what h has");
        await b.fs.flush(f, fh, 0n);
        b.fs.release(f, fh, 0n, false);
        await quiet([a, b]);
        assert.equal(await a.text("f"), refused ? "of a" : "WROTEh has");
        assert.equal(await copyOf(a), refused ? "WROTEh has" : null);
      }),
  );
}

Deno.test(
  { name: "a copy whose settlement is cut off is what it was, also for what is written into it then", ...unchecked },
  () =>
    copiers("keep-both", async (h) => {
      const { a, b } = h;
      await a.write(1, "f", text("of a, which is longer"));
      await quiet([a]);
      const cut = Promise.withResolvers<void>();
      b.link.before = (method) => {
        const settling = b.log.some((line) => line.startsWith("conflict: content"));
        if (!settling || (method !== "stat" && method !== "lookup")) return Promise.resolve();
        b.link.disconnect();
        cut.resolve();
        return Promise.reject(new FsError("unavailable", "cut"));
      };
      const alive = setInterval(() => {}, 1000);
      await b.link.connect();
      await cut.promise;
      await b.patch(await b.at("f"), 0, text("PATCH"));
      h.b = await b.crash(false);
      clearInterval(alive);
      assert.equal(await h.b.text("f"), "PATCHg has");
      await heal(h);
      assert.equal(await a.text("f"), "of a, which is longer");
      assert.equal(await copyOf(a), "PATCHg has");
    }),
);

Deno.test(
  {
    name: "client-wins: a copy settled against what is undone meanwhile is delivered, and settled no more",
    ...unchecked,
  },
  () =>
    copiers("client-wins", async (h) => {
      const { a, b } = h;
      await a.write(1, "f", text("of a"));
      await quiet([a]);
      const cut = Promise.withResolvers<void>();
      b.link.before = (method) => {
        if (method !== "apply" || !b.log.some((line) => line.startsWith("both versions"))) return Promise.resolve();
        b.link.disconnect();
        cut.resolve();
        return Promise.reject(new FsError("unavailable", "cut"));
      };
      const alive = setInterval(() => {}, 1000);
      await b.link.connect();
      await cut.promise;
      b.link.before = () => Promise.resolve();
      clearInterval(alive);
      await a.write(1, "f", text("what f has"));
      await heal(h);
      assert.equal(await a.text("f"), "what g has");
      assert.ok(b.log.filter((line) => line.startsWith("conflict")).length < 5, b.log.join("\n"));
    }),
);

Deno.test(
  {
    name: "what was copied over and then removed is removed, though the server has forgotten the copied bytes",
    ...unchecked,
  },
  () =>
    copiers("keep-both", async (h) => {
      await h.b.fs.unlink(1, "f", caller);
      await forgetG(h);
      await heal(h);
      assert.deepEqual(await h.a.names(), ["g", "h"]);
    }),
);

for (const [wrote, forgotten] of [[false, true], [true, true], [true, false]] as const) {
  const then = wrote ? " and written into" : "";
  const why = forgotten ? "the server has forgotten" : "is refused";
  Deno.test(
    { name: `what is copied over${then} while an earlier copy that ${why} is settled counts`, ...unchecked },
    () =>
      copiers("client-wins", async (h) => {
        const { a, b } = h;
        if (forgotten) await forgetG(h);
        else {
          await a.write(1, "f", text("of a"));
          await quiet([a]);
        }
        let [copied, patched] = [false, !wrote];
        b.link.before = async (method) => {
          if (method === "stat" && !copied && b.log.some((line) => line.startsWith("conflict: content"))) {
            copied = true;
            await b.copy(await b.at("h"), 1, "f");
          } else if (method === "apply" && copied && !patched) {
            patched = true;
            await b.patch(await b.at("f"), 0, text("PATCH"));
          }
        };
        await heal(h);
        assert.ok(copied && patched);
        const expected = wrote ? "PATCHh has" : "what h has";
        assert.equal(await a.text("f"), expected);
        assert.equal(await b.text("f"), expected);
      }),
  );
}

Deno.test({
  name: "a forgotten copy of which not even the name is known any more is settled once",
  ...unchecked,
}, async () => {
  const server = new FakeServer();
  const a = await SimDevice.open({ server, name: "a", pool });
  const b = await SimDevice.open({ server, name: "b", pool });
  const { ino: dir } = await a.fs.mkdir(1, "dir", 0o755, caller);
  for (const name of ["f", "g"]) await a.write(dir, name, text(`what ${name} has`));
  await quiet([a, b]);
  await b.tree();
  for (const name of ["f", "g"]) await b.text("dir", name);
  b.link.disconnect();
  await b.copy(await b.at("dir", "g"), dir, "f");
  await a.write(dir, "g", text("another g"));
  await quiet([a]);
  await collect(server);
  // So long away that all is asked for anew.
  const { resumeFrom } = b.link;
  b.link.resumeFrom = () => ({ ...resumeFrom(), after: null });
  await b.link.connect();
  await quiet([a, b]);
  assert.equal(await a.text("dir", "f"), "what g has");
  assert.deepEqual(await a.names(), ["dir"]);
  await a.stop();
  await b.stop();
  await server.index.close();
});

Deno.test(
  { name: "a later copy that is given up by hand takes no earlier one with it", ...unchecked },
  () =>
    copiers("keep-both", async (h) => {
      const { a, b } = h;
      await b.copy(await b.at("h"), 1, "f");
      await a.write(1, "f", text("of a"));
      await quiet([a]);
      const cut = Promise.withResolvers<void>();
      b.link.before = (method) => {
        const settling = b.log.some((line) => line.startsWith("conflict: content"));
        if (!settling || (method !== "stat" && method !== "lookup")) return Promise.resolve();
        b.link.disconnect();
        cut.resolve();
        return Promise.reject(new FsError("unavailable", "cut"));
      };
      const alive = setInterval(() => {}, 1000);
      await b.link.connect();
      await cut.promise;
      // The settlement ends.
      await new Promise((resolve) => setTimeout(resolve, 50));
      b.link.before = () => Promise.resolve();
      clearInterval(alive);
      b.fs.dropJournal(b.fs.journal().items.at(-1)?.id ?? 0);
      await heal(h);
      assert.equal(await a.text("f"), "of a");
      assert.equal(await copyOf(a), "what g has");
    }),
);

for (const policy of ["keep-both", "client-wins"] as const) {
  Deno.test(
    {
      name: `${policy}: a forgotten copy does not come after what was written later, by the last writer too`,
      ...unchecked,
    },
    () =>
      copiers(policy, async (h) => {
        const { a, b } = h;
        await b.link.connect();
        await quiet([a, b]);
        assert.equal(await a.text("f"), "what g has");
        b.link.disconnect();
        await b.copy(await b.at("g"), 1, "h");
        await b.copy(await b.at("g"), 1, "f");
        await b.write(1, "h", text("newest h"));
        await a.write(1, "f", text("of a"));
        await forgetG(h);
        await heal(h);
        assert.equal(await a.text("h"), "newest h");
        assert.deepEqual(await aside(a), policy === "client-wins" ? ["of a"] : []);
        assert.equal((await a.names()).length, 4);
      }),
  );
}

Deno.test(
  { name: "two who remove one of two names each do not remove the file", ...unchecked },
  () =>
    house("keep-both", async (h) => {
      await h.b.link.connect();
      await h.a.fs.link(await h.a.at("f"), 1, "g", caller);
      await quiet([h.a, h.b]);
      h.b.link.disconnect();
      await h.a.fs.unlink(1, "f", caller);
      await h.b.fs.unlink(1, "g", caller);
      await heal(h);
      assert.equal(await h.a.text("g"), "base");
    }),
);

Deno.test({
  name: "what was removed before its bytes travelled is no conflict after a kill between the two",
  ...unchecked,
}, async () => {
  const server = new FakeServer();
  let a = await SimDevice.open({ server, name: "a", pool });
  await a.names();
  a.link.disconnect();
  await a.write(1, "journal", text("hot"));
  await a.write(1, "over", text("old"));
  // More than travels together.
  for (let i = 0; i < 100; i++) await a.fs.mkdir(1, `dir ${i}`, 0o755, caller);
  await a.fs.unlink(1, "journal", caller);
  await a.write(1, "tmp", text("new"));
  await a.fs.rename(1, "tmp", 1, "over", 0, caller);
  await a.write(1, "journal", text("next"));
  let sent = 0;
  a.link.before = (method) => method === "apply" && ++sent > 1 ? new Promise(() => {}) : Promise.resolve();
  let applied = 0;
  a.link.after = (method) => {
    if (method === "apply" && ++applied === 1) a.link.disconnect();
  };
  await a.link.connect();
  for (let i = 0; i < 500 && applied === 0; i++) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.ok(await server.index.lookup(1, "journal"), "the first half of it is there");
  a = await a.crash();
  await a.link.connect();
  await quiet([a]);
  assert.deepEqual(a.log.filter((line) => /conflict|both versions/.test(line)), []);
  assert.equal((await a.names()).length, 102);
  assert.equal(await a.text("over"), "new");
  assert.equal(await a.text("journal"), "next");
  await a.stop();
  await server.index.close();
});

/** The replica writes what it has at once: as if reading the journal took longer than it waits for that. */
const eager: Clock = {
  ...systemClock,
  after: (ms, run, idle) => {
    if (ms !== 100) return systemClock.after(ms, run, idle);
    let wanted = true;
    queueMicrotask(() => wanted && run());
    return () => wanted = false;
  },
};
for (const [how, clock] of [["", systemClock], [", however long the journal takes to read", eager]] as const) {
  Deno.test({
    name:
      `what was journaled is not done again on a replica that has it already: nothing removed comes back after a kill${how}`,
    ...unchecked,
  }, async () => {
    const server = new FakeServer();
    let a = await SimDevice.open({ server, name: "a", pool, clock });
    await a.names();
    a.link.disconnect();
    const first = await a.write(1, "f", text("first"));
    await a.write(1, "tmp", text("second"));
    await a.fs.rename(1, "tmp", 1, "f", 0, caller);
    await a.fs.unlink(1, "f", caller);
    const twice = await a.write(1, "twice", text("two names"));
    await a.fs.link(twice, 1, "other", caller);
    await a.fs.setattr(twice, { mode: 0o600 }, undefined, caller);
    await a.patch(twice, 0, text("TWO"));
    await a.fs.create(1, "tmp", 0o644, 2, caller);
    const names = await a.names();
    assert.ok(!names.includes("f"));
    // The replica writes what it has within a tenth of a second.
    await new Promise((resolve) => setTimeout(resolve, 300));
    a = await a.crash();
    assert.deepEqual(await a.names(), names);
    assert.equal(await a.text("twice"), "TWO names");
    const stat = await a.fs.getattr(twice, undefined);
    assert.deepEqual([stat.nlink, stat.mode & 0o7777], [2, 0o600]);
    await a.link.connect();
    await quiet([a]);
    assert.equal(await server.index.stat(first), null);
    assert.deepEqual((await a.names()).sort(), [...names].sort());
    assert.equal((await server.index.stat(twice))?.nlink, 2);
    await a.stop();
    await server.index.close();
  });
}

Deno.test({
  name: "what the server made of a file before a kill is never guessed: whatever came of the bytes, they are all there",
  ...unchecked,
}, async () => {
  for (const applied of [2, 3]) {
    for (const how of ["without the bytes", "cut otherwise"]) {
      const server = new FakeServer();
      let a = await SimDevice.open({ server, name: "a", pool });
      const expected = crypto.getRandomValues(new Uint8Array(65_536)).toHex().repeat(8);
      const bytes = text(expected);
      const ino = await a.write(1, "f", bytes);
      await a.names();
      await quiet([a]);
      a.link.disconnect();
      let then = bytes;
      for (const [n, at] of [10_000, 300_000, 600_000].entries()) {
        await a.patch(ino, at, text(`patch ${n}`));
        bytes.set(text(`patch ${n}`), at);
        if (n + 1 !== applied) continue;
        then = bytes.slice();
        // More than travels together: what was applied is let go of before the rest is made ready.
        for (let i = 0; i < 600; i++) await a.fs.mkdir(1, `dir ${i}`, 0o755, caller);
      }
      const writes = a.fs.journal().items.filter(({ what }) => what === "write");
      const request = writes[applied - 1]?.id ?? 0;
      assert.ok(request > 0);
      const { no } = await server.index.device("a", "a");
      if (how === "cut otherwise") {
        const chunks = Array.from({ length: Math.ceil(then.length / 50_000) }, (_, i) => {
          const piece = then.slice(i * 50_000, (i + 1) * 50_000);
          return { hash: sha256(piece), bytes: piece, length: piece.length };
        });
        await server.put(chunks);
        const { hash, blob } = encodeManifest(chunks);
        const time = { sec: 1e9, nsec: 0 };
        const op = { t: "content" as const, ino, base: null, content: hex(hash), size: then.length, time };
        await server.index.apply({ device: no, request, manifests: [blob], ops: [op] });
      } else if (applied === 2) await server.index.apply({ device: no, request, manifests: [], ops: [] });
      a = await a.crash();
      let sent = 0;
      a.link.before = (method) => method === "apply" && ++sent > 2 ? systemClock.sleep(100) : Promise.resolve();
      await a.link.connect();
      await quiet([a]);
      await a.patch(ino, 450_000, text("one more"));
      bytes.set(text("one more"), 450_000);
      await quiet([a]);
      assert.deepEqual(a.log.filter((line) => /conflict|both versions|gone/.test(line)), [], `${how} ${applied}`);
      assert.equal((await a.names()).length, 601);
      assert.equal(new TextDecoder().decode(await a.read(ino)), new TextDecoder().decode(bytes), `${how} ${applied}`);
      const there = await server.content((await server.index.stat(ino))?.content ?? null);
      assert.equal(new TextDecoder().decode(there), new TextDecoder().decode(bytes), `${how} ${applied}`);
      await a.stop();
      await server.index.close();
    }
  }
});

Deno.test(
  {
    name: "a name that ours gave up is theirs here too, also when that is heard after ours is delivered",
    ...unchecked,
  },
  () =>
    house("keep-both", async (h) => {
      await h.a.write(1, "g", text("of a"));
      await h.a.fs.rename(1, "g", 1, "f", 0, caller);
      await quiet([h.a]);
      const ino = await h.b.at("f");
      await h.b.patch(ino, 0, text("of b"));
      const late = Promise.withResolvers<void>();
      h.b.link.newsAfter = late.promise;
      void h.b.link.connect();
      const alive = setInterval(() => {}, 1000);
      assert.ok(await h.b.fs.drain(5000));
      late.resolve();
      clearInterval(alive);
      await heal(h);
      assert.equal(await h.b.text("f"), "of a");
    }),
);

for (
  const [how, put] of [
    ["moved into", (b: SimDevice, dir: number) => b.fs.rename(1, "f", dir, "x", 0, caller)],
    ["made in", (b: SimDevice, dir: number) => b.write(dir, "x", text("of b"))],
  ] as const
) {
  Deno.test(
    {
      name: `client-wins: what was ${how} a folder that another one replaced has its name here as it has there`,
      ...unchecked,
    },
    () =>
      house("client-wins", async (h) => {
        const other = (await h.a.fs.mkdir(1, "other", 0o755, caller)).ino;
        await h.a.write(other, "x", text("of a"));
        await h.b.link.connect();
        await quiet([h.a, h.b]);
        await h.b.tree();
        h.b.link.disconnect();
        await put(h.b, await h.b.at("dir"));
        await h.a.fs.rename(1, "other", 1, "dir", 0, caller);
        await heal(h);
        assert.equal(await h.b.text("dir", "x"), how === "made in" ? "of b" : "base");
        assert.deepEqual(await aside(h.b), ["of a"]);
      }),
  );
}

for (const policy of ["keep-both", "server-wins", "client-wins", "newer", "manual"] as const) {
  for (const kill of [false, true]) {
    const how = `${policy}${kill ? ", with a kill after the first was given up" : ""}`;
    Deno.test(
      { name: `what others wrote outlives several writes of ours to a file that we removed (${how})`, ...unchecked },
      () =>
        house(policy, async (h) => {
          const { b } = h;
          await b.write(1, "f", text("ours"));
          // What is uploaded parts the two: they travel by themselves.
          await b.write(1, "big", new Uint8Array(300_000).fill(7));
          await b.write(1, "f", text("ours too"));
          await b.fs.unlink(1, "f", caller);
          await new Promise((resolve) => setTimeout(resolve, 20));
          await h.a.write(1, "f", text("theirs"));
          if (kill) {
            await quiet([h.a]);
            const givenUp = () => b.log.some((line) => line.startsWith("conflict: write"));
            b.link.before = (method) => method === "apply" && givenUp() ? new Promise(() => {}) : Promise.resolve();
            await b.link.connect();
            for (let i = 0; i < 500 && !givenUp(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
            assert.ok(givenUp());
            await new Promise((resolve) => setTimeout(resolve, 100));
            h.b = await b.crash(false);
          }
          await heal(h);
          if (policy === "client-wins") assert.deepEqual(await aside(h.a), ["theirs"]);
          else assert.equal(await h.a.text("f"), "theirs");
        }),
    );
  }
}

Deno.test(
  {
    name: "what we wrote and gave one of two names of, the other of which others removed, is kept beside",
    ...unchecked,
  },
  async () => {
    const server = new FakeServer();
    const a = await SimDevice.open({ server, name: "a", pool });
    const b = await SimDevice.open({ server, name: "b", pool });
    const ino = await a.write(1, "f", text("base"));
    await a.fs.link(ino, 1, "other", caller);
    await quiet([a, b]);
    assert.equal(await b.text("f"), "base");
    await b.tree();
    b.link.disconnect();
    await b.write(1, "f", text("ours"));
    await a.write(1, "f", text("theirs"));
    await a.fs.unlink(1, "other", caller);
    await b.fs.unlink(1, "f", caller);
    assert.equal(await b.text("other"), "ours");
    await heal({ server, a, b });
    const texts = await Promise.all((await a.names()).map((name) => a.text(name)));
    assert.deepEqual(texts.sort(), ["ours", "theirs"]);
    for (const d of [a, b]) await d.stop();
    await server.index.close();
  },
);

for (const policy of ["keep-both", "server-wins", "client-wins", "newer", "manual"] as const) {
  Deno.test(
    { name: `others wrote what we wrote and replaced: nothing is set aside of that (${policy})`, ...unchecked },
    () =>
      house(policy, async (h) => {
        for (const words of ["", "the same", "ours", "ours too"]) await h.b.write(1, "f", text(words));
        await h.a.write(1, "f", text("the same"));
        await heal(h);
        assert.equal(await h.a.text("f"), "ours too");
        assert.deepEqual(await h.b.names(), ["dir", "f"]);
        assert.deepEqual(await h.b.tree(), await serverTree(h.server));
      }),
  );
}

Deno.test(
  {
    name: "what is given up leaves no name behind, though a kill comes before the server was asked about it",
    ...unchecked,
  },
  () =>
    house("keep-both", async (h) => {
      const { b } = h;
      const { ino: folder } = await b.fs.mkdir(1, "q", 0o755, caller);
      await b.fs.rename(1, "f", folder, "x", 0, caller);
      await h.a.fs.unlink(1, "f", caller);
      await quiet([h.a]);
      await b.link.connect();
      const settled = () =>
        b.log.some((line) => line.startsWith("conflict: rename")) && b.fs.status().pending.records === 0;
      for (let i = 0; i < 1000 && !settled(); i++) await new Promise((resolve) => setTimeout(resolve, 1));
      assert.ok(settled());
      h.b = await b.crash();
      await quiet([h.a, h.b]);
      assert.deepEqual(await h.b.tree(), await serverTree(h.server));
    }),
);

Deno.test(
  { name: "what is heard while a conflict is settled is not undone by an answer from before it", ...unchecked },
  () =>
    house("manual", async (h) => {
      const { a, b } = h;
      await b.write(1, "tmp", text("ours"));
      await b.fs.rename(1, "tmp", 1, "f", 0, caller);
      await a.fs.unlink(1, "f", caller);
      await a.write(1, "f", text("theirs"));
      const call = b.link.call.bind(b.link);
      let changed = false;
      b.link.call = async (method, params) => {
        const answer = await call(method, params);
        if (method === "lookup" && (params as { name: string }).name === "f" && !changed) {
          changed = true;
          await a.fs.rename(1, "f", 1, "moved", 0, caller);
          await a.write(1, "moved", text("theirs, later"));
          await quiet([a]);
          await b.link.told();
        }
        return answer;
      };
      await heal(h);
      assert.ok(changed);
      assert.equal(await b.text("moved"), "theirs, later");
      assert.deepEqual(await aside(a), ["ours"]);
    }),
);

Deno.test({ name: "close the pool", sanitizeOps: false, sanitizeResources: false }, () => pool.close());
