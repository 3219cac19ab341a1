/**
 * Files and folders of the machine reached from other threads only: a disk or network folder that has stopped answering
 * delays the call that waits for it, never the process. Slower (about 50 µs a call) than posix.ts, for what may be a NAS.
 * Deno.open and FsFile.write wait on the thread that calls them (seen with 2.7.11), so files are opened and written here.
 */
import { dirname } from "node:path";
import { Errno, errorFromErrno, FsError } from "../fs/error.ts";
import { fromDeno } from "./files.ts";
import {
  fsyncFdErrno,
  O_CLOEXEC,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_RDONLY,
  O_WRONLY,
  openFd,
  pathBytes,
  preadFdAsync,
  pwriteFd,
  syncFd,
} from "./posix.ts";
import { bindRare } from "./rare_calls.ts";

const SEEK_END = 2;
/** On another thread, where errno is out of reach. */
const elsewhere = bindRare("libc.so.6", {
  open: { parameters: ["buffer", "i32", "u32"], result: "i32", nonblocking: true },
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64", nonblocking: true },
  pwrite: { parameters: ["i32", "buffer", "usize", "i64"], result: "isize", nonblocking: true },
  fsync: { parameters: ["i32"], result: "i32", nonblocking: true },
  close: { parameters: ["i32"], result: "i32", nonblocking: true },
});

/** An open file. Offsets and lengths in bytes. */
export interface DiskFile {
  /** Bytes. */
  size(): Promise<number>;
  /** Fills `into` from `offset`; returns fewer bytes only at the end of the file. */
  readAt(into: Uint8Array<ArrayBuffer>, offset: number): Promise<number>;
  /** Writes all of it behind what was written before. Not twice at once. */
  writeAll(bytes: Uint8Array<ArrayBufferLike>): Promise<void>;
  /** The data is on the disk when this resolves (fdatasync(2)). */
  syncData(): Promise<void>;
  /** Nothing can be begun any more; the descriptor is closed when what is under way has ended. */
  close(): void;
}

class OpenDiskFile implements DiskFile {
  readonly #path: string;
  readonly #fd: number;
  #end = 0;
  #underWay = 0;
  #closed = false;

  constructor(path: string, fd: number) {
    this.#path = path;
    this.#fd = fd;
  }

  /** A call that nobody waits for any more may still run, or begin: its descriptor must not be another file's by then. */
  async #use<T>(call: (fd: number) => Promise<T>): Promise<T> {
    if (this.#closed) throw new FsError("cancelled", `${this.#path} is closed`, { path: this.#path });
    this.#underWay++;
    try {
      return await call(this.#fd);
    } finally {
      this.#underWay--;
      this.#closeWhenIdle();
    }
  }
  #closeWhenIdle(): void {
    if (this.#closed && this.#underWay === 0) void elsewhere.close(this.#fd);
  }

  size(): Promise<number> {
    return this.#use(async (fd) => {
      const size = Number(await elsewhere.lseek(fd, 0n, SEEK_END));
      if (size < 0) throw errorFromErrno(Errno.EIO, `lseek ${this.#path} failed`, { path: this.#path });
      return size;
    });
  }
  readAt(into: Uint8Array<ArrayBuffer>, offset: number): Promise<number> {
    return this.#use((fd) => preadFdAsync(fd, into, offset));
  }
  writeAll(bytes: Uint8Array<ArrayBufferLike>): Promise<void> {
    return this.#use(async (fd) => {
      for (let done = 0; done < bytes.length;) {
        const part = bytes.subarray(done) as Uint8Array<ArrayBuffer>;
        const n = Number(await elsewhere.pwrite(fd, part, BigInt(part.length), BigInt(this.#end)));
        // Once more, on this thread, to learn why; it may also succeed after all.
        if (n < 0) pwriteFd(fd, part, this.#end);
        const written = n < 0 ? part.length : n;
        this.#end += written;
        done += written;
      }
    });
  }
  syncData(): Promise<void> {
    return this.#use(syncFd);
  }
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#closeWhenIdle();
  }
}

/** Returns the descriptor. Throws by errno. */
async function openElsewhere(path: string, flags: number, mode: number): Promise<number> {
  const bytes = pathBytes(path);
  const fd = await elsewhere.open(bytes, flags | O_CLOEXEC, mode);
  // The buffer is used here for it to live until the call has ended.
  if (fd >= 0 || bytes.length === 0) return fd;
  // What is most often the reason can be learned from another thread: the file, or the folder it is to be made in, is missing.
  const needed = (flags & O_CREAT) === 0 ? path : dirname(path);
  try {
    await Deno.stat(needed);
  } catch (error) {
    throw fromDeno(error, "open", path);
  }
  return openFd(path, flags, mode);
}

/** Opens a file for reading. Throws not_found, access_denied. */
export async function openDiskFile(path: string): Promise<DiskFile> {
  return new OpenDiskFile(path, await openElsewhere(path, O_RDONLY, 0));
}

/** Creates a file that must not exist yet. Throws already_exists, not_found (folder), access_denied, read_only. */
export async function createDiskFile(path: string, mode = 0o644): Promise<DiskFile> {
  return new OpenDiskFile(path, await openElsewhere(path, O_WRONLY | O_CREAT | O_EXCL, mode));
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
  const fd = await openElsewhere(path, O_RDONLY | O_DIRECTORY, 0);
  try {
    if (await elsewhere.fsync(fd) === 0) return;
    const errno = fsyncFdErrno(fd);
    if (errno === Errno.EINVAL || errno === Errno.EOPNOTSUPP) return;
    // One that succeeds after one that failed says nothing.
    throw errorFromErrno(errno === 0 ? Errno.EIO : errno, `fsync ${path} failed`, { operation: "fsync", path });
  } finally {
    void elsewhere.close(fd);
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
