/** Pages read as one row against the same entries read one by one. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { decodeName } from "../fs/names.ts";
import type { ListedEntry, Stat } from "../fs/stat.ts";
import { openDatabase } from "../platform/sqlite.ts";
import { migrate } from "./schema.ts";
import { Statements } from "./statements.ts";
import { blankStat, Tree } from "./tree.ts";

const FOLDER = 7;

function openTree(): { tree: Tree; close(): void } {
  const db = openDatabase(":memory:");
  migrate(db, ":memory:");
  const tree = new Tree(new Statements(db), { entry: () => {}, node: () => {}, contentRef: () => {} });
  return { tree, close: () => db.close() };
}

/** What stat(2) tells, of an entry that was read by itself. */
function attributes({ name, stat }: { name: string; stat: Stat }): ListedEntry {
  const { btimeSec: _1, btimeNsec: _2, version: _3, content: _4, tiers: _5, xattrs: _6, ...attr } = stat;
  return { name, stat: { ...attr, holes: stat.holes ?? 0 } };
}

const seconds = fc.integer({ min: -(2 ** 40), max: 2 ** 40 });
const nanoseconds = fc.nat(999_999_999);
const word = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const whole = fc.maxSafeNat();
const node = fc.record({
  ino: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 2 ** 32, max: 2 ** 52 })),
  mode: fc.nat(0o177777),
  nlink: word,
  uid: word,
  gid: word,
  rdev: word,
  size: whole,
  holes: whole,
  atimeSec: seconds,
  atimeNsec: nanoseconds,
  mtimeSec: seconds,
  mtimeNsec: nanoseconds,
  ctimeSec: seconds,
  ctimeNsec: nanoseconds,
  content: fc.constantFrom(null, "ab".repeat(32)),
});
/** Any bytes a Linux name may have, the odd ones often. */
const byte = fc.oneof(
  fc.integer({ min: 1, max: 255 }).filter((b) => b !== 0x2f),
  fc.constantFrom(0x0a, 0x22, 0x2c, 0x2e, 0x30, 0x5c, 0x61, 0xc3, 0xa9, 0xed, 0xf0, 0x9f, 0x98, 0x80, 0xff),
);
const name = fc.array(byte, { minLength: 1, maxLength: 12 }).map((bytes) => decodeName(Uint8Array.from(bytes)));
/** A name without a node, which a replica may have for a while, is in no listing. */
const entry = fc.record({ name, node, known: fc.integer({ min: 0, max: 3 }).map((n) => n > 0) });

Deno.test("a listing in pages of any size has the same names and attributes as entries read one by one", () => {
  fc.assert(fc.property(
    fc.array(entry, { maxLength: 40 }),
    fc.integer({ min: 1, max: 50 }),
    (entries, limit) => {
      const { tree, close } = openTree();
      try {
        for (const { name, node, known } of entries) {
          if (known) tree.put({ ...blankStat(node.ino, 0, { sec: 0, nsec: 0 }), ...node });
          tree.putEntry(FOLDER, name, known ? node.ino : 2 ** 52 + 1);
          tree.putEntry(FOLDER + 1, name, 1);
        }
        const expected = tree.readDir(FOLDER, null, 1000).map(attributes);
        const listed: ListedEntry[] = [];
        for (;;) {
          const after = listed.at(-1)?.name ?? null;
          const page = tree.list(FOLDER, after, limit);
          assert.ok(page.length <= limit);
          assert.deepEqual(
            tree.listNames(FOLDER, after, limit),
            page.map(({ name, stat: { ino, mode } }) => ({ name, stat: { ino, mode } })),
          );
          if (page.length === 0) break;
          listed.push(...page);
        }
        assert.deepEqual(listed, expected);
      } finally {
        close();
      }
    },
  ));
});

Deno.test("names without a node, more than a page of them, do not end a listing", () => {
  const { tree, close } = openTree();
  tree.put(blankStat(3, 0o100644, { sec: 1, nsec: 2 }));
  for (let i = 0; i < 25; i++) tree.putEntry(FOLDER, `gone ${i}`, 1000 + i);
  tree.putEntry(FOLDER, "last", 3);
  assert.deepEqual(tree.list(FOLDER, null, 10).map(({ name }) => name), ["last"]);
  assert.deepEqual(tree.listNames(FOLDER, null, 10).map(({ name }) => name), ["last"]);
  assert.deepEqual(tree.list(FOLDER, "last", 10), []);
  assert.deepEqual(tree.listNames(FOLDER, "last", 10), []);
  close();
});

Deno.test("a name that no folder can have gives no other entry another's attributes", () => {
  const { tree, close } = openTree();
  for (const [ino, name] of [[2, "a"], [3, "b/c"], [4, "d"]] as const) {
    tree.put(blankStat(ino, 0o100644, { sec: ino, nsec: 0 }));
    tree.putEntry(FOLDER, name, ino);
  }
  const expected = [["a", 2], ["b/c", 3], ["d", 4]];
  assert.deepEqual(tree.list(FOLDER, null, 10).map(({ name, stat }) => [name, stat.ino]), expected);
  assert.deepEqual(tree.listNames(FOLDER, null, 10).map(({ name, stat }) => [name, stat.ino]), expected);
  close();
});
