/** The tree against a small model, operation by operation, and the corners that a model would only repeat. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { FsError, hasCode } from "../fs/error.ts";
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from "../fs/stat.ts";
import { LINK_MAX, type Op, ROOT_INO } from "./ops.ts";
import type { SqliteIndex } from "./sqlite_index.ts";
import { ModelTree } from "./testing/model_tree.ts";
import { openIndex, TIME } from "./testing/open_index.ts";

type Step = {
  op: "mkdir" | "create" | "unlink" | "rmdir" | "link" | "rename";
  a: number;
  b: number;
  n: number;
  m: number;
  flags: number;
};

const NAMES = ["a", "b", "B", "a%_", "\udcff"];
const step: fc.Arbitrary<Step> = fc.record({
  op: fc.constantFrom(
    "mkdir" as const,
    "mkdir" as const,
    "create" as const,
    "unlink" as const,
    "rmdir" as const,
    "link" as const,
    "rename" as const,
    "rename" as const,
  ),
  a: fc.nat(7),
  b: fc.nat(7),
  n: fc.nat(NAMES.length - 1),
  m: fc.nat(NAMES.length - 1),
  flags: fc.constantFrom(0, 0, 0, 1, 2),
});

const apply = async (index: SqliteIndex, ...ops: Op[]) =>
  (await index.apply({ device: 0, request: 0, manifests: [], ops })).value;

/** Runs one step on both; they must agree on the outcome. */
async function both(index: SqliteIndex, model: ModelTree, inos: number[], s: Step): Promise<void> {
  const pick = (i: number) => inos[i % inos.length] ?? ROOT_INO;
  const name = NAMES[s.n] ?? "a";
  const newName = NAMES[s.m] ?? "a";
  const [x, y] = [pick(s.a), pick(s.b)];
  let expected: string | null = null;
  const isNew = s.op === "mkdir" || s.op === "create";
  const ino = isNew ? await index.allotIno() : 0;
  try {
    if (isNew) model.create(x, name, s.op === "mkdir", ino);
    else if (s.op === "unlink") model.unlink(x, name);
    else if (s.op === "rmdir") model.rmdir(x, name);
    else if (s.op === "link") model.link(y, x, name);
    else model.rename(x, name, y, newName, s.flags === 1, s.flags === 2);
    if (isNew) inos.push(ino);
  } catch (error) {
    expected = error instanceof Error ? error.message : String(error);
  }
  const time = TIME;
  const op: Op = isNew
    ? {
      t: "create",
      parent: x,
      name,
      ino,
      mode: (s.op === "mkdir" ? S_IFDIR : S_IFREG) | 0o644,
      uid: 0,
      gid: 0,
      rdev: 0,
      time,
    }
    : s.op === "link"
    ? { t: "link", ino: y, parent: x, name, time }
    : s.op === "rename"
    ? { t: "rename", parent: x, name, newParent: y, newName, flags: s.flags, ino: 0, time }
    : { t: s.op === "rmdir" ? "rmdir" : "unlink", parent: x, name, ino: 0, time };
  let actual: string | null = null;
  try {
    await apply(index, op);
  } catch (error) {
    actual = error instanceof FsError ? error.code : String(error);
  }
  assert.equal(actual, expected, JSON.stringify(op));
}

async function assertSame(index: SqliteIndex, model: ModelTree): Promise<void> {
  for (const [ino, node] of model.nodes) {
    const stat = await index.stat(ino);
    assert.ok(stat, `node ${ino} is missing`);
    assert.equal(stat.nlink, node.nlink, `nlink of ${ino}`);
    if (!node.folder) continue;
    const listed = await index.readDir(ino, null, 1000);
    assert.deepEqual(
      new Map(listed.map((entry) => [entry.name, entry.stat.ino])),
      new Map([...node.entries].sort()),
    );
  }
  assert.equal((await index.counts()).nodes, model.nodes.size);
}

Deno.test("a tree does what a POSIX tree does, whatever the order of operations", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 60 }), async (steps) => {
      const index = openIndex();
      const model = new ModelTree();
      const inos = [ROOT_INO];
      for (const s of steps) await both(index, model, inos, s);
      await assertSame(index, model);
      assert.deepEqual(await index.check(), []);
      await index.close();
    }),
    { numRuns: 60 },
  );
});

const file = (parent: number, name: string, ino = 0): Op => ({
  t: "create",
  parent,
  name,
  ino,
  mode: S_IFREG | 0o644,
  uid: 0,
  gid: 0,
  rdev: 0,
  time: TIME,
});

