/** Paths have one spelling and never leave the root. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { hasCode } from "./error.ts";
import { basename, child, dirname, isWithin, join, normalise, requireNormal, split } from "./path.ts";

Deno.test("a path is brought to its one spelling", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["/", "/"],
    ["", "/"],
    [".", "/"],
    ["//", "/"],
    ["/a", "/a"],
    ["a/b", "/a/b"],
    ["/a//b/", "/a/b"],
    ["/a/./b/.", "/a/b"],
    ["/a/../b", "/b"],
    ["/a/b/../..", "/"],
    ["/a/b/../../c", "/c"],
    ["/.hidden/..name/...", "/.hidden/..name/..."],
    ["/ä/\u{1F3B5}/\udce9", "/ä/\u{1F3B5}/\udce9"],
    ["/a b/\n", "/a b/\n"],
  ];
  for (const [from, to] of cases) assert.equal(normalise(from), to, JSON.stringify(from));
});

Deno.test("a path above the root, with NUL, or too long is refused by code", () => {
  const refused = (path: string, code: "invalid_input" | "name_too_long") =>
    assert.throws(() => normalise(path), (error) => hasCode(error, code), JSON.stringify(path.slice(0, 40)));
  for (const path of ["..", "/..", "/a/../..", "a/../../b", "/../a"]) refused(path, "invalid_input");
  for (const path of ["/a\0", "\0", "/a/\0/b"]) refused(path, "invalid_input");
  assert.equal(normalise(`/${"x".repeat(255)}`).length, 256);
  refused(`/${"x".repeat(256)}`, "name_too_long");
  refused(`/${"ü".repeat(128)}`, "name_too_long");
  refused(`/a/${"\udcff".repeat(256)}`, "name_too_long");
  assert.equal(normalise(`${"/x".repeat(2048)}`).length, 4096);
  refused("/x".repeat(2049), "name_too_long");
});

Deno.test("normalising any text gives a normal path or an error, and normalising again changes nothing", () => {
  const piece = fc.oneof(fc.constantFrom("..", ".", "", "a", "b c", "é", "\0", "..."), fc.string({ unit: "binary" }));
  fc.assert(fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
    const path = pieces.join("/");
    let normal: string;
    try {
      normal = normalise(path);
    } catch (error) {
      assert(hasCode(error, "invalid_input") || hasCode(error, "name_too_long"));
      return;
    }
    assert.equal(normalise(normal), normal);
    requireNormal(normal);
    assert(normal.startsWith("/"));
    assert(
      !normal.split("/").slice(1).some((part) => part === "." || part === ".." || (part === "" && normal !== "/")),
    );
    assert.equal(`/${split(normal).join("/")}`, normal);
    if (normal !== "/") assert.equal(child(dirname(normal), basename(normal)), normal);
  }));
});

Deno.test("what is not normal is told from what is", () => {
  for (const path of ["", "a", "/a/", "//", "/.", "/..", "/a/./b", "/a//b"]) {
    assert.throws(() => requireNormal(path), (error) => hasCode(error, "invalid_input"), path);
  }
  for (const path of ["/", "/a", "/.a", "/..a/b.", "/é/ü"]) requireNormal(path);
});

Deno.test("paths are taken apart and put together", () => {
  assert.equal(join("/a", "b", "../c"), "/a/c");
  assert.equal(join("/a", "/b"), "/b");
  assert.throws(() => join("/a", "../.."), (error) => hasCode(error, "invalid_input"));
  assert.deepEqual([dirname("/"), dirname("/a"), dirname("/a/b")], ["/", "/", "/a"]);
  assert.deepEqual([basename("/"), basename("/a"), basename("/a/b")], ["", "a", "b"]);
  assert.deepEqual(split("/"), []);
  assert(isWithin("/a/b", "/a") && isWithin("/a", "/a") && isWithin("/a", "/") && !isWithin("/ab", "/a"));
});
