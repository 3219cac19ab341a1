/**
 * The contract every backend and layer implements as far as it can. Capability is the type: what a store can't do is a
 * method it doesn't have (see `capability.ts`), never one that throws `not_supported`.
 *
 * Paths are absolute, `/`-separated, case-sensitive, already normalised (FileStorage does that): no `.`/`..`, no empty
 * component, no NUL, no trailing slash except the root itself. Path operations follow no symlink in the last component
 * unless said otherwise; components before it may be symlinks only through FileStorage's PathResolver.
 * All failures are FsError. Every method may reject with `cancelled`, `unavailable`, `timeout` and `internal` beside what it lists.
 */
import type { DirEntry, Stat } from "./stat.ts";

export interface CallOptions {
  readonly signal?: AbortSignal;
}
export interface ReadOptions extends CallOptions {
  /** First byte, 0 or more. @default 0 */
  readonly offset?: number;
  /** At most so many bytes; fewer only at the end of the file. @default to the end */
  readonly length?: number;
}
export interface WriteOptions extends CallOptions {
  /** Permission bits of a file that is created. @default 0o644 */
  readonly mode?: number;
  /** Fail with `already_exists` when the file exists. @default false */
  readonly exclusive?: boolean;
  /** Fail with `conflict` unless the file's version (Stat.version) is this. 0 = must not exist. Only backends with versions. */
  readonly ifVersion?: number;
}
export interface ReadDirOptions extends CallOptions {
  /** Continue after this name (exclusive). Order is the backend's own but stable. */
  readonly after?: string;
  /** Entries at most. @default all */
  readonly limit?: number;
}

export interface FsRead {
  /** Throws not_found, is_a_directory. A short result means end of file, nothing else. */
  read(path: string, options?: ReadOptions): Promise<Uint8Array>;
  /** Same, as a stream of chunks of any size above 0. Errors reject the first call or error the stream. */
  openRead(path: string, options?: ReadOptions): Promise<ReadableStream<Uint8Array>>;
  exists(path: string, options?: CallOptions): Promise<boolean>;
  /** Follows no symlink (see FsLink). Throws not_found, not_a_directory. */
  stat(path: string, options?: CallOptions): Promise<Stat>;
}

export interface FsWrite {
  /** Replaces the whole file atomically: a reader sees the old or the new content, never a mix; durable when it resolves. Throws not_found (parent), is_a_directory, no_space. */
  write(path: string, data: Uint8Array, options?: WriteOptions): Promise<Stat>;
  /** Adds to the end, creating the file. Concurrent appends never overlap. */
  append(path: string, data: Uint8Array, options?: CallOptions): Promise<Stat>;
  /** Copies a file. Replaces an existing file. */
  copy(from: string, to: string, options?: CallOptions): Promise<Stat>;
  /** POSIX rename(2): replaces atomically; throws is_a_directory, not_a_directory, directory_not_empty, invalid_input (into itself). */
  rename(from: string, to: string, options?: CallOptions): Promise<void>;
  /** Throws not_found, is_a_directory. */
  removeFile(path: string, options?: CallOptions): Promise<void>;
  /** Cuts or extends with zeros. Throws not_found, is_a_directory. */
  truncate(path: string, size: number, options?: CallOptions): Promise<Stat>;
  /** As `write`, from a stream: nothing is visible until the stream was closed and `done` resolved; an error or abort leaves the old file untouched and no garbage. */
  openWrite(path: string, options?: WriteOptions): Promise<FileWriter>;
}

/** A streaming whole-file write. */
export interface FileWriter {
  readonly writable: WritableStream<Uint8Array>;
  /** Resolves when the new content is durable and visible; rejects when the write failed or was aborted. */
  readonly done: Promise<Stat>;
}

