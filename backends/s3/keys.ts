/**
 * File paths as S3 keys and back. A key is the path without its first slash, in UTF-8, which S3 demands. Bytes that UTF-8
 * or S3's XML can't carry are written `%XX`: bytes that are not UTF-8, control characters, U+FFFE and U+FFFF. A `%` that
 * would read as such an escape is written `%25`; every other `%` stays. So the mapping is reversible, and all names but a
 * few odd ones look in the bucket as they do in the tree.
 */
import { FsError } from "../../core/fs/error.ts";
import { decodeName, encodeName } from "../../core/fs/names.ts";

/** Longest key in bytes (S3 limit). */
const S3_KEY_MAX = 1024;
const hex = (byte: number) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
/** What an escape may stand for: `%`, a control character, a byte above ASCII. */
const ESCAPE = /%(?:25|[01][0-9A-F]|7F|[89A-F][0-9A-F])/g;
// deno-lint-ignore no-control-regex -- control characters are what is looked for
const ODD = /[\x00-\x1f\x7f\udc80-\udcff\ufffe\uffff]|%(?=25|[01][0-9A-F]|7F|[89A-F][0-9A-F])/gu;

/** Text of names and slashes, escaped. */
export function escapeKey(text: string): string {
  // Through bytes, so that two spellings of the same bytes give the same key. The `u` flag keeps pairs together.
  const canonical = text.isWellFormed() ? text : decodeName(encodeName(text));
  return canonical.replace(ODD, (found) => {
    const unit = found.charCodeAt(0);
    if (unit >= 0xdc80 && unit <= 0xdcff) return hex(unit - 0xdc00);
    if (unit >= 0xfffe) return [...encodeName(found)].map(hex).join("");
    return hex(unit);
  });
}

/** The inverse of escapeKey. */
export function unescapeKey(key: string): string {
  if (!key.includes("%")) return key;
  const bytes: number[] = [];
  let at = 0;
  for (const found of key.matchAll(ESCAPE)) {
    for (const byte of encodeName(key.slice(at, found.index))) bytes.push(byte);
    bytes.push(parseInt(found[0].slice(1), 16));
    at = found.index + found[0].length;
  }
  for (const byte of encodeName(key.slice(at))) bytes.push(byte);
  return decodeName(Uint8Array.from(bytes));
}

/** The key of a normalised path below `prefix`; "" + prefix for the root. Throws name_too_long. */
export function keyOf(prefix: string, path: string): string {
  const key = prefix + escapeKey(path.slice(1));
  if (key.length * 3 > S3_KEY_MAX && new TextEncoder().encode(key).length >= S3_KEY_MAX) {
    throw new FsError("name_too_long", `${path}: longer than the ${S3_KEY_MAX} bytes that S3 allows a key`, {
      path,
      limit: S3_KEY_MAX,
    });
  }
  return key;
}
