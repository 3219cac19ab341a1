/** The failures that every backend words the same way. */
import { Errno, FsError, type FsErrorCode, type FsErrorDetails } from "./error.ts";

const WORDS: Partial<Record<FsErrorCode, string>> = {
  not_found: "no such file or directory",
  already_exists: "already exists",
  not_a_directory: "not a directory",
  is_a_directory: "is a directory",
  directory_not_empty: "the directory is not empty",
  permission_denied: "the operation is not permitted",
  access_denied: "access denied",
  read_only: "the filesystem is read-only",
  no_space: "no space left",
  conflict: "it was changed by someone else meanwhile",
  too_many_links: "is a symbolic link, which this operation does not follow",
  not_supported: "this store can't do that",
};

/** `operation path: what is wrong`. */
export function failure(code: FsErrorCode, operation: string, path: string, details: FsErrorDetails = {}): FsError {
  return new FsError(code, `${operation} ${path}: ${WORDS[code] ?? code.replaceAll("_", " ")}`, {
    operation,
    path,
    ...details,
  });
}

/** The attribute does not exist on a file that does (ENODATA). */
export function noAttribute(operation: string, path: string, name: string): FsError {
  return new FsError("not_found", `${operation} ${path}: no attribute ${name}`, {
    operation,
    path,
    errno: Errno.ENODATA,
  });
}
