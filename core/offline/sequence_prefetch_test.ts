/** Which files are fetched before anybody asks for them. */
import assert from "node:assert/strict";
import { S_IFDIR, S_IFREG, type Stat } from "../fs/stat.ts";
import { SequencePrefetch } from "./sequence_prefetch.ts";

function folder(names: readonly string[], sizes: (name: string) => number = () => 1000) {
  const sorted = [...names].sort();
  const fetched: string[] = [];
  const entries = sorted.map((name, i) => ({
    name,
    stat: {
      ino: i + 10,
      mode: name.endsWith("/") ? S_IFDIR | 0o755 : S_IFREG | 0o644,
      size: sizes(name),
      content: name,
    } as Stat,
  }));
  const prefetch = new SequencePrefetch({
    nameOf: (ino) => ({ parent: 1, name: sorted[ino - 10] ?? "" }),
    after: (_parent, name, limit) => entries.filter((entry) => entry.name > name).slice(0, limit),
    fetch: (content) => {
      fetched.push(content);
      return Promise.resolve();
    },
  });
  const open = async (name: string) => {
    prefetch.opened(sorted.indexOf(name) + 10);
    await new Promise((resolve) => setTimeout(resolve));
  };
  return { prefetch, open, fetched, ino: (name: string) => sorted.indexOf(name) + 10 };
}

Deno.test("the second photo in a row brings the next two, and so on, folders passed over", async () => {
  const { open, fetched, prefetch, ino } = folder(["1.jpg", "2.jpg", "2.raw/", "3.jpg", "4.jpg", "5.jpg"]);
  await open("1.jpg");
  assert.deepEqual(fetched, []);
  await open("2.jpg");
  assert.deepEqual(fetched, ["3.jpg", "4.jpg"]);
  assert.ok(prefetch.expects(ino("3.jpg")) && !prefetch.expects(ino("5.jpg")));
  await open("3.jpg");
  assert.deepEqual(fetched, ["3.jpg", "4.jpg", "5.jpg"]);
  await open("4.jpg");
  await open("5.jpg");
  assert.deepEqual(fetched, ["3.jpg", "4.jpg", "5.jpg"]);
});

Deno.test("files opened here and there fetch nothing", async () => {
  const { open, fetched } = folder(["a", "b", "c", "d", "e", "f"]);
  for (const name of ["a", "d", "b", "f", "c", "a", "c", "e"]) await open(name);
  assert.deepEqual(fetched, []);
});

Deno.test("a film is not fetched whole because it comes next", async () => {
  const { open, fetched } = folder(["a", "b", "c", "d"], (name) => name === "c" ? 1e9 : 10);
  await open("a");
  await open("b");
  assert.deepEqual(fetched, ["d"]);
});
