/**
 * FileHandle: an open file that is read and written in place. What is written waits in a sparse staging file over the
 * content it changes; sync and close make it the file's new content, reading and hashing only what changed.
 */
import { FsError } from "../fs/error.ts";
import type { Stat } from "../fs/stat.ts";
import { Fd, truncateFd, writeFd } from "../platform/dir.ts";
import { O_CREAT, O_EXCL, O_RDWR, openFd, preadFdAsync, unlinkPath } from "../platform/posix.ts";
import { Extents } from "../store/extents.ts";

/** What a handle needs of the filesystem it is open on. */
export interface HandleHost {
  /** Null when the file has no name any more. */
  stat(ino: number): Promise<Stat | null>;
  /** Bytes of a content, fewer only at its end. */
  readContent(content: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array>;
  /** See TieredFs.change; null when the file changed meanwhile. */
  change(
    base: Stat,
    change: { dirty: Extents; size: number; baseValid: number },
    written: (offset: number, length: number) => Promise<Uint8Array>,
  ): Promise<Stat | null>;
  /** A path for a staging file that nothing else uses. */
  stagingPath(): string;
}

/** How often a sync is tried again when others keep changing the file. */
const RACES = 32;

export class FileHandle implements AsyncDisposable {
  readonly #host: HandleHost;
  #base: Stat;
  #size: number;
  /** So many bytes of the base still show where nothing was written. */
  #baseValid: number;
  readonly #dirty = new Extents();
  /** The size was set to less than there was: bytes that others have added since don't come back. */
  #cut = false;
  #changed = false;
  #staging: Fd | null = null;
  #tail: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(host: HandleHost, base: Stat) {
    this.#host = host;
    this.#base = base;
    this.#size = base.size;
    this.#baseValid = base.size;
  }

  get ino(): number {
    return this.#base.ino;
  }
  /** Bytes, what is not synced yet included. */
  get size(): number {
    return this.#size;
  }

  #run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#closed) {
      return Promise.reject(new FsError("invalid_input", "the file handle is closed", { errno: 9 }));
    }
    const mine = this.#tail.then(work, work);
    this.#tail = mine.catch(() => {});
    return mine;
  }

  /** Fewer bytes than asked for only at the end of the file. */
  readAt(offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    checkRange(offset, length);
    return this.#run(async () => {
      const end = Math.min(this.#size, offset + length);
      const out = new Uint8Array(Math.max(0, end - offset));
      if (out.length === 0) return out;
      for (const part of this.#dirty.intersect(offset, end)) {
        out.set(await this.#readStaged(part.start, part.end - part.start), part.start - offset);
      }
      const { content } = this.#base;
      for (const gap of this.#dirty.gaps(offset, end)) {
        const to = Math.min(gap.end, this.#baseValid);
        if (content === null || to <= gap.start) continue;
        const bytes = await this.#host.readContent(content, gap.start, to - gap.start, signal);
        if (bytes.length !== to - gap.start) throw new FsError("corrupt", "a content is shorter than its file says");
        out.set(bytes, gap.start - offset);
      }
      return out;
    });
  }

  async #readStaged(offset: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    const got = this.#staging === null ? 0 : await preadFdAsync(this.#staging.number, bytes, offset);
    if (got !== length) throw new FsError("corrupt", `a staging file has ${got} bytes where ${length} were written`);
    return bytes;
  }

  /** Throws no_space; then nothing has changed. `data` must not change before this resolves. */
  writeAt(offset: number, data: Uint8Array): Promise<void> {
    checkRange(offset, data.length);
    return this.#run(async () => {
      if (data.length === 0) return;
      await writeFd(this.#stage(), data, offset, "the staging file");
      this.#dirty.add(offset, offset + data.length);
      this.#size = Math.max(this.#size, offset + data.length);
      this.#changed = true;
    });
  }

  #stage(): Fd {
    if (this.#staging !== null) return this.#staging;
    const path = this.#host.stagingPath();
    this.#staging = new Fd(openFd(path, O_RDWR | O_CREAT | O_EXCL));
    // Without a name it is gone with the process, however that ends.
    unlinkPath(path);
    return this.#staging;
  }

  /** Cuts or extends with zeros. */
  truncate(size: number): Promise<void> {
    checkRange(size, 0);
    return this.#run(() => {
      if (size < this.#size) this.#cut = true;
      this.#dirty.truncate(size);
      this.#baseValid = Math.min(this.#baseValid, size);
      this.#size = size;
      this.#changed = true;
      return Promise.resolve();
    });
  }

  /** What was written is the file's content, and on the disk, when this resolves. */
  sync(): Promise<void> {
    return this.#run(() => this.#sync());
  }

  async #sync(): Promise<void> {
    for (let tries = 0; this.#changed; tries++) {
      const size = this.#size;
      const change = { dirty: this.#dirty, size, baseValid: this.#baseValid };
      const done = await this.#host.change(this.#base, change, (offset, length) => this.#readStaged(offset, length));
      if (done === null) {
        if (tries >= RACES) throw new FsError("conflict", "the file kept changing while it was synced; try again");
        if (await this.#rebase()) continue;
        // Unlinked: what is written to it now can be seen by nobody else, and goes with the handle.
        return;
      }
      this.#base = done;
      this.#baseValid = done.size;
      this.#dirty.clear();
      this.#changed = false;
      this.#cut = false;
      if (this.#staging !== null) await truncateFd(this.#staging, 0, "the staging file");
    }
  }

  /** Somebody else changed the file: what was written here lies over what it is now. False when it has no name any more. */
  async #rebase(): Promise<boolean> {
    const now = await this.#host.stat(this.ino);
    if (now === null) return false;
    if (!this.#cut) {
      this.#size = Math.max(now.size, this.#dirty.end);
      this.#baseValid = now.size;
    } else this.#baseValid = Math.min(this.#baseValid, now.size);
    this.#base = now;
    return true;
  }

  /** Syncs and ends. */
  async close(): Promise<void> {
    if (this.#closed) return;
    try {
      await this.#run(() => this.#sync());
    } finally {
      this.#closed = true;
      this.#staging?.[Symbol.dispose]();
    }
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function checkRange(offset: number, length: number): void {
  const good = (n: number) => Number.isSafeInteger(n) && n >= 0;
  if (good(offset) && good(length) && good(offset + length)) return;
  throw new FsError("invalid_input", `${length} bytes at ${offset} is no range of a file`);
}
