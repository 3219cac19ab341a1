/**
 * The conformance suite of the filesystem contract (core/fs/contract.ts): one suite for every backend and every layer.
 * What a store does otherwise it declares in its traits, and the suite asks for that then.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { hasLinks, hasPermissions, hasStats, hasSync, hasTimes, hasXattr } from "../../core/fs/capability.ts";
import type { BackendTraits, Fs } from "../../core/fs/contract.ts";
import { Errno } from "../../core/fs/error.ts";
import { child } from "../../core/fs/path.ts";
import { kindOf } from "../../core/fs/stat.ts";
import { pattern } from "../support/bytes.ts";
import { collect, rejects, text, utf8 } from "../support/expect.ts";

export interface BackendFactory {
  /** A fresh, empty filesystem, and its end. */
  open(): Promise<{ readonly fs: Fs; dispose(): Promise<void> }>;
  readonly traits: BackendTraits;
  /** Entries of the directory that paging is tried on. @default 10,000 */
  readonly manyEntries?: number;
  /** Bytes of a file larger than any buffer on the way. @default 20 MiB + 3 */
  readonly largeSize?: number;
  /** The time of a change is within this of now, milliseconds. @default 5000 */
  readonly clockSlackMs?: number;
}

/** Names that have broken other programs (rclone's fstest among the sources). None is longer than 255 bytes. */
export const NASTY_NAMES: readonly string[] = [
  "hello? sausage",
  "êé",
  "Hello, 世界",
  ` " ' @ < > & ? + ≠`,
  "z.txt",
  "line\nbreak",
  "carriage\rreturn",
  "tab\there",
  "\x01\x1f\x7f control",
  ".hidden",
  "..twodots",
  "...",
  " leading space",
  "trailing space ",
  "-dash",
  "--",
  "~tilde",
  "#hash",
  "100%",
  "%41",
  "%2F",
  "%25",
  "%_%",
  "_",
  "a_b",
  "back\\slash",
  "\\",
  "*",
  "a:b",
  "|pipe",
  "$HOME",
  "`id`",
  "Case",
  "case",
  "caf\u00e9 NFC",
  "cafe\u0301 NFD",
  "\u{1F3B5} music",
  "\u200b",
  "\ufeffbom",
  "\ufffd",
  "\uffff",
  "CON",
  "nul.txt",
  "x".repeat(255),
  "ü".repeat(127),
];
/** Names that are not UTF-8, as core/fs/names.ts writes them. */
export const BYTE_NAMES: readonly string[] = [
  "latin1 \udce9",
  "\udcff\udcfe",
  "half \udce4\udcb8",
  "\udc80",
  "ok \u{1F3B5}\udcf0",
];

const names = async (fs: Fs, path: string) => (await Array.fromAsync(fs.readDir(path))).map((e) => e.name);
const sorted = (list: readonly string[]) => [...list].sort();
const read = async (fs: Fs, path: string) => text(await fs.read(path));

function streamOf(bytes: Uint8Array, piece = 100_003): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= bytes.length) {
        controller.close();
        return;
      }
      controller.enqueue(bytes.slice(at, at + piece));
      at += piece;
    },
  });
}

