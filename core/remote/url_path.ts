/** Paths of the tree inside URLs, both ways: percent-encoding carries any byte a Linux name may have. */
import { FsError } from "../fs/error.ts";
import { checkName, decodeName, encodeName, PATH_MAX } from "../fs/names.ts";

/** Bytes that stand for themselves in a path (RFC 3986 pchar, without what shells and people trip over). */
const PLAIN = /^[A-Za-z0-9\-._~!$&'()*+,;=:@]$/;
const ENCODED: readonly string[] = Array.from({ length: 256 }, (_, byte) => {
  const char = String.fromCharCode(byte);
  return byte < 0x80 && PLAIN.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
});

/** `/a b` as `/a%20b`; the root is the empty text. */
export function encodeUrlPath(path: string): string {
  if (path === "/") return "";
  let out = "";
  for (const byte of encodeName(path)) out += byte === 0x2f ? "/" : ENCODED[byte] ?? "";
  return out;
}

function hexDigit(unit: number): number {
  if (unit >= 0x30 && unit <= 0x39) return unit - 0x30;
  const lower = unit | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}

/** One percent-encoded component as a name. */
function decodeComponent(text: string, whole: string): string {
  const bytes: number[] = [];
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit !== 0x25) {
      // Servers hand bytes above 0x7f of an unencoded path over as Latin-1.
      if (unit <= 0xff) bytes.push(unit);
      else for (const byte of encodeName(text[i] ?? "")) bytes.push(byte);
      continue;
    }
    const high = hexDigit(text.charCodeAt(i + 1));
    const low = hexDigit(text.charCodeAt(i + 2));
    if (high < 0 || low < 0) {
      throw new FsError("invalid_input", `"%" in the path must be followed by two hexadecimal digits: ${whole}`, {
        path: whole,
      });
    }
    bytes.push(high * 16 + low);
    i += 2;
  }
  return decodeName(Uint8Array.from(bytes));
}

export interface UrlPath {
  /** Absolute and normal. */
  readonly path: string;
  /** It was written with a slash at the end: only a directory can be meant. */
  readonly trailingSlash: boolean;
}

/**
 * The path behind a route's prefix (`rest` begins with `/` or is empty). Throws invalid_input for `.`, `..`, empty
 * components, NUL and encoded slashes; name_too_long.
 */
export function decodeUrlPath(rest: string): UrlPath {
  if (rest === "" || rest === "/") return { path: "/", trailingSlash: rest === "/" };
  const trailingSlash = rest.endsWith("/");
  const parts = (trailingSlash ? rest.slice(1, -1) : rest.slice(1)).split("/");
  const names = parts.map((part) => {
    if (part === "") {
      throw new FsError("invalid_input", `the path has an empty component ("//"): ${rest.slice(0, 200)}`, {
        path: rest.slice(0, 200),
      });
    }
    const name = decodeComponent(part, rest.slice(0, 200));
    if (name === "." || name === "..") {
      throw new FsError("invalid_input", `the path must not contain "${name}": ${rest.slice(0, 200)}`, {
        path: rest.slice(0, 200),
      });
    }
    if (name.includes("\0")) {
      throw new FsError("invalid_input", "a name can't contain a NUL byte (%00)", { path: rest.slice(0, 200) });
    }
    checkName(name);
    return name;
  });
  const path = `/${names.join("/")}`;
  if (encodeName(path).length > PATH_MAX) {
    throw new FsError("name_too_long", `the path is longer than ${PATH_MAX} bytes`, { limit: PATH_MAX });
  }
  return { path, trailingSlash };
}

/** A path that arrives as text (JSON, a command line): absolute and normal, or invalid_input. */
export function checkPath(path: unknown, what = "path"): string {
  if (typeof path !== "string" || !path.startsWith("/")) {
    throw new FsError("invalid_input", `${what}: give an absolute path such as /photos/2024`, {
      ...(typeof path === "string" && { path }),
    });
  }
  if (path === "/") return path;
  for (const name of path.slice(1).split("/")) {
    if (name === "" || name === "." || name === "..") {
      throw new FsError("invalid_input", `${what}: ${JSON.stringify(path)} must have no empty, "." or ".." component`, {
        path,
      });
    }
    checkName(name);
  }
  if (encodeName(path).length > PATH_MAX) {
    throw new FsError("name_too_long", `${what} is longer than ${PATH_MAX} bytes`, { limit: PATH_MAX });
  }
  return path;
}

/** The folder that holds the path; the root's is the root. */
export function parentOf(path: string): string {
  const at = path.lastIndexOf("/");
  return at <= 0 ? "/" : path.slice(0, at);
}
/** The last component; empty for the root. */
export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
