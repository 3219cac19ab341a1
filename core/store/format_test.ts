/** docs/format.md against the code: the examples a stranger would test a reader with. */
import assert from "node:assert/strict";
import { readText } from "../platform/files.ts";
import { chunkInline } from "./chunk_inline.ts";
import { gearTable } from "./chunker.ts";
import { hex, sha256, unhex } from "./hash.ts";
import { decodeManifest, encodeManifest } from "./manifest.ts";
import { encodeHeader, packChunk, PackTocBuilder, unpackChunk, verifyPack } from "./pack.ts";
import { isZeroChunk } from "./zeros.ts";

const page = await readText(new URL("../../docs/format.md", import.meta.url).pathname);
const content = new TextEncoder().encode("hello, world\n");

/** The lines of the code block with this name. */
function block(name: string): string[] {
  const found = new RegExp("```" + name + "\n([^`]*)\n```").exec(page)?.[1];
  assert.ok(found, `docs/format.md has a block "${name}"`);
  return found.split("\n");
}

/** The bytes of a block whose lines begin with hexadecimal digits. */
function bytesOf(name: string): Uint8Array<ArrayBuffer> {
  return unhex(block(name).map((line) => line.split(" ")[0]).join(""));
}

Deno.test("the manifest in the format document is what the code writes and reads", () => {
  const built = encodeManifest(chunkInline(content));
  assert.equal(hex(bytesOf("manifest")), hex(built.blob));
  assert.ok(page.includes(`\`${hex(built.hash)}\``));
  const [span] = decodeManifest(bytesOf("manifest")).chunksInSync(0, 1) ?? [];
  assert.deepEqual(span && { ...span, hash: hex(span.hash) }, { hash: hex(sha256(content)), length: 13, offset: 0 });
});

Deno.test("the pack in the format document is what the code writes and reads", async () => {
  const toc = new PackTocBuilder();
  const packed = packChunk(content);
  const { header } = toc.append(sha256(content), packed);
  const { tail, name } = toc.finish();
  const pack = bytesOf("pack");
  assert.equal(hex(pack), [encodeHeader(), header, packed.stored, tail].map(hex).join(""));
  assert.ok(page.includes(`\`${name}\``));
  const found = await verifyPack(
    (offset, length) => Promise.resolve(pack.subarray(offset, offset + length)),
    pack.length,
  );
  assert.equal(found.name, name);
  const [entry] = found.entries;
  assert.ok(entry);
  const stored = pack.subarray(entry.offset, entry.offset + entry.storedLength);
  assert.deepEqual(unpackChunk(stored, entry.flags, entry.rawLength, entry.hash), content);
});

Deno.test("the check values for cutting in the format document are right", () => {
  const gear = gearTable();
  for (const [, index, value] of page.matchAll(/gear\[(\d+)\] = `([0-9a-f]{8})`/g)) {
    assert.equal(((gear[Number(index)] ?? 0) >>> 0).toString(16).padStart(8, "0"), value);
  }
  const bytes = new Uint8Array(1048576);
  let x = 1;
  for (let i = 0; i < bytes.length; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    bytes[i] = x >>> 24;
  }
  assert.equal(chunkInline(bytes).map(({ length }) => length).join(" "), block("cuts").join(" "));
});

Deno.test("the zero chunks in the format document are known as such", () => {
  for (const line of block("zeros")) {
    const [length = "", hash = ""] = line.split(" ");
    assert.ok(isZeroChunk(unhex(hash), Number(length)));
  }
});