/** Defines one Deno test a behaviour. `getFactory` gives a reason when the store can't be had here. */
export function testBackend(name: string, getFactory: () => Promise<BackendFactory | { readonly skip: string }>): void {
  const test = (title: string, body: (fs: Fs, factory: BackendFactory) => Promise<void>) =>
    Deno.test({
      name: `${name}: ${title}`,
      // HTTP clients keep their idle connections beyond one test.
      sanitizeOps: false,
      sanitizeResources: false,
      async fn() {
        const factory = await getFactory();
        if ("skip" in factory) {
          console.log(`    skipped: ${factory.skip}`);
          return;
        }
        const { fs, dispose } = await factory.open();
        try {
          await body(fs, factory);
        } catch (error) {
          // What went wrong first is what counts, not what it makes of the cleaning up.
          await dispose().catch(() => {});
          throw error;
        }
        await dispose();
      },
    });

  test("begins as an empty directory", async (fs) => {
    assert.equal(kindOf((await fs.stat("/")).mode), "directory");
    assert.deepEqual(await names(fs, "/"), []);
    assert.equal(await fs.exists("/"), true);
    assert.equal(await fs.exists("/none"), false);
    assert.equal(await fs.exists("/none/below"), false);
  });

  test("reads back what was written, whole and by any range", async (fs) => {
    const bytes = pattern(200_001, 1);
    const stat = await fs.write("/f", bytes);
    assert.equal(stat.size, 200_001);
    assert.equal(kindOf(stat.mode), "file");
    assert.deepEqual(await fs.read("/f"), bytes);
    const ranges: readonly (readonly [number, number])[] = [
      [0, 1],
      [0, 0],
      [5, 0],
      [65_535, 2],
      [65_536, 65_536],
      [131_071, 3],
      [200_000, 1],
      [200_000, 100],
      [200_001, 1],
      [300_000, 10],
      [0, 1e9],
    ];
    for (const [offset, length] of ranges) {
      const expected = bytes.slice(offset, offset + length);
      assert.deepEqual(await fs.read("/f", { offset, length }), expected, `${offset}+${length}`);
      assert.deepEqual(
        await collect(await fs.openRead("/f", { offset, length })),
        expected,
        `stream ${offset}+${length}`,
      );
    }
    assert.deepEqual(await fs.read("/f", { offset: 199_000 }), bytes.slice(199_000));
    assert.deepEqual(await collect(await fs.openRead("/f")), bytes);
  });

  test("gives each reader bytes of its own", async (fs) => {
    const data = utf8("abc");
    await fs.write("/f", data);
    data[0] = 0;
    (await fs.read("/f"))[1] = 0;
    assert.equal(await read(fs, "/f"), "abc");
  });

  test("keeps an empty file", async (fs) => {
    assert.equal((await fs.write("/empty", new Uint8Array(0))).size, 0);
    assert.deepEqual(await fs.read("/empty"), new Uint8Array(0));
    assert.deepEqual(await fs.read("/empty", { offset: 0, length: 0 }), new Uint8Array(0));
    assert.deepEqual(await fs.read("/empty", { offset: 3, length: 2 }), new Uint8Array(0));
    assert.deepEqual(await collect(await fs.openRead("/empty")), new Uint8Array(0));
    const writer = await fs.openWrite("/empty2");
    await writer.writable.close();
    assert.equal((await writer.done).size, 0);
    assert.equal((await fs.stat("/empty2")).size, 0);
  });

  test("replaces a file whole, by a shorter one too", async (fs) => {
    await fs.write("/f", pattern(100_000, 2));
    await fs.write("/f", utf8("short"));
    assert.equal(await read(fs, "/f"), "short");
    assert.deepEqual(await names(fs, "/"), ["f"]);
  });

  test("streams a large file in and out bit for bit", async (fs, factory) => {
    const bytes = pattern(factory.largeSize ?? 20 * 1024 * 1024 + 3, 3);
    const writer = await fs.openWrite("/large");
    assert.equal(await fs.exists("/large"), false, "visible before it is whole");
    await streamOf(bytes).pipeTo(writer.writable);
    assert.equal((await writer.done).size, bytes.length);
    assert.equal(Buffer.compare(await collect(await fs.openRead("/large")), bytes), 0);
    const middle = await fs.read("/large", { offset: bytes.length - 9_000_000, length: 8_999_999 });
    assert.equal(Buffer.compare(middle, bytes.subarray(bytes.length - 9_000_000, bytes.length - 1)), 0);
  });

  test("leaves the old file and no trace when a streamed write is aborted", async (fs) => {
    await fs.createDir("/d");
    await fs.write("/d/f", utf8("old"));
    const byWriter = await fs.openWrite("/d/f");
    const sink = byWriter.writable.getWriter();
    await sink.write(pattern(300_000, 4));
    await sink.abort(new Error("changed my mind"));
    await rejects(["internal", "cancelled"], byWriter.done);

    const controller = new AbortController();
    const bySignal = await fs.openWrite("/d/new", { signal: controller.signal });
    const sink2 = bySignal.writable.getWriter();
    sink2.closed.catch(() => {});
    await sink2.write(pattern(300_000, 5));
    controller.abort();
    await rejects("cancelled", bySignal.done);

    const bySource = await fs.openWrite("/d/broken");
    const broken = new ReadableStream<Uint8Array>({
      start(c) {
        c.enqueue(pattern(1000, 6));
      },
      pull() {
        throw new Error("the source broke");
      },
    });
    await assert.rejects(broken.pipeTo(bySource.writable));
    await rejects("internal", bySource.done);

    assert.equal(await read(fs, "/d/f"), "old");
    assert.deepEqual(await names(fs, "/d"), ["f"]);
    await fs.removeFile("/d/f");
    await fs.removeDir("/d");
  });

  test("stops reading a stream when the reader has enough", async (fs) => {
    await fs.write("/f", pattern(3_000_000, 7));
    const reader = (await fs.openRead("/f")).getReader();
    assert((await reader.read()).value?.length);
    await reader.cancel();
    await fs.removeFile("/f");
  });

  test("lets a reader see one whole version while writers replace the file", async (fs) => {
    const versions = [pattern(150_000, 8), pattern(90_001, 9), pattern(170_003, 10), pattern(1, 11)];
    await fs.write("/racy", versions[0] ?? utf8(""));
    const seen: Uint8Array[] = [];
    await Promise.all([
      ...versions.map((bytes) => fs.write("/racy", bytes)),
      ...versions.map(async () => void seen.push(await fs.read("/racy"))),
    ]);
    seen.push(await fs.read("/racy"));
    for (const bytes of seen) {
      assert(versions.some((v) => Buffer.compare(v, bytes) === 0), `a mix of ${bytes.length} bytes`);
    }
    assert.deepEqual(await names(fs, "/"), ["racy"]);
  });

  test("lets exactly one of many exclusive writers win", async (fs) => {
    const results = await Promise.allSettled(
      Array.from({ length: 8 }, (_, i) => fs.write("/lock", utf8(String(i)), { exclusive: true })),
    );
    const won = results.flatMap((r, i) => r.status === "fulfilled" ? [String(i)] : []);
    assert.equal(won.length, 1, `${won.length} writers won`);
    assert.equal(await read(fs, "/lock"), won[0]);
    await rejects("already_exists", fs.write("/lock", utf8("x"), { exclusive: true }));
    await rejects("already_exists", fs.openWrite("/lock", { exclusive: true }));
  });

  test("never lets concurrent appends overlap", async (fs) => {
    const lines = Array.from({ length: 24 }, (_, i) => `line ${i} ${"#".repeat(i * 7)}\n`);
    await Promise.all(lines.map((line) => fs.append("/log", utf8(line))));
    assert.deepEqual(sorted((await read(fs, "/log")).split(/(?<=\n)/)), sorted(lines));
    const stat = await fs.append("/log", utf8("end"));
    assert.equal(stat.size, lines.join("").length + 3);
    await fs.append("/none", new Uint8Array(0));
    assert.equal((await fs.stat("/none")).size, 0);
  });

  test("appends to a large file without changing what is there", async (fs) => {
    const bytes = pattern(6 * 1024 * 1024 + 17, 12);
    await fs.write("/f", bytes);
    await fs.append("/f", utf8("tail"));
    const back = await fs.read("/f");
    assert.equal(back.length, bytes.length + 4);
    assert.equal(Buffer.compare(back.subarray(0, bytes.length), bytes), 0);
    assert.equal(text(back.subarray(bytes.length)), "tail");
  });

  test("truncates and extends with zeros", async (fs) => {
    await fs.write("/f", utf8("0123456789"));
    assert.equal((await fs.truncate("/f", 4)).size, 4);
    assert.equal(await read(fs, "/f"), "0123");
    assert.equal((await fs.truncate("/f", 8)).size, 8);
    assert.deepEqual(await fs.read("/f"), utf8("0123\0\0\0\0"));
    await fs.truncate("/f", 0);
    assert.deepEqual(await fs.read("/f"), new Uint8Array(0));
    await rejects("not_found", fs.truncate("/none", 1));
    await rejects("invalid_input", fs.truncate("/f", -1));
    await rejects("invalid_input", fs.truncate("/f", 1.5));
  });

  test("copies a file, onto an existing one and onto itself too", async (fs) => {
    const bytes = pattern(70_000, 13);
    await fs.write("/a", bytes);
    assert.equal((await fs.copy("/a", "/b")).size, 70_000);
    assert.deepEqual(await fs.read("/b"), bytes);
    await fs.write("/a", utf8("changed"));
    assert.deepEqual(await fs.read("/b"), bytes, "the copy is independent");
    await fs.copy("/a", "/b");
    assert.equal(await read(fs, "/b"), "changed");
    await fs.copy("/a", "/a");
    assert.equal(await read(fs, "/a"), "changed");
    await rejects("not_found", fs.copy("/none", "/c"));
    await rejects("not_found", fs.copy("/a", "/none/c"));
    await fs.createDir("/d");
    await rejects("is_a_directory", fs.copy("/d", "/c"));
    await rejects("is_a_directory", fs.copy("/a", "/d"));
  });

  test("says what is wrong with a path by code", async (fs) => {
    await fs.write("/file", utf8("x"));
    await fs.createDir("/dir");
    await rejects("not_found", fs.read("/none"));
    await rejects("not_found", fs.openRead("/none").then(collect));
    await rejects("not_found", fs.stat("/none"));
    await rejects("not_found", fs.stat("/none/deeper"));
    await rejects("not_found", fs.removeFile("/none"));
    await rejects("not_found", fs.removeDir("/none"));
    await rejects("not_found", fs.write("/none/f", utf8("x")));
    await rejects("not_found", fs.openWrite("/none/f"));
    await rejects("not_found", fs.append("/none/f", utf8("x")));
    await rejects("not_found", fs.createDir("/none/d"));
    await rejects("not_found", Array.fromAsync(fs.readDir("/none")));
    await rejects("is_a_directory", fs.read("/dir"));
    await rejects("is_a_directory", fs.openRead("/dir").then(collect));
    await rejects("is_a_directory", fs.write("/dir", utf8("x")));
    await rejects("is_a_directory", fs.openWrite("/dir"));
    await rejects("is_a_directory", fs.append("/dir", utf8("x")));
    await rejects("is_a_directory", fs.truncate("/dir", 0));
    await rejects("is_a_directory", fs.removeFile("/dir"));
    await rejects("is_a_directory", fs.read("/"));
    await rejects("is_a_directory", fs.write("/", utf8("x")));
    await rejects("not_a_directory", Array.fromAsync(fs.readDir("/file")));
    await rejects("not_a_directory", fs.removeDir("/file"));
    await rejects("not_a_directory", fs.write("/file/x", utf8("x")));
    await rejects("not_a_directory", fs.createDir("/file/x"));
    // A flat store would have to look at every ancestor to tell these two apart.
    await rejects(["not_a_directory", "not_found"], fs.read("/file/x"));
    await rejects(["not_a_directory", "not_found"], fs.stat("/file/x"));
    assert.equal(await fs.exists("/file/x"), false);
    await rejects("already_exists", fs.createDir("/dir"));
    await rejects("already_exists", fs.createDir("/file"));
    await rejects("already_exists", fs.createDir("/"));
    await rejects("already_exists", fs.createDirAll("/file"));
    await rejects(["already_exists", "not_a_directory"], fs.createDirAll("/file/x"));
    assert.equal(await read(fs, "/file"), "x");
    const error = await rejects("not_found", fs.read("/none"));
    assert(error.message.includes("/none"), error.message);
    assert.equal(error.details.path, "/none");
    assert.equal(error.errno, Errno.ENOENT);
  });

  test("refuses paths that are not normalised instead of guessing", async (fs) => {
    await fs.write("/a", utf8("x"));
    for (const path of ["", "a", "/a/", "//a", "/./a", "/b/../a", "/..", "/a\0", "/."]) {
      await rejects("invalid_input", fs.stat(path));
      await rejects("invalid_input", fs.write(path, utf8("y")));
    }
    await rejects("name_too_long", fs.write(`/${"x".repeat(256)}`, utf8("y")));
    await rejects("name_too_long", fs.stat(`/${"ü".repeat(128)}`));
    assert.deepEqual(await names(fs, "/"), ["a"]);
  });

  test("keeps every nasty name apart and byte for byte", async (fs, factory) => {
    const wanted = factory.traits.bytesInNames ? [...NASTY_NAMES, ...BYTE_NAMES] : NASTY_NAMES;
    await fs.createDirAll("/n/d");
    for (const name of wanted) {
      await fs.write(`/n/${name}`, utf8(name));
      await fs.createDir(`/n/d/${name}`);
    }
    assert.deepEqual(sorted(await names(fs, "/n")), sorted([...wanted, "d"]));
    assert.deepEqual(sorted(await names(fs, "/n/d")), sorted(wanted));
    for (const name of wanted) {
      assert.equal(await read(fs, `/n/${name}`), text(utf8(name)), JSON.stringify(name));
      assert.equal(kindOf((await fs.stat(`/n/d/${name}`)).mode), "directory");
    }
    for (const name of wanted) {
      await fs.rename(`/n/${name}`, `/n/d/${name}/${name}`);
      assert.deepEqual(await names(fs, `/n/d/${name}`), [name]);
      await fs.removeFile(`/n/d/${name}/${name}`);
      await fs.removeDir(`/n/d/${name}`);
    }
    assert.deepEqual(await names(fs, "/n"), ["d"]);
    assert.deepEqual(await names(fs, "/n/d"), []);
  });

  test("keeps a nasty path of directories", async (fs) => {
    const path = `/hello? sausage/êé/Hello, 世界/ " ' @ < > & ? + ≠`;
    await fs.createDirAll(path);
    await fs.write(`${path}/z.txt`, utf8("z"));
    assert.equal(await read(fs, `${path}/z.txt`), "z");
    assert.deepEqual(await names(fs, "/hello? sausage/êé"), ["Hello, 世界"]);
    await fs.rename("/hello? sausage", "/a\nb%2F");
    assert.equal(await read(fs, `/a\nb%2F/êé/Hello, 世界/ " ' @ < > & ? + ≠/z.txt`), "z");
  });

  test("tells names apart that differ in case only, when it says so", async (fs, factory) => {
    await fs.write("/Foo", utf8("1"));
    assert.equal(await fs.exists("/foo"), !factory.traits.caseSensitive);
    if (!factory.traits.caseSensitive) return;
    await fs.write("/foo", utf8("2"));
    await fs.createDir("/FOO");
    assert.deepEqual(sorted(await names(fs, "/")), ["FOO", "Foo", "foo"]);
    assert.equal(await read(fs, "/Foo"), "1");
  });

  test("does not take % and _ for wildcards, nor a name for a prefix of another", async (fs) => {
    for (const name of ["a_c", "abc", "a%c", "a", "ab", "a-", "a.b", "a0"]) await fs.createDir(`/${name}`);
    await fs.write("/a/x", utf8("x"));
    assert.deepEqual(await names(fs, "/a_c"), []);
    assert.deepEqual(await names(fs, "/a%c"), []);
    assert.deepEqual(await names(fs, "/ab"), []);
    assert.deepEqual(await names(fs, "/a"), ["x"]);
    await fs.removeDirAll("/a");
    assert.deepEqual(sorted(await names(fs, "/")), sorted(["a_c", "abc", "a%c", "ab", "a-", "a.b", "a0"]));
  });

  test("keeps directories: empty ones, made with parents, removed only when empty", async (fs, factory) => {
    assert.equal(kindOf((await fs.createDir("/d")).mode), "directory");
    if (factory.traits.emptyDirs) assert.equal(kindOf((await fs.stat("/d")).mode), "directory");
    await fs.createDirAll("/d/e/f/g");
    await fs.createDirAll("/d/e/f/g");
    await fs.createDirAll("/");
    assert.deepEqual(await names(fs, "/d/e/f"), ["g"]);
    await rejects("directory_not_empty", fs.removeDir("/d"));
    await fs.removeDir("/d/e/f/g");
    await fs.write("/d/e/f/file", utf8("x"));
    await rejects("directory_not_empty", fs.removeDir("/d/e/f"));
    await fs.removeFile("/d/e/f/file");
    if (factory.traits.emptyDirs) {
      assert.deepEqual(await names(fs, "/d/e/f"), [], "a directory stays when its last file goes");
    }
    await fs.removeDirAll("/d");
    assert.equal(await fs.exists("/d"), false);
    assert.deepEqual(await names(fs, "/"), []);
    await fs.removeDirAll("/d");
    await fs.removeDirAll("/not/there");
    await fs.write("/file", utf8("x"));
    await fs.removeDirAll("/file");
    assert.equal(await fs.exists("/file"), false);
    await rejects("invalid_input", fs.removeDir("/"));
  });

  test("empties the root without removing it", async (fs) => {
    await fs.createDirAll("/a/b");
    await fs.write("/a/b/f", utf8("x"));
    await fs.write("/g", utf8("x"));
    await fs.removeDirAll("/");
    assert.deepEqual(await names(fs, "/"), []);
    await fs.write("/again", utf8("x"));
  });

  test("lists each entry with its attributes", async (fs, factory) => {
    await fs.createDir("/d");
    await fs.write("/d/f", utf8("hello"));
    await fs.createDir("/d/sub");
    await fs.write("/d/sub/below", utf8("x"));
    const entries = await Array.fromAsync(fs.readDir("/d"));
    assert.deepEqual(sorted(entries.map((e) => `${e.name} ${kindOf(e.stat.mode)}`)), ["f file", "sub directory"]);
    const file = entries.find((e) => e.name === "f");
    assert.equal(file?.stat.size, 5);
    const stat = await fs.stat("/d/f");
    assert.equal(file?.stat.mtimeSec, stat.mtimeSec);
    assert.equal(file?.stat.ino, stat.ino);
    const slack = (factory.clockSlackMs ?? 5000) / 1000;
    assert(Math.abs(stat.mtimeSec - Date.now() / 1000) < slack, `mtime ${stat.mtimeSec}`);
  });

  test("pages through a directory of many entries: all of them, each once, in a stable order", async (fs, factory) => {
    const count = factory.manyEntries ?? 10_000;
    await fs.createDir("/many");
    const made = Array.from({ length: count }, (_, i) => `entry ${(i * 7919) % count}`);
    for (let i = 0; i < count; i += 100) {
      await Promise.all(made.slice(i, i + 100).map((name) => fs.createDir(`/many/${name}`)));
    }
    const whole = await names(fs, "/many");
    assert.equal(whole.length, count);
    assert.deepEqual(sorted(whole), sorted(made));
    const paged: string[] = [];
    const limit = Math.ceil(count / 13);
    while (true) {
      const after = paged.at(-1);
      const page = await Array.fromAsync(
        fs.readDir("/many", { limit, ...(after === undefined ? {} : { after }) }),
      );
      assert(page.length <= limit);
      paged.push(...page.map((e) => e.name));
      if (page.length < limit) break;
    }
    assert.deepEqual(paged, whole);
    // An `after` that is no longer there still says where to go on.
    const middle = whole[count >> 1];
    assert(middle !== undefined);
    await fs.removeDir(`/many/${middle}`);
    const rest = await Array.fromAsync(fs.readDir("/many", { after: middle, limit: 3 }));
    assert.deepEqual(rest.map((e) => e.name), whole.slice((count >> 1) + 1, (count >> 1) + 4));
    assert.deepEqual(await Array.fromAsync(fs.readDir("/many", { limit: 0 })), []);
    for await (const entry of fs.readDir("/many")) {
      assert.equal(entry.name, whole[0]);
      break;
    }
  });

  test("pages files and directories in one order", async (fs) => {
    await fs.createDir("/mix");
    // "a" becomes a directory and "c" a file: a slash sorts between "." and "0".
    const made = ["a", "a b", "a-b", "a.b", "a0", "b", "é", "z", "B", "c", "c-1", "c.x", "c0"];
    for (const [i, name] of made.entries()) {
      if (i % 2 === 0) await fs.createDir(`/mix/${name}`);
      else await fs.write(`/mix/${name}`, utf8(name));
    }
    const whole = await names(fs, "/mix");
    assert.deepEqual(sorted(whole), sorted(made));
    const paged: string[] = [];
    for (let after: string | undefined;; after = paged.at(-1)) {
      const page = await Array.fromAsync(fs.readDir("/mix", { limit: 1, ...(after === undefined ? {} : { after }) }));
      if (page.length === 0) break;
      paged.push(...page.map((e) => e.name));
      assert(paged.length <= made.length, `round in circles: ${paged}`);
    }
    assert.deepEqual(paged, whole);
  });

  test("renames files and trees as rename(2) does", async (fs) => {
    await fs.write("/a", utf8("a"));
    await fs.write("/b", utf8("b"));
    await fs.rename("/a", "/b");
    assert.equal(await read(fs, "/b"), "a");
    assert.equal(await fs.exists("/a"), false);
    await fs.rename("/b", "/b");
    assert.equal(await read(fs, "/b"), "a");

    await fs.createDirAll("/d/e");
    await fs.write("/d/e/f", utf8("f"));
    await fs.rename("/d", "/moved");
    assert.equal(await read(fs, "/moved/e/f"), "f");
    assert.equal(await fs.exists("/d"), false);
    await fs.createDir("/empty");
    await fs.rename("/moved", "/empty");
    assert.equal(await read(fs, "/empty/e/f"), "f");
    await fs.rename("/empty/e/f", "/up");
    assert.equal(await read(fs, "/up"), "f");

    await fs.createDirAll("/full/x");
    await fs.createDir("/other");
    await rejects("directory_not_empty", fs.rename("/other", "/full"));
    await rejects("is_a_directory", fs.rename("/b", "/other"));
    await rejects("not_a_directory", fs.rename("/other", "/b"));
    await rejects("invalid_input", fs.rename("/full", "/full/x/y"));
    await rejects("invalid_input", fs.rename("/full", "/full/x"));
    await rejects("directory_not_empty", fs.rename("/full/x", "/full"));
    await rejects("not_found", fs.rename("/none", "/c"));
    await rejects("not_found", fs.rename("/b", "/none/c"));
    await rejects("not_a_directory", fs.rename("/other", "/b/c"));
    await rejects("invalid_input", fs.rename("/", "/x"));
    assert.deepEqual(sorted(await names(fs, "/")), ["b", "empty", "full", "other", "up"]);
  });

  test("keeps a deep tree", async (fs) => {
    const depth = 60;
    let path = "";
    for (let i = 0; i < depth; i++) path += `/level ${i}`;
    await fs.createDirAll(path);
    await fs.write(`${path}/leaf`, utf8("deep"));
    assert.equal(await read(fs, `${path}/leaf`), "deep");
    await fs.rename("/level 0", "/moved");
    assert.equal(await read(fs, `${path.replace("/level 0", "/moved")}/leaf`), "deep");
    await fs.removeDirAll("/moved");
    assert.deepEqual(await names(fs, "/"), []);
  });

  test("refuses at once when the signal is aborted already", async (fs) => {
    await fs.write("/f", utf8("x"));
    const options = { signal: AbortSignal.abort() };
    await rejects("cancelled", fs.read("/f", options));
    await rejects("cancelled", fs.stat("/f", options));
    await rejects("cancelled", fs.exists("/f", options));
    await rejects("cancelled", fs.write("/f", utf8("y"), options));
    await rejects("cancelled", fs.append("/f", utf8("y"), options));
    await rejects("cancelled", fs.rename("/f", "/g", options));
    await rejects("cancelled", fs.removeFile("/f", options));
    await rejects("cancelled", fs.createDir("/d", options));
    await rejects("cancelled", Array.fromAsync(fs.readDir("/", options)));
    assert.equal(await read(fs, "/f"), "x");
    assert.deepEqual(await names(fs, "/"), ["f"]);
  });

  test("compares versions, where it has them", async (fs) => {
    const first = await fs.write("/f", utf8("1"), { ifVersion: 0 });
    await rejects(["already_exists", "conflict"], fs.write("/f", utf8("2"), { ifVersion: 0 }));
    if (first.version === 0) {
      await rejects("not_supported", fs.write("/f", utf8("2"), { ifVersion: 7 }));
      return;
    }
    const second = await fs.write("/f", utf8("2"), { ifVersion: first.version });
    assert(second.version > first.version);
    await rejects("conflict", fs.write("/f", utf8("3"), { ifVersion: first.version }));
    assert.equal(await read(fs, "/f"), "2");
  });

  test("keeps symbolic and hard links, where it has them", async (fs) => {
    if (!hasLinks(fs)) return;
    await fs.createDir("/d");
    await fs.write("/d/f", utf8("f"));
    const stat = await fs.symlink("d/f", "/link");
    assert.equal(kindOf(stat.mode), "symlink");
    assert.equal(stat.size, 3);
    assert.equal(await fs.readLink("/link"), "d/f");
    assert.equal(kindOf((await fs.stat("/link")).mode), "symlink", "stat follows no link");
    assert.equal(await fs.exists("/link"), true);
    for (const target of ["/absolute", "../../..", "weird \n ≠", "x".repeat(1000), "gone"]) {
      await fs.symlink(target, "/t");
      assert.equal(await fs.readLink("/t"), target);
      await fs.removeFile("/t");
    }
    await rejects("too_many_links", fs.read("/link"));
    await rejects("too_many_links", fs.write("/link", utf8("x")));
    await rejects("too_many_links", fs.append("/link", utf8("x")));
    await rejects("too_many_links", fs.truncate("/link", 0));
    await rejects("invalid_input", fs.readLink("/d/f"));
    await rejects("invalid_input", fs.readLink("/d"));
    await rejects("not_found", fs.readLink("/none"));
    await rejects("already_exists", fs.symlink("x", "/link"));
    await fs.symlink("d", "/dirlink");
    await rejects("not_a_directory", fs.read("/dirlink/f"));
    await rejects("not_a_directory", fs.write("/dirlink/new", utf8("x")));
    await rejects("not_a_directory", Array.fromAsync(fs.readDir("/dirlink")));
    await rejects("not_a_directory", fs.removeDir("/dirlink"));
    await fs.rename("/dirlink", "/renamed");
    assert.equal(await fs.readLink("/renamed"), "d");
    await fs.removeDirAll("/renamed");
    assert.equal(await read(fs, "/d/f"), "f", "removing a link removes nothing behind it");

    const linked = await fs.hardLink("/d/f", "/second");
    assert.equal(linked.nlink, 2);
    assert.equal(linked.ino, (await fs.stat("/d/f")).ino);
    await fs.append("/second", utf8("+"));
    assert.equal(await read(fs, "/d/f"), "f+");
    await fs.removeFile("/d/f");
    assert.equal(await read(fs, "/second"), "f+");
    assert.equal((await fs.stat("/second")).nlink, 1);
    await fs.write("/third", utf8("3"));
    await rejects("already_exists", fs.hardLink("/second", "/third"));
    await rejects("not_found", fs.hardLink("/none", "/x"));
    await rejects("permission_denied", fs.hardLink("/d", "/x"));
    await fs.hardLink("/third", "/fourth");
    await fs.rename("/third", "/fourth");
    assert.equal(await fs.exists("/third"), true, "two names of one file: rename(2) does nothing");
  });

  test("keeps modes and owners, where it has them", async (fs) => {
    if (!hasPermissions(fs)) return;
    assert.equal((await fs.write("/f", utf8("x"), { mode: 0o640 })).mode & 0o7777, 0o640);
    assert.equal((await fs.createDir("/d", { mode: 0o1777 })).mode & 0o7777, 0o1777);
    await fs.chmod("/f", 0o4751);
    assert.equal((await fs.stat("/f")).mode & 0o7777, 0o4751);
    assert.equal(kindOf((await fs.stat("/f")).mode), "file");
    await fs.chmod("/f", 0o600);
    await fs.write("/f", utf8("y"), { mode: 0o666 });
    assert.equal((await fs.stat("/f")).mode & 0o7777, 0o600, "a replaced file keeps its mode");
    const { uid, gid } = await fs.stat("/f");
    await fs.chown("/f", uid, gid);
    await rejects("not_found", fs.chmod("/none", 0o600));
    await rejects("not_found", fs.chown("/none", uid, gid));
    if (hasLinks(fs)) {
      await fs.symlink("f", "/l");
      await rejects("not_supported", fs.chmod("/l", 0o777));
      assert.equal((await fs.stat("/f")).mode & 0o7777, 0o600, "chmod reached through a link");
    }
  });

  test("keeps times to the nanosecond it promises, where it has them", async (fs, factory) => {
    if (!hasTimes(fs)) return;
    await fs.write("/f", utf8("x"));
    const grain = factory.traits.mtimePrecisionNs;
    const times: readonly (readonly [number, number])[] = [[1_700_000_000, 123_456_789], [0, 1], [-5, 999_999_999], [
      4_102_444_800,
      0,
    ]];
    for (const [sec, nsec] of times) {
      await fs.utimes("/f", { sec: 1_600_000_000, nsec: 1 }, { sec, nsec });
      const stat = await fs.stat("/f");
      assert.equal(stat.mtimeSec, sec);
      assert.equal(stat.mtimeNsec, nsec - nsec % grain);
      assert.equal(stat.atimeSec, 1_600_000_000);
    }
    await rejects("not_found", fs.utimes("/none", { sec: 0, nsec: 0 }, { sec: 0, nsec: 0 }));
  });

  test("keeps extended attributes, where it has them", async (fs) => {
    if (!hasXattr(fs)) return;
    await fs.write("/f", utf8("x"));
    assert.deepEqual((await fs.listXattr("/f")).filter((n) => n.startsWith("user.")), []);
    await fs.setXattr("/f", "user.a", utf8("1"));
    await fs.setXattr("/f", "user.empty", new Uint8Array(0));
    await fs.setXattr("/f", "user.a", Uint8Array.of(0, 255, 10), { mode: "replace" });
    assert.deepEqual(await fs.getXattr("/f", "user.a"), Uint8Array.of(0, 255, 10));
    assert.deepEqual(await fs.getXattr("/f", "user.empty"), new Uint8Array(0));
    assert.deepEqual(sorted((await fs.listXattr("/f")).filter((n) => n.startsWith("user."))), ["user.a", "user.empty"]);
    await rejects("already_exists", fs.setXattr("/f", "user.a", utf8("2"), { mode: "create" }));
    assert.equal((await rejects("not_found", fs.getXattr("/f", "user.none"))).errno, Errno.ENODATA);
    assert.equal((await rejects("not_found", fs.removeXattr("/f", "user.none"))).errno, Errno.ENODATA);
    const replace = fs.setXattr("/f", "user.none", utf8("2"), { mode: "replace" });
    assert.equal((await rejects("not_found", replace)).errno, Errno.ENODATA);
    await fs.write("/f", utf8("replaced"));
    assert.deepEqual(await fs.getXattr("/f", "user.a"), Uint8Array.of(0, 255, 10), "a replaced file keeps them");
    await fs.removeXattr("/f", "user.a");
    assert.equal((await rejects("not_found", fs.getXattr("/f", "user.a"))).errno, Errno.ENODATA);
    assert.equal((await rejects("not_found", fs.getXattr("/none", "user.a"))).errno, Errno.ENOENT);
  });

  test("syncs and tells its space, where it can", async (fs) => {
    await fs.createDir("/d");
    await fs.write("/d/f", utf8("x"));
    if (hasSync(fs)) {
      for (const path of ["/d/f", "/d", "/"]) await fs.sync(path);
      await fs.syncAll();
      await rejects("not_found", fs.sync("/none"));
    }
    if (hasStats(fs)) {
      const { total, free } = await fs.statFs();
      assert(total > 0 && free >= 0 && free <= total);
    }
  });

  test("survives a crowd of operations at once", async (fs) => {
    await fs.createDir("/c");
    await Promise.all(Array.from({ length: 40 }, async (_, i) => {
      const path = child("/c", `n${i % 10}`);
      try {
        await fs.write(`${path}-${i}`, utf8(String(i)));
        await fs.rename(`${path}-${i}`, path);
        await fs.read(path);
        await Array.fromAsync(fs.readDir("/c"));
      } catch (error) {
        await rejects("not_found", Promise.reject(error));
      }
    }));
    assert.deepEqual(sorted(await names(fs, "/c")), Array.from({ length: 10 }, (_, i) => `n${i}`));
  });
}