Deno.test("operations of one request are applied all or none", async () => {
  const index = openIndex();
  await assert.rejects(apply(index, file(ROOT_INO, "x"), file(ROOT_INO, "x")), (e) => hasCode(e, "already_exists"));
  assert.equal(await index.lookup(ROOT_INO, "x"), null);
  assert.deepEqual(await index.changesSince(0, 10), []);
  await index.close();
});

Deno.test("bug 7: a listing is by folder, so % and _ in names, prefixes and letter case confuse nothing", async () => {
  const index = openIndex();
  const foo = (await apply(index, { ...file(ROOT_INO, "foo"), mode: S_IFDIR | 0o755 } as Op)).done[0]?.ino ?? 0;
  const Foo = (await apply(index, { ...file(ROOT_INO, "Foo"), mode: S_IFDIR | 0o755 } as Op)).done[0]?.ino ?? 0;
  await apply(
    index,
    { ...file(ROOT_INO, "foo%"), mode: S_IFDIR | 0o755 } as Op,
    file(foo, "a_b"),
    file(foo, "a%"),
    file(Foo, "axb"),
  );
  assert.deepEqual((await index.readDir(foo, null, 10)).map((e) => e.name), ["a%", "a_b"]);
  assert.deepEqual((await index.readDir(Foo, null, 10)).map((e) => e.name), ["axb"]);
  assert.deepEqual((await index.readDir(foo, "a%", 10)).map((e) => e.name), ["a_b"]);
  assert.deepEqual((await index.readDir(ROOT_INO, null, 10)).map((e) => e.name), ["Foo", "foo", "foo%"]);
  assert.deepEqual((await index.readDir(foo, null, 1)).map((e) => e.name), ["a%"]);
  await index.close();
});

Deno.test("an entry that names another file than the sender believes is a conflict", async () => {
  const index = openIndex();
  await apply(index, file(ROOT_INO, "x"));
  const op: Op = { t: "unlink", parent: ROOT_INO, name: "x", ino: 4711, time: TIME };
  await assert.rejects(apply(index, op), (e) => hasCode(e, "conflict"));
  assert.ok(await index.lookup(ROOT_INO, "x"));
  await index.close();
});

Deno.test("a file has at most LINK_MAX names", async () => {
  const index = openIndex();
  const { done } = await apply(index, file(ROOT_INO, "f"));
  const ino = done[0]?.ino ?? 0;
  const links = Array.from(
    { length: LINK_MAX - 1 },
    (_, i): Op => ({ t: "link", ino, parent: ROOT_INO, name: `l${i}`, time: TIME }),
  );
  await apply(index, ...links);
  await assert.rejects(
    apply(index, { t: "link", ino, parent: ROOT_INO, name: "one too many", time: TIME }),
    (e) => hasCode(e, "too_many_links"),
  );
  await index.close();
});

Deno.test("an access time only goes forward, is no change of the node, and none of one that is gone", async () => {
  const index = openIndex();
  const ino = (await apply(index, file(ROOT_INO, "f"))).done[0]?.ino ?? 0;
  const before = await index.stat(ino);
  assert.ok(before);
  const { seq } = await apply(index, { t: "atime", ino, atime: { sec: before.atimeSec + 5, nsec: 3 } });
  const read = { ...before, atimeSec: before.atimeSec + 5, atimeNsec: 3 };
  assert.deepEqual(await index.stat(ino), read);
  await apply(index, { t: "atime", ino, atime: { sec: before.atimeSec + 5, nsec: 2 } });
  await apply(index, { t: "atime", ino: 4711, atime: TIME });
  assert.deepEqual(await index.stat(ino), read);
  assert.equal((await apply(index, { t: "atime", ino, atime: TIME })).seq, seq);
  await index.close();
});

Deno.test("attributes, symlink targets and extended attributes are kept, times to the nanosecond", async () => {
  const index = openIndex();
  const link: Op = { ...file(ROOT_INO, "l"), mode: S_IFLNK | 0o777, target: "no/where\udcfe" } as Op;
  const ino = (await apply(index, link)).done[0]?.ino ?? 0;
  assert.equal(await index.readLink(ino), "no/where\udcfe");
  assert.equal((await index.stat(ino))?.size, 9);
  const f = (await apply(index, file(ROOT_INO, "f"))).done[0]?.ino ?? 0;
  const before = await index.stat(f);
  const attr: Op = { t: "attr", ino: f, mode: 0o4711, uid: 7, mtime: { sec: -5, nsec: 999_999_999 }, time: TIME };
  await apply(index, attr);
  const stat = await index.stat(f);
  assert.ok(stat && before);
  assert.equal(stat.mode, S_IFREG | 0o4711);
  assert.deepEqual([stat.uid, stat.gid, stat.mtimeSec, stat.mtimeNsec], [7, 0, -5, 999_999_999]);
  assert.equal(stat.version, before.version + 1);
  assert.equal(stat.mode & S_IFMT, S_IFREG);
  const value = Uint8Array.of(0, 1, 255);
  await apply(index, { t: "setxattr", ino: f, name: "user.a", value, flags: 0, time: TIME });
  await assert.rejects(
    apply(index, { t: "setxattr", ino: f, name: "user.a", value, flags: 1, time: TIME }),
    (e) => hasCode(e, "already_exists"),
  );
  assert.deepEqual(await index.getXattr(f, "user.a"), value);
  assert.deepEqual(await index.listXattr(f), ["user.a"]);
  await apply(index, { t: "removexattr", ino: f, name: "user.a", time: TIME });
  assert.equal(await index.getXattr(f, "user.a"), null);
  await apply(index, { t: "setxattr", ino: f, name: "user.b", value, flags: 0, time: TIME });
  await apply(index, { t: "unlink", parent: ROOT_INO, name: "f", ino: f, time: TIME });
  assert.deepEqual(await index.check(), []);
  await index.close();
});

