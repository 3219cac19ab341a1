/**
 * BackingFiles: files that the kernel reads by itself (FUSE_PASSTHROUGH, Linux 6.9 and newer, root only). An inode is
 * either read through the page cache or through one backing file, never both at once (fs/fuse/iomode.c): this keeps count.
 * Only for mounts that are never written: a writer's mapped memory would go straight into the backing file.
 */
import { rareLibc } from "./libc.ts";

/** linux/fuse.h: _IOW(229, 1, struct fuse_backing_map), _IOW(229, 2, uint32_t). */
const BACKING_OPEN = 0x4010e501;
const BACKING_CLOSE = 0x4004e502;

/** A plain file that holds a node's bytes at their own offsets. */
export interface BackingFile {
  /** Its descriptor, open as long as `open` runs. */
  readonly fd: number;
  /** Names the bytes: equal for the same content, different for any other. */
  readonly key: string;
}
/** How an open file is read. */
export type OpenMode =
  | { readonly kind: "cached" }
  /**
   * Asked of the filesystem, past the page cache: others have the inode open through a backing file with older bytes. The
   * kernel wants the same backing file named here all the same, and maps memory from it.
   */
  | { readonly kind: "direct"; readonly id: number }
  | { readonly kind: "through"; readonly id: number };

interface Inode {
  cached: number;
  through: number;
  id: number;
  key: string;
}

export class BackingFiles {
  readonly #sessionFd: number;
  readonly #inodes = new Map<number, Inode>();
  readonly #handles = new Map<number, { ino: number; kind: "cached" | "through" }>();
  #refused = false;

  /** `sessionFd`: /dev/fuse of the mount. */
  constructor(sessionFd: number) {
    this.#sessionFd = sessionFd;
  }

  /** Inodes that are read through backing files now. */
  get through(): number {
    let count = 0;
    for (const inode of this.#inodes.values()) if (inode.through > 0) count++;
    return count;
  }

  /** Decides how handle `fh` of the inode is to be read, and counts it until `release`. */
  open(ino: number, fh: number, file: BackingFile | undefined): OpenMode {
    let inode = this.#inodes.get(ino);
    if (inode === undefined) this.#inodes.set(ino, inode = { cached: 0, through: 0, id: 0, key: "" });
    if (inode.through > 0 && inode.key !== file?.key) {
      inode.through++;
      this.#handles.set(fh, { ino, kind: "through" });
      return { kind: "direct", id: inode.id };
    }
    if (file !== undefined && inode.cached === 0) {
      if (inode.through === 0) {
        inode.id = this.#take(file.fd);
        inode.key = file.key;
      }
      if (inode.id > 0) {
        inode.through++;
        this.#handles.set(fh, { ino, kind: "through" });
        return { kind: "through", id: inode.id };
      }
    }
    inode.cached++;
    this.#handles.set(fh, { ino, kind: "cached" });
    return { kind: "cached" };
  }

  release(fh: number): void {
    const handle = this.#handles.get(fh);
    if (handle === undefined) return;
    this.#handles.delete(fh);
    const inode = this.#inodes.get(handle.ino);
    if (inode === undefined) return;
    inode[handle.kind]--;
    if (handle.kind === "through" && inode.through === 0) this.#give(inode.id);
    if (inode.cached === 0 && inode.through === 0) this.#inodes.delete(handle.ino);
  }

  /** An id for the file; 0 when the kernel does not allow it. */
  #take(fd: number): number {
    if (this.#refused) return 0;
    const map = new Int32Array(4);
    map[0] = fd;
    const id = rareLibc.ioctl(this.#sessionFd, BACKING_OPEN, new Uint8Array(map.buffer));
    // Not root, or a file on a filesystem that is itself stacked: then none will do.
    if (id <= 0) this.#refused = true;
    return Math.max(0, id);
  }
  #give(id: number): void {
    rareLibc.ioctl(this.#sessionFd, BACKING_CLOSE, new Uint8Array(new Int32Array([id]).buffer));
  }
}
