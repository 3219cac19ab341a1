/** Tests of paths in URLs. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { FsError, type FsErrorCode } from "../fs/error.ts";
import { decodeName, NAME_MAX } from "../fs/names.ts";
import { checkPath, decodeUrlPath, encodeUrlPath, nameOf, parentOf } from "./url_path.ts";

const name = fc.uint8Array({ minLength: 1, maxLength: NAME_MAX }).map((bytes) =>
  decodeName(bytes.map((byte) => byte === 0 || byte === 0x2f ? 0x61 : byte))
).filter((text) => text !== "." && text !== "..");

Deno.test("a path of any names survives the URL", () => {
  fc.assert(fc.property(fc.array(name, { maxLength: 6 }), (names) => {
    const path = `/${names.join("/")}`;
    const encoded = encodeUrlPath(path);
    assert.match(encoded, /^(\/[A-Za-z0-9\-._~!$&'()*+,;=:@%]+)*$/);
    assert.equal(decodeUrlPath(encoded).path, path);
    // What a URL class makes of it is the same.
    assert.equal(new URL(`http://x/v1/files${encoded}`).pathname, `/v1/files${encoded}`);
  }));
});

Deno.test("unencoded UTF-8 that arrives as Latin-1 is understood", () => {
  assert.equal(decodeUrlPath("/Ã¤").path, "/ä");
});

const refusals: [string, string, FsErrorCode, RegExp][] = [
  ["..", "/a/../b", "invalid_input", /must not contain "\.\."/],
  ["encoded ..", "/a/%2e%2E/b", "invalid_input", /must not contain "\.\."/],
  [".", "/a/./b", "invalid_input", /must not contain "\."/],
  ["an empty component", "/a//b", "invalid_input", /empty component/],
  ["a leading double slash", "//a", "invalid_input", /empty component/],
  ["NUL", "/a%00b", "invalid_input", /NUL/],
  ["an encoded slash", "/a%2Fb", "invalid_input", /is not a file name/],
  ["a lone %", "/100%", "invalid_input", /two hexadecimal digits/],
  ["a bad escape", "/%zz", "invalid_input", /two hexadecimal digits/],
  ["a name of 256 bytes", `/${"n".repeat(256)}`, "name_too_long", /longer than 255 bytes/],
  ["a path of more than 4096 bytes", `/${Array(30).fill("n".repeat(200)).join("/")}`, "name_too_long", /4096/],
];
for (const [what, path, code, words] of refusals) {
  Deno.test(`a URL path with ${what} is refused with a clear message`, () => {
    assert.throws(
      () => decodeUrlPath(path),
      (error) => error instanceof FsError && error.code === code && words.test(error.message),
    );
  });
}

Deno.test("a slash at the end is told apart", () => {
  assert.deepEqual(decodeUrlPath("/a/"), { path: "/a", trailingSlash: true });
  assert.deepEqual(decodeUrlPath("/a"), { path: "/a", trailingSlash: false });
  assert.deepEqual(decodeUrlPath(""), { path: "/", trailingSlash: false });
});

Deno.test("paths that arrive as text are checked the same way", () => {
  assert.equal(checkPath("/a/b"), "/a/b");
  for (const bad of ["a", "/a/", "/a/../b", "/a\0", 7, null, `/${"n".repeat(256)}`]) {
    assert.throws(() => checkPath(bad), FsError);
  }
});

Deno.test("parent and name take a path apart", () => {
  assert.deepEqual([parentOf("/"), parentOf("/a"), parentOf("/a/b")], ["/", "/", "/a"]);
  assert.deepEqual([nameOf("/"), nameOf("/a"), nameOf("/a/b")], ["", "a", "b"]);
});