export interface FsDir {
  /** Entries without `.` and `..`. Throws not_found, not_a_directory (on the first step). */
  readDir(path: string, options?: ReadDirOptions): AsyncIterable<DirEntry>;
  /** Throws already_exists, not_found (parent). */
  createDir(path: string, options?: CallOptions & { readonly mode?: number }): Promise<Stat>;
  /** Creates missing parents; an existing directory is fine. Throws already_exists for a file in the way. */
  createDirAll(path: string, options?: CallOptions & { readonly mode?: number }): Promise<void>;
  /** Throws not_found, not_a_directory, directory_not_empty. */
  removeDir(path: string, options?: CallOptions): Promise<void>;
  /** Removes a file or a whole tree; missing is fine. The root itself stays, emptied. */
  removeDirAll(path: string, options?: CallOptions): Promise<void>;
}

export type Fs = FsRead & FsWrite & FsDir;

export interface FsLink {
  symlink(target: string, path: string, options?: CallOptions): Promise<Stat>;
  /** Throws not_found, invalid_input (not a symlink). */
  readLink(path: string, options?: CallOptions): Promise<string>;
  /** Throws already_exists, not_found, permission_denied (directory). */
  hardLink(existing: string, path: string, options?: CallOptions): Promise<Stat>;
}
export interface FsPermissions {
  /** Permission bits 0..0o7777. */
  chmod(path: string, mode: number, options?: CallOptions): Promise<void>;
  chown(path: string, uid: number, gid: number, options?: CallOptions): Promise<void>;
}
export interface FileTime {
  readonly sec: number;
  readonly nsec: number;
}
export interface FsTimes {
  utimes(path: string, atime: FileTime, mtime: FileTime, options?: CallOptions): Promise<void>;
}
export interface FsXattr {
  /** Throws not_found with errno ENODATA when the attribute is missing. */
  getXattr(path: string, name: string, options?: CallOptions): Promise<Uint8Array>;
  setXattr(
    path: string,
    name: string,
    value: Uint8Array,
    options?: CallOptions & { readonly mode?: "create" | "replace" },
  ): Promise<void>;
  listXattr(path: string, options?: CallOptions): Promise<string[]>;
  removeXattr(path: string, name: string, options?: CallOptions): Promise<void>;
}
export interface FsSync {
  /** What was acknowledged for this path survives a power cut once this resolves. */
  sync(path: string, options?: CallOptions): Promise<void>;
  syncAll(options?: CallOptions): Promise<void>;
}
export interface StatFs {
  /** Bytes. */
  readonly total: number;
  readonly free: number;
  /** Nodes there can be, and how many of them there are not yet (statvfs f_files, f_ffree). */
  readonly files: number;
  readonly freeFiles: number;
}
export interface FsStats {
  statFs(options?: CallOptions): Promise<StatFs>;
}
export interface FsChange {
  readonly path: string;
  readonly kind: "create" | "modify" | "remove" | "rename";
}
export interface FsWatch {
  watch(prefix: string, options?: CallOptions): AsyncIterable<FsChange>;
}
export type FsFull = Fs & FsLink & FsPermissions & FsTimes & FsSync & FsStats;

/** What differs between stores, declared once by each backend and checked by the conformance suite. */
export interface BackendTraits {
  /** Registry name: memory, local, s3, remote ... */
  readonly backend: string;
  readonly caseSensitive: boolean;
  /** Names that are not valid UTF-8 survive. */
  readonly bytesInNames: boolean;
  /** Directories are real: an empty one can exist. */
  readonly emptyDirs: boolean;
  /** rename replaces atomically, for directories of any size too. */
  readonly atomicRename: boolean;
  /** mode, owner, times are kept. Precision of mtime in nanoseconds. */
  readonly permissions: boolean;
  readonly mtimePrecisionNs: number;
  /** Each difference that is not obvious, with its reason. */
  readonly notes: readonly string[];
}
export interface Backend extends Fs {
  readonly traits: BackendTraits;
  close(): Promise<void>;
}
