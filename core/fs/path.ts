/** Paths: absolute, `/`-separated, normalised; nothing here ever leaves the root. */
import { FsError } from "./error.ts";
import { checkName, nameByteLength, PATH_MAX } from "./names.ts";

/**
 * The one spelling of a path: absolute, without `.`, `..`, empty components and a trailing slash. A relative path counts
 * from the root. `..` is taken lexically: `/a/../b` is `/b` whatever `/a` is.
 * Throws invalid_input for NUL and for a `..` above the root, name_too_long for a component over 255 bytes or a path over
 * 4096 bytes.
 */
export function normalise(path: string): string {
  if (isPlain(path)) return path;
  if (path.includes("\0")) {
    throw new FsError("invalid_input", `the path ${JSON.stringify(path)} contains a NUL byte`, { path });
  }
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") {
      if (parts.pop() === undefined) {
        throw new FsError("invalid_input", `the path ${path} leads above the root: remove a ".."`, { path });
      }
      continue;
    }
    checkName(part);
    parts.push(part);
  }
  return checkLength(`/${parts.join("/")}`);
}

/** Already the one spelling, and short: most paths, so the check is one pass over code units. */
function isPlain(path: string): boolean {
  const length = path.length;
  if (length < 2 || length > 255 || path.charCodeAt(0) !== 0x2f) return path === "/";
  for (let i = 1; i < length; i++) {
    const unit = path.charCodeAt(i);
    // Past ASCII a component may be too long in bytes.
    if (unit === 0 || unit > 0x7f) return false;
    if (path.charCodeAt(i - 1) === 0x2f && (unit === 0x2f || unit === 0x2e)) return false;
  }
  return path.charCodeAt(length - 1) !== 0x2f;
}

function checkLength(path: string): string {
  if (path.length > PATH_MAX / 4 && nameByteLength(path) > PATH_MAX) {
    throw new FsError("name_too_long", `the path is longer than ${PATH_MAX} bytes: ${path.slice(0, 60)}...`, {
      path,
      limit: PATH_MAX,
    });
  }
  return path;
}

/** Components of a normalised path; none for the root. */
export function split(path: string): string[] {
  return path === "/" ? [] : path.slice(1).split("/");
}

/** `base` and what follows below it, normalised. An absolute later part begins anew, as in a shell. */
export function join(base: string, ...parts: readonly string[]): string {
  let all = base;
  for (const part of parts) all = part.startsWith("/") ? part : `${all}/${part}`;
  return normalise(all);
}

/** The folder of a normalised path; `/` for the root itself. */
export function dirname(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash <= 0 ? "/" : path.slice(0, slash);
}

/** The last component of a normalised path; "" for the root. */
export function basename(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** One child of a normalised directory path. The name is not checked. */
export function child(directory: string, name: string): string {
  return directory === "/" ? `/${name}` : `${directory}/${name}`;
}

/** Is `path` the directory itself or below it? Both normalised. */
export function isWithin(path: string, directory: string): boolean {
  return path === directory || directory === "/" || path.startsWith(`${directory}/`);
}

/** Throws invalid_input unless the path is normalised: backends are handed nothing else. */
export function requireNormal(path: string): void {
  if (!isPlain(path) && normalise(path) !== path) {
    throw new FsError("invalid_input", `${JSON.stringify(path)} is not a normalised absolute path`, { path });
  }
}
