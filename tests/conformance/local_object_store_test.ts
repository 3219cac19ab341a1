/** The local store passes the suite of ObjectStore. */
import assert from "node:assert/strict";
import { openLocalObjectStore } from "../../backends/local/object_store.ts";
import { FsError } from "../../core/fs/error.ts";
import { testObjectStore } from "./object_store.ts";

testObjectStore("local", () =>
  Promise.resolve({
    async open() {
      const folder = await Deno.makeTempDir();
      return {
        store: await openLocalObjectStore({ folder }),
        async dispose() {
          const left = await Array.fromAsync(Deno.readDir(`${folder}/~unfinished`)).catch(() => []);
          assert.deepEqual(left, [], "unfinished files are left");
          await Deno.remove(folder, { recursive: true });
        },
      };
    },
  }));

Deno.test("the local object store takes a missing folder for an unmounted one, not for an empty one", async () => {
  const folder = `${await Deno.makeTempDir()}/nas`;
  await assert.rejects(
    openLocalObjectStore({ folder }),
    (error) => error instanceof FsError && error.code === "unavailable",
  );
  await Deno.mkdir(folder);
  const store = await openLocalObjectStore({ folder });
  await store.put("a/b", new Uint8Array(3));
  await Deno.remove(folder, { recursive: true });
  const gone = (error: unknown) =>
    error instanceof FsError && error.code === "unavailable" && error.message.includes(folder);
  await assert.rejects(store.get("a/b"), gone);
  await assert.rejects(store.head("a/b"), gone);
  await assert.rejects(Array.fromAsync(store.list("")), gone);
  await assert.rejects(store.put("a/c", new Uint8Array(3)), gone);
});

Deno.test("the local object store removes what a killed writer has left, and only that", async () => {
  const folder = await Deno.makeTempDir();
  const child = new Deno.Command("true").spawn();
  await child.status;
  await Deno.mkdir(`${folder}/~unfinished`);
  const dead = `${folder}/~unfinished/${Deno.hostname()}~${child.pid}~1`;
  const other = `${folder}/~unfinished/another-machine~1~1`;
  const living = `${folder}/~unfinished/${Deno.hostname()}~1~1`;
  for (const path of [dead, other, living]) await Deno.writeTextFile(path, "x");
  const store = await openLocalObjectStore({ folder });
  const left = async () => (await Array.fromAsync(Deno.readDir(`${folder}/~unfinished`))).map((e) => e.name).sort();
  assert.deepEqual(await left(), [other, living].map((p) => p.slice(folder.length + 13)).sort());
  await Deno.utime(other, 0, 0);
  assert.equal(await store.removeStale(), 1);
  assert.deepEqual(await left(), [living.slice(folder.length + 13)]);
  await Deno.remove(folder, { recursive: true });
});
