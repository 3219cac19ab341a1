/** Paths become keys and come back, and keys look like paths wherever they can. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { hasCode } from "../../core/fs/error.ts";
import { decodeName, encodeName } from "../../core/fs/names.ts";
import { escapeKey, keyOf, unescapeKey } from "./keys.ts";

Deno.test("ordinary names are their own keys", () => {
  for (const name of ["a/b c.txt", "100%", "%4", "%41", "50% off/%zz", "é世界\u{1F3B5}", "a+b&c=d"]) {
    assert.equal(escapeKey(name), name);
    assert.equal(unescapeKey(name), name);
  }
});

Deno.test("what a key can't carry is escaped, and so is what looks like an escape", () => {
  assert.equal(escapeKey("a\udce9"), "a%E9");
  assert.equal(escapeKey("line\nbreak\x01"), "line%0Abreak%01");
  assert.equal(escapeKey("%E9"), "%25E9");
  assert.equal(escapeKey("%25"), "%2525");
  assert.equal(escapeKey("\uffff"), "%EF%BF%BF");
});

Deno.test("every name of any bytes comes back, and no two share a key", () => {
  const name = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 12 }).map((bytes) => decodeName(bytes)),
    fc.string({ unit: fc.constantFrom("%", "2", "5", "E", "9", "0", "A", "\n", "é", "\udce9"), maxLength: 8 })
      .map((text) => decodeName(encodeName(text))),
  );
  fc.assert(
    fc.property(name, name, (a, b) => {
      assert.equal(unescapeKey(escapeKey(a)), a);
      assert(escapeKey(a).isWellFormed());
      if (a !== b) assert.notEqual(escapeKey(a), escapeKey(b));
    }),
    { numRuns: 3000 },
  );
});

Deno.test("a key that S3 would refuse for its length is refused before", () => {
  assert.equal(keyOf("p/", "/a"), "p/a");
  assert.throws(() => keyOf("p/", "/x".repeat(600)), (error) => hasCode(error, "name_too_long"));
  assert.throws(() => keyOf("", `/${"é".repeat(520)}`), (error) => hasCode(error, "name_too_long"));
});
