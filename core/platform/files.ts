/** Whole-file and folder calls on the machine's own filesystem. Paths are local paths; failures are FsError. */
import { Errno, errorFromErrno, type FsError, toFsError } from "../fs/error.ts";

export interface LocalInfo {
  readonly isFile: boolean;
  readonly isDirectory: boolean;
  readonly isSymlink: boolean;
  readonly size: number;
  readonly mode: number;
  readonly mtimeMs: number;
}

/** Deno's errors as FsError: by its `os error N` when there is one, else by class. */
export function fromDeno(error: unknown, operation: string, path: string): FsError {
  if (error instanceof Error) {
    const match = /\(os error (\d+)\)/.exec(error.message);
    const details = { operation, path, cause: error };
    if (match?.[1] !== undefined) {
      return errorFromErrno(Number(match[1]), `${operation} ${path}: ${error.message}`, details);
    }
    if (error instanceof Deno.errors.NotFound) return errorFromErrno(Errno.ENOENT, `${path}: no such file`, details);
    if (error instanceof Deno.errors.AlreadyExists) return errorFromErrno(Errno.EEXIST, `${path}: exists`, details);
    if (error instanceof Deno.errors.PermissionDenied) {
      return errorFromErrno(Errno.EACCES, `${operation} ${path}: permission denied`, details);
    }
  }
  return toFsError(error, { operation, path });
}

async function attempt<T>(operation: string, path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw fromDeno(error, operation, path);
  }
}

export function makeFolder(path: string, mode = 0o700): Promise<void> {
  return attempt("mkdir", path, () => Deno.mkdir(path, { recursive: true, mode }));
}
export function readFile(path: string): Promise<Uint8Array<ArrayBuffer>> {
  return attempt("read", path, () => Deno.readFile(path));
}
export function readText(path: string): Promise<string> {
  return attempt("read", path, () => Deno.readTextFile(path));
}
/** Not atomic; for files nobody reads while they are written. */
export function writeFile(path: string, data: Uint8Array | string, mode = 0o600): Promise<void> {
  return attempt(
    "write",
    path,
    () => typeof data === "string" ? Deno.writeTextFile(path, data, { mode }) : Deno.writeFile(path, data, { mode }),
  );
}
/** Removes a file, or a folder with all in it; a missing one is fine. */
export async function removeTree(path: string): Promise<void> {
  try {
    await Deno.remove(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw fromDeno(error, "remove", path);
  }
}
/** Null when missing. Follows no symlink. */
export async function info(path: string): Promise<LocalInfo | null> {
  try {
    const s = await Deno.lstat(path);
    return {
      isFile: s.isFile,
      isDirectory: s.isDirectory,
      isSymlink: s.isSymlink,
      size: s.size,
      mode: s.mode ?? 0,
      mtimeMs: s.mtime?.getTime() ?? 0,
    };
  } catch (error) {
    const fsError = fromDeno(error, "stat", path);
    if (fsError.code === "not_found" || fsError.code === "not_a_directory") return null;
    throw fsError;
  }
}
/** Names in a folder, in no order. Names that are not UTF-8 are lost here: use backends/local for user data. */
export function listFolder(path: string): Promise<string[]> {
  return attempt("list", path, async () => {
    const names: string[] = [];
    for await (const entry of Deno.readDir(path)) names.push(entry.name);
    return names;
  });
}
/** The text of a small file, or null when it can't be read. Synchronous: for what is needed before anything else runs. */
export function readTextNow(path: string): string | null {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return null;
  }
}
/** Has the folder no entry at all? Reads one entry, not the whole folder. */
export function folderIsEmpty(path: string): Promise<boolean> {
  return attempt("list", path, async () => {
    for await (const _ of Deno.readDir(path)) return false;
    return true;
  });
}

/** Permission bits of a file, symlinks followed; null when it is missing. */
export async function permissionsOf(path: string): Promise<number | null> {
  try {
    return ((await Deno.stat(path)).mode ?? 0) & 0o7777;
  } catch (error) {
    const fsError = fromDeno(error, "stat", path);
    if (fsError.code === "not_found" || fsError.code === "not_a_directory") return null;
    throw fsError;
  }
}
/** The path with all its symbolic links resolved. Throws not_found. */
export function realPath(path: string): Promise<string> {
  return attempt("resolve", path, () => Deno.realPath(path));
}
