/** The suite of FileStorage: the same friendly behaviour over every filesystem. */
import assert from "node:assert/strict";
import { hasLinks } from "../../core/fs/capability.ts";
import { FileStorage } from "../../core/fs/file_storage.ts";
import { CachingPathResolver, IterativePathResolver } from "../../core/fs/path_resolver.ts";
import { kindOf } from "../../core/fs/stat.ts";
import { pattern } from "../support/bytes.ts";
import { collect, rejects } from "../support/expect.ts";
import type { BackendFactory } from "./backend.ts";

/** Defines one Deno test a behaviour, each with every resolver that fits. */
export function testFileStorage(
  name: string,
  getFactory: () => Promise<Pick<BackendFactory, "open"> | { readonly skip: string }>,
): void {
  const test = (title: string, body: (storage: FileStorage) => Promise<void>, links = false) =>
    Deno.test({
      name: `FileStorage over ${name}: ${title}`,
      sanitizeOps: false,
      sanitizeResources: false,
      async fn() {
        const factory = await getFactory();
        if ("skip" in factory) {
          console.log(`    skipped: ${factory.skip}`);
          return;
        }
        for (const Resolver of links ? [IterativePathResolver, CachingPathResolver] : [undefined]) {
          const { fs, dispose } = await factory.open();
          try {
            if (links && !hasLinks(fs)) return;
            await body(new FileStorage(fs, Resolver === undefined ? {} : { resolver: new Resolver(fs) }));
          } finally {
            await dispose();
          }
        }
      },
    });

  test("takes paths in any spelling, and none that leads out", async (storage) => {
    await storage.mkdir("a/b/", { recursive: true });
    await storage.writeTextFile("//a/./b/../b/f", "x");
    assert.equal(await storage.readTextFile("/a/b/f"), "x");
    assert.equal(await storage.exists("a/b/../b/f/"), true);
    assert.equal(await storage.exists("/a/none/../b/f"), true, ".. is lexical");
    for (const path of ["..", "/a/../../etc/passwd", "/a\0b"]) {
      await rejects("invalid_input", storage.readFile(path));
      await rejects("invalid_input", storage.exists(path));
      await rejects("invalid_input", storage.writeTextFile(path, "x"));
    }
  });

  test("reads, writes, appends and streams", async (storage) => {
    const bytes = pattern(300_000, 1);
    await storage.writeFile("/f", bytes);
    assert.deepEqual(await storage.readFile("/f", { offset: 10, length: 20 }), bytes.slice(10, 30));
    await storage.writeFile("/g", await storage.openReadable("/f"));
    assert.deepEqual(await collect(await storage.openReadable("/g")), bytes);
    await storage.writeTextFile("/log", "one\n", { append: true });
    await storage.writeTextFile("/log", "two\n", { append: true });
    assert.equal(await storage.readTextFile("/log"), "one\ntwo\n");
    await rejects("already_exists", storage.writeTextFile("/log", "x", { createNew: true }));
    const writer = await storage.openWritable("/h");
    const sink = writer.writable.getWriter();
    await sink.write(bytes);
    await sink.close();
    assert.equal((await writer.done).size, bytes.length);
    await storage.truncate("/h", 5);
    assert.deepEqual(await storage.readFile("/h"), bytes.slice(0, 5));
    const broken = new ReadableStream<Uint8Array>({
      pull() {
        throw new Error("broke");
      },
    });
    await rejects(["internal", "cancelled"], storage.writeFile("/broken", broken));
    assert.equal(await storage.exists("/broken"), false);
  });

  test("makes, lists, walks and removes directories", async (storage) => {
    await rejects("not_found", storage.mkdir("/a/b/c"));
    await storage.mkdir("/a/b/c", { recursive: true });
    await rejects("already_exists", storage.mkdir("/a"));
    for (const path of ["/a/1", "/a/b/2", "/a/b/c/3"]) await storage.writeTextFile(path, path);
    const walked = async (options = {}) =>
      (await Array.fromAsync(storage.walk("/a", options))).map((e) => e.path).sort();
    assert.deepEqual(await walked(), ["/a", "/a/1", "/a/b", "/a/b/2", "/a/b/c", "/a/b/c/3"]);
    assert.deepEqual(await walked({ includeDirs: false }), ["/a/1", "/a/b/2", "/a/b/c/3"]);
    assert.deepEqual(await walked({ maxDepth: 1 }), ["/a", "/a/1", "/a/b"]);
    assert.deepEqual(await walked({ maxDepth: 0 }), ["/a"]);
    const order = (await Array.fromAsync(storage.walk("/"))).map((e) => e.path);
    assert(order.indexOf("/a/b") < order.indexOf("/a/b/c"), "a directory comes before what is in it");
    assert.deepEqual((await Array.fromAsync(storage.readDir("/a"))).map((e) => e.name).sort(), ["1", "b"]);
    await rejects("not_found", Array.fromAsync(storage.walk("/none")));
    await rejects("directory_not_empty", storage.remove("/a"));
    await storage.rename("/a/b", "/moved");
    await storage.copyFile("/moved/2", "/copy");
    await storage.remove("/a", { recursive: true });
    await storage.remove("/copy");
    await rejects("not_found", storage.remove("/copy"));
    assert.equal(await storage.readTextFile("/moved/c/3"), "/a/b/c/3");
  });

  test("follows links to files and directories, on the way and at the end", async (storage) => {
    await storage.mkdir("/real/sub", { recursive: true });
    await storage.writeTextFile("/real/sub/f", "f");
    await storage.symlink("real", "/rel");
    await storage.symlink("/real/sub", "/abs");
    await storage.symlink("../sub/./f", "/real/sub/up");
    await storage.symlink("../../rel/sub//f", "/real/sub/far");
    await storage.symlink("nowhere", "/dangling");
    for (const path of ["/rel/sub/f", "/abs/f", "/abs/up", "/abs/far", "rel/sub/far"]) {
      assert.equal(await storage.readTextFile(path), "f", path);
      assert.equal(await storage.realPath(path), "/real/sub/f");
      assert.equal(kindOf((await storage.stat(path)).mode), "file");
    }
    assert.equal(kindOf((await storage.lstat("/abs/up")).mode), "symlink");
    assert.equal(await storage.readLink("/rel"), "real");
    await storage.writeTextFile("/abs/up", "changed through a link");
    assert.equal(await storage.readTextFile("/real/sub/f"), "changed through a link");
    assert.equal(kindOf((await storage.lstat("/real/sub/up")).mode), "symlink", "the link is still one");
    assert.deepEqual((await Array.fromAsync(storage.readDir("/rel"))).map((e) => e.name), ["sub"]);

    assert.equal(await storage.exists("/dangling"), false);
    await rejects("not_found", storage.stat("/dangling"));
    await storage.writeTextFile("/dangling", "made");
    assert.equal(await storage.readTextFile("/nowhere"), "made", "as open(O_CREAT) does");

    await storage.remove("/rel");
    assert.equal(await storage.exists("/real/sub/f"), true, "removing a link leaves what it led to");
    await storage.remove("/abs", { recursive: true });
    assert.equal(await storage.exists("/real/sub/f"), true);
  }, true);

  test("ends in time when links go round in circles, and allows 40", async (storage) => {
    await storage.symlink("b", "/a");
    await storage.symlink("a", "/b");
    await storage.symlink("self/x", "/self");
    for (const path of ["/a", "/b/c", "/self", "/self/y"]) {
      const error = await rejects("too_many_links", storage.readFile(path));
      assert.equal(error.errno, 40);
      assert.equal(await storage.exists(path), false);
    }
    await storage.writeTextFile("/l0", "end");
    for (let i = 1; i <= 41; i++) await storage.symlink(`l${i - 1}`, `/l${i}`);
    assert.equal(await storage.readTextFile("/l40"), "end");
    await rejects("too_many_links", storage.readTextFile("/l41"));
  }, true);

  test("never follows a link out of the root", async (storage) => {
    await storage.symlink("../../etc/passwd", "/out");
    await storage.mkdir("/d");
    await storage.symlink("../..", "/d/up");
    await storage.symlink("/etc/passwd", "/absolute");
    await rejects("invalid_input", storage.readFile("/out"));
    await rejects("invalid_input", storage.readFile("/d/up/etc/passwd"));
    await rejects("not_found", storage.readFile("/absolute"));
    await storage.mkdir("/etc");
    await storage.writeTextFile("/absolute", "inside");
    assert.equal(await storage.readTextFile("/etc/passwd"), "inside", "an absolute link starts at our root");
  }, true);

  test("sees at once what it has changed itself", async (storage) => {
    await storage.mkdir("/one");
    await storage.mkdir("/two");
    await storage.writeTextFile("/one/f", "1");
    await storage.writeTextFile("/two/f", "2");
    assert.equal(await storage.exists("/link/f"), false);
    await storage.symlink("one", "/link");
    assert.equal(await storage.readTextFile("/link/f"), "1");
    await storage.remove("/link");
    assert.equal(await storage.exists("/link/f"), false);
    await storage.symlink("two", "/link");
    assert.equal(await storage.readTextFile("/link/f"), "2");
    await storage.mkdir("/link2");
    await storage.rename("/link", "/link3");
    assert.equal(await storage.readTextFile("/link3/f"), "2");
    await storage.symlink("one", "/other");
    await storage.rename("/other", "/link3");
    assert.equal(await storage.readTextFile("/link3/f"), "1");
  }, true);

  test("sets modes and times of what a link leads to", async (storage) => {
    await storage.writeTextFile("/f", "x");
    await storage.symlink("f", "/l");
    await storage.chmod("/l", 0o600);
    await storage.utimes("/l", { sec: 1, nsec: 0 }, { sec: 2, nsec: 0 });
    const stat = await storage.stat("/f");
    assert.equal(stat.mode & 0o7777, 0o600);
    assert.equal(stat.mtimeSec, 2);
  }, true);
}