Deno.test("an inode number is never given twice, not even after the node and the process are gone", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/index`;
  const seen = new Set<number>();
  for (let run = 0; run < 3; run++) {
    const index = openIndex({ path });
    for (let i = 0; i < 5; i++) {
      const ino = await index.allotIno();
      assert.ok(!seen.has(ino));
      seen.add(ino);
      await apply(index, file(ROOT_INO, "x", ino), { t: "unlink", parent: ROOT_INO, name: "x", ino, time: TIME });
    }
    await index.close();
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("a removal or a rename over a file says what it expects there: anything else is a conflict", async () => {
  const index = openIndex();
  const make = async (name: string) => (await apply(index, file(ROOT_INO, name))).done[0]?.ino ?? 0;
  const [f, g] = [await make("f"), await make("g")];
  const other = "ab".repeat(32);
  const unlink: Op = { t: "unlink", parent: ROOT_INO, name: "f", ino: f, baseContent: other, time: TIME };
  await assert.rejects(apply(index, unlink), (e) => hasCode(e, "conflict"));
  const rename = (overIno: number, overContent?: string | null): Op => ({
    t: "rename",
    parent: ROOT_INO,
    name: "g",
    newParent: ROOT_INO,
    newName: "f",
    flags: 0,
    ino: g,
    overIno,
    ...(overContent === undefined ? {} : { overContent }),
    time: TIME,
  });
  for (const op of [rename(0), rename(4711, null), rename(f, other)]) {
    await assert.rejects(apply(index, op), (e) => hasCode(e, "conflict"));
  }
  await assert.rejects(
    apply(index, { t: "unlink", parent: ROOT_INO, name: "f", ino: f, others: true, time: TIME }),
    (e) => hasCode(e, "conflict"),
  );
  // Another name of the file keeps its content.
  await apply(index, { t: "link", ino: f, parent: ROOT_INO, name: "f2", time: TIME }, unlink);
  await apply(index, {
    t: "rename",
    parent: ROOT_INO,
    name: "f2",
    newParent: ROOT_INO,
    newName: "f",
    flags: 0,
    ino: f,
    time: TIME,
  });
  await apply(index, rename(f, null));
  assert.deepEqual((await index.readDir(ROOT_INO, null, 10)).map((e) => [e.name, e.stat.ino]), [["f", g]]);
  await index.close();
});

Deno.test("a rename to a name of the same file leaves one name only when nothing was expected there", async () => {
  const index = openIndex();
  const rename = (name: string, newName: string, ino: number, overIno: number): Op => (
    { t: "rename", parent: ROOT_INO, name, newParent: ROOT_INO, newName, flags: 0, ino, overIno, time: TIME }
  );
  const names = async () => (await index.readDir(ROOT_INO, null, 10)).map((e) => e.name);
  const dir = (await apply(index, { ...file(ROOT_INO, "d"), mode: S_IFDIR | 0o755 } as Op)).done[0]?.ino ?? 0;
  await apply(index, file(dir, "inside"));
  await apply(index, rename("d", "d", dir, 4711));
  assert.equal((await index.readDir(dir, null, 10)).length, 1);
  const f = (await apply(index, file(ROOT_INO, "f"))).done[0]?.ino ?? 0;
  await apply(index, rename("f", "f", f, 0));
  await apply(index, { t: "link", ino: f, parent: ROOT_INO, name: "g", time: TIME });
  await apply(index, rename("f", "g", f, f));
  assert.deepEqual(await names(), ["d", "f", "g"]);
  await apply(index, rename("f", "g", f, 0));
  assert.deepEqual(await names(), ["d", "g"]);
  assert.equal((await index.stat(f))?.nlink, 1);
  await index.close();
});
