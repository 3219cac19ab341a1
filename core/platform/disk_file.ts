/**
 * Files and folders of the machine reached from other threads only: a disk or network folder that has stopped answering
 * delays the call that waits for it, never the process. Slower (about 50 µs a call) than posix.ts, for what may be a NAS.
 */
import { Errno, type FsError } from "../fs/error.ts";
import { fromDeno } from "./files.ts";

/** An open file. Offsets and lengths in bytes. Not for two readers at once: the position is shared. */
export interface DiskFile {
  /** Bytes. */
  size(): Promise<number>;
  /** Fills `into` from `offset`; returns fewer bytes only at the end of the file. */
  readAt(into: Uint8Array<ArrayBuffer>, offset: number): Promise<number>;
  /** Writes all of it at the current position. */
  writeAll(bytes: Uint8Array<ArrayBufferLike>): Promise<void>;
  /** The data is on the disk when this resolves (fdatasync(2)). */
  syncData(): Promise<void>;
  close(): void;
}

function wrap(path: string, file: Deno.FsFile): DiskFile {
  async function attempt<T>(operation: string, run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (error) {
      throw fromDeno(error, operation, path);
    }
  }
  return {
    size: () => attempt("stat", async () => (await file.stat()).size),
    readAt: (into, offset) =>
      attempt("read", async () => {
        await file.seek(offset, Deno.SeekMode.Start);
        let done = 0;
        while (done < into.length) {
          const n = await file.read(done === 0 ? into : into.subarray(done));
          if (n === null) break;
          done += n;
        }
        return done;
      }),
    writeAll: (bytes) =>
      attempt("write", async () => {
        let done = 0;
        while (done < bytes.length) done += await file.write(done === 0 ? bytes : bytes.subarray(done));
      }),
    syncData: () => attempt("fdatasync", () => file.syncData()),
    close: () => file.close(),
  };
}

/** Opens a file for reading. Throws not_found, access_denied. */
export async function openDiskFile(path: string): Promise<DiskFile> {
  try {
    return wrap(path, await Deno.open(path, { read: true }));
  } catch (error) {
    throw fromDeno(error, "open", path);
  }
}

/** Creates a file that must not exist yet. Throws already_exists, not_found (folder), access_denied, read_only. */
export async function createDiskFile(path: string, mode = 0o644): Promise<DiskFile> {
  try {
    return wrap(path, await Deno.open(path, { write: true, createNew: true, mode }));
  } catch (error) {
    throw fromDeno(error, "create", path);
  }
}

/** rename(2): replaces a file at `to`. */
export async function renameOnDisk(from: string, to: string): Promise<void> {
  try {
    await Deno.rename(from, to);
  } catch (error) {
    throw fromDeno(error, "rename", to);
  }
}

/** Removes a file; false when there was none. */
export async function removeFromDisk(path: string): Promise<boolean> {
  try {
    await Deno.remove(path);
    return true;
  } catch (error) {
    const failure = fromDeno(error, "unlink", path);
    if (failure.code === "not_found" || failure.code === "not_a_directory") return false;
    throw failure;
  }
}

/** Makes one folder; false when it is there already. Throws not_found (parent), already_exists (a file in the way). */
export async function makeDiskFolder(path: string, mode = 0o755): Promise<boolean> {
  try {
    await Deno.mkdir(path, { mode });
    return true;
  } catch (error) {
    const failure = fromDeno(error, "mkdir", path);
    if (failure.code !== "already_exists" || !(await Deno.stat(path).catch(() => null))?.isDirectory) throw failure;
    return false;
  }
}

/**
 * Creations, renames and removals in the folder are on the disk when this resolves. Network filesystems that refuse to
 * sync a folder (EINVAL, EOPNOTSUPP; they do it by themselves) are taken at their word.
 */
export async function syncDiskFolder(path: string): Promise<void> {
  try {
    const folder = await Deno.open(path, { read: true });
    try {
      await folder.sync();
    } finally {
      folder.close();
    }
  } catch (error) {
    const failure = fromDeno(error, "fsync", path);
    if (failure.errno !== Errno.EINVAL && failure.errno !== Errno.EOPNOTSUPP) throw failure;
  }
}

export interface DiskEntry {
  readonly name: string;
  readonly isDirectory: boolean;
  readonly isFile: boolean;
}

/** Entries of a folder in no order; null when there is no such folder. Names must be UTF-8. */
export async function readDiskFolder(path: string): Promise<DiskEntry[] | null> {
  const entries: DiskEntry[] = [];
  try {
    for await (const entry of Deno.readDir(path)) {
      entries.push({ name: entry.name, isDirectory: entry.isDirectory, isFile: entry.isFile });
    }
  } catch (error) {
    const failure: FsError = fromDeno(error, "list", path);
    if (failure.code === "not_found" || failure.code === "not_a_directory") return null;
    throw failure;
  }
  return entries;
}
