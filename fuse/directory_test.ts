/** Cookies of an open directory: nothing lost, nothing twice, whatever is asked for and whenever. */
import assert from "node:assert/strict";
import fc from "fast-check";
import type { ListedEntry, Stat } from "../core/fs/stat.ts";
import { Directory, PAGE_ENTRIES, type ReadPage } from "./directory.ts";

const entry = (name: string): ListedEntry => ({ name, stat: { ino: 1, mode: 0 } as Stat });
/** A directory both of whose pages come from `read`. */
const directoryOf = (read: ReadPage<ListedEntry>) => new Directory(1, read, read);
const names = (count: number): string[] => Array.from({ length: count }, (_, i) => `n${String(i).padStart(6, "0")}`);

/** Pages of at most `most` entries over a sorted list that may change. */
function source(list: string[], most = PAGE_ENTRIES) {
  return (after: string | null, limit: number): ListedEntry[] =>
    list.filter((name) => after === null || name > after).slice(0, Math.min(limit, most)).map(entry);
}

async function at(directory: Directory, index: number): Promise<string | undefined> {
  return await directory.load(index) ? directory.name(index)?.name : undefined;
}

Deno.test("entries are found by index in any order, also far ahead on a fresh handle and back on older pages", async () => {
  const list = names(PAGE_ENTRIES * 2 + 500);
  await fc.assert(fc.asyncProperty(fc.array(fc.nat(list.length + 10), { maxLength: 20 }), async (indexes) => {
    const directory = directoryOf(source(list));
    for (const index of indexes) assert.equal(await at(directory, index), list[index]);
  }));
});

Deno.test("a listing in pages of any size, answered at once or later, gives every entry once", async () => {
  for (const most of [1, 7, PAGE_ENTRIES]) {
    for (const late of [false, true]) {
      const list = names(50);
      const read = source(list, most);
      const directory = directoryOf(
        (after, limit) => late ? Promise.resolve(read(after, limit)) : read(after, limit),
      );
      const seen: string[] = [];
      for (let name; (name = await at(directory, seen.length)) !== undefined;) seen.push(name);
      assert.deepEqual(seen, list);
    }
  }
});

Deno.test("attributes are of the time they are asked for; entries are found by index in any order all the same", async () => {
  const list = names(60);
  const step = fc.record({ index: fc.nat(70), limit: fc.integer({ min: 1, max: 30 }), plain: fc.boolean() });
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
    let reads = 0;
    const read = source(list, 25);
    const directory = directoryOf((after, limit) => {
      reads++;
      return read(after, limit);
    });
    for (const { index, limit, plain } of steps) {
      const before = reads;
      const found = await (plain ? directory.load(index) : directory.loadNow(index, limit));
      assert.equal(found ? directory.name(index)?.name : undefined, list[index]);
      if (!plain) assert.equal(directory.entry(index)?.name, list[index]);
      if (!plain) assert.ok(reads > before);
    }
  }));
});

Deno.test("what is removed while a listing goes on costs no other entry its place", async () => {
  const list = names(PAGE_ENTRIES * 3);
  const all = [...list];
  const directory = directoryOf(source(list));
  const seen: string[] = [];
  for (let name; (name = await at(directory, seen.length)) !== undefined;) {
    seen.push(name);
    list.splice(list.indexOf(name), 1);
  }
  assert.deepEqual(seen, all);
  assert.equal(list.length, 0);
});

Deno.test("seeking back into a page that has become shorter ends, it doesn't loop", async () => {
  const list = names(30);
  const directory = directoryOf(source(list, 10));
  for (let i = 0; i < 30; i++) await at(directory, i);
  list.splice(0, 25);
  assert.equal(await at(directory, 8), undefined);
});

Deno.test("rewinding shows the directory as it is now", async () => {
  const list = ["b"];
  const directory = directoryOf(source(list));
  assert.equal(await at(directory, 0), "b");
  list.unshift("a");
  assert.equal(await at(directory, 0), "b");
  directory.rewind();
  assert.equal(await at(directory, 0), "a");
  assert.equal(await at(directory, 1), "b");
});
