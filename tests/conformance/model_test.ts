/** Memory and local do what the model does, operation by operation, over generated histories. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { openLocalBackend } from "../../backends/local/backend.ts";
import { openMemoryBackend } from "../../backends/memory/backend.ts";
import type { Fs } from "../../core/fs/contract.ts";
import { FsError } from "../../core/fs/error.ts";
import { text, utf8 } from "../support/expect.ts";
import { Model, type Operation, type Outcome } from "./model.ts";

/** Few names, so that operations meet. */
const path = fc.array(fc.constantFrom("a", "é"), { maxLength: 3 }).map((parts) => `/${parts.join("/")}`);
const content = fc.string({ unit: fc.constantFrom("x", "y", "z"), maxLength: 6 });
const operation: fc.Arbitrary<Operation> = fc.oneof(
  fc.record({ op: fc.constantFrom("write", "append"), path, text: content }),
  fc.record({ op: fc.constant("truncate"), path, size: fc.integer({ min: 0, max: 9 }) }),
  fc.record({ op: fc.constantFrom("rename", "rename", "copy"), path, to: path }),
  fc.record({ op: fc.constantFrom("createDir", "createDirAll"), path }),
  fc.record({
    op: fc.constantFrom("read", "list", "createDir", "createDirAll", "removeFile", "removeDir", "removeDirAll"),
    path,
  }),
);

async function perform(fs: Fs, o: Operation): Promise<Outcome> {
  try {
    switch (o.op) {
      case "read":
        return { text: text(await fs.read(o.path)) };
      case "list":
        return { names: (await Array.fromAsync(fs.readDir(o.path))).map((e) => e.name).sort() };
      case "write":
        await fs.write(o.path, utf8(o.text));
        break;
      case "append":
        await fs.append(o.path, utf8(o.text));
        break;
      case "truncate":
        await fs.truncate(o.path, o.size);
        break;
      case "rename":
        await fs.rename(o.path, o.to);
        break;
      case "copy":
        await fs.copy(o.path, o.to);
        break;
      default:
        await fs[o.op](o.path);
    }
    return "ok";
  } catch (error) {
    assert(error instanceof FsError, `${o.op} ${o.path}: ${error instanceof Error ? error.stack : error}`);
    return error.code;
  }
}

/** Whole trees as the model writes them. */
async function treeOf(fs: Fs): Promise<Map<string, string | null>> {
  const tree = new Map<string, string | null>([["/", null]]);
  const pending = ["/"];
  for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
    for await (const { name, stat } of fs.readDir(at)) {
      const path = at === "/" ? `/${name}` : `${at}/${name}`;
      const isDir = (stat.mode & 0o170000) === 0o040000;
      tree.set(path, isDir ? null : text(await fs.read(path)));
      if (isDir) pending.push(path);
    }
  }
  return tree;
}

/** Two errors are right where two things are wrong and POSIX names no order. */
function same(actual: Outcome, expected: Outcome, o: Operation, model: Model): boolean {
  if (JSON.stringify(actual) === JSON.stringify(expected)) return true;
  const errors = typeof actual === "string" && actual !== "ok" && typeof expected === "string" && expected !== "ok";
  if (!errors) return false;
  if (o.op === "createDirAll") return ["already_exists", "not_a_directory"].includes(actual);
  if (o.op !== "rename" && o.op !== "copy") return false;
  // Source and target may both be wrong. Each finding must be true of one of the two.
  const probe = (path: string): Outcome[] => [
    cloneOf(model).apply({ op: "read", path }),
    cloneOf(model).apply({ op: "createDir", path }),
  ];
  return [...probe(o.path), ...probe(o.to)].includes(actual) || actual === "invalid_input" ||
    actual === "directory_not_empty";
}
function cloneOf(model: Model): Model {
  const copy = new Model();
  for (const [path, node] of model.nodes) copy.nodes.set(path, node);
  return copy;
}

async function check(open: () => Promise<{ fs: Fs; dispose(): Promise<void> }>, numRuns: number, maxLength: number) {
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { minLength: 5, maxLength }), async (history) => {
      const { fs, dispose } = await open();
      try {
        const model = new Model();
        for (const o of history) {
          const before = cloneOf(model);
          const expected = model.apply(o);
          const actual = await perform(fs, o);
          assert(
            same(actual, expected, o, before),
            `${JSON.stringify(o)} gave ${JSON.stringify(actual)}, the model ${JSON.stringify(expected)}`,
          );
        }
        assert.deepEqual([...(await treeOf(fs))].sort(), [...model.nodes].sort());
      } finally {
        await dispose();
      }
    }),
    { numRuns },
  );
}

Deno.test("the memory backend does what the model does", async () => {
  await check(() => Promise.resolve({ fs: openMemoryBackend(), dispose: () => Promise.resolve() }), 600, 60);
});

Deno.test("the local backend does what the model does", async () => {
  const base = await Deno.makeTempDir();
  let run = 0;
  await check(
    async () => {
      const root = `${base}/${run++}`;
      await Deno.mkdir(root);
      const fs = await openLocalBackend({ root });
      return {
        fs,
        async dispose() {
          await fs.close();
          await Deno.remove(root, { recursive: true });
        },
      };
    },
    50,
    40,
  );
  await Deno.remove(base, { recursive: true });
});
