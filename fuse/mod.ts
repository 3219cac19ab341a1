/** Mounts an InodeFs as a real filesystem: the FUSE kernel protocol without libfuse. */
import { FsError } from "../core/fs/error.ts";
import type { InodeFs } from "../core/fs/inode_fs.ts";
import type { Watcher } from "../core/platform/child.ts";
import { type Clock, systemClock } from "../core/platform/clock.ts";
import { O_CLOEXEC, O_NONBLOCK, rareLibc } from "./libc.ts";
import { mountAt, mountAtDirectory, prepareMountPoint, raiseReadAhead, startGuard, unmountDirectory } from "./mount.ts";
import { Session, type SessionStats } from "./session.ts";

export type { NotifierStats } from "./notifier.ts";
export type { SessionStats } from "./session.ts";
export { listMounts, mountAt, type MountEntry, unmountDirectory } from "./mount.ts";

/** What to mount, where and how. Times in seconds, fractions allowed. */
export interface MountOptions {
  /** An existing, empty directory. A mount left there by a crashed server is replaced. */
  readonly dir: string;
  readonly fs: InodeFs;
  /** Shown as the device by mount(8) and df(1). */
  readonly fsName: string;
  /** The type is shown as `fuse.` + this. @default "anyfs" */
  readonly subtype?: string;
  /** @default false */
  readonly readOnly?: boolean;
  /** Other users may enter; for ordinary users only where /etc/fuse.conf has user_allow_other. @default true as root, else false */
  readonly allowOther?: boolean;
  /** Mount over a directory that is not empty. @default false */
  readonly allowNonEmpty?: boolean;
  /**
   * How long the kernel trusts a name, attributes, and that a name does not exist. Long times are right when the
   * filesystem invalidates what changes elsewhere. Kernels before 6.16 trust names for 30 s at most. @default 3600
   */
  readonly entryTimeoutSec?: number;
  readonly attrTimeoutSec?: number;
  readonly negativeTimeoutSec?: number;
  /** Let the kernel read backing files by itself where the filesystem names them: as root, on a read-only mount. */
  readonly passthrough?: boolean;
  /**
   * A call that only asks and has no answer after so many milliseconds ends with ETIMEDOUT; reads of bytes have a limit of
   * their own. @default Infinity
   */
  readonly requestTimeoutMs?: number;
  readonly readTimeoutMs?: number;
  /** Read-ahead of the kernel in KiB; takes effect as root only (128 otherwise). @default 4096 */
  readonly readAheadKib?: number;
  /** Called once when the filesystem is gone, however it came. */
  readonly onEnd?: () => void;
  /** Told of failures that are bugs: what the filesystem threw was not an FsError, or an `internal` one. */
  readonly onError?: (error: unknown, operation: string, ino: number) => void;
  /** @default the system's */
  readonly clock?: Clock;
}

/** A mounted filesystem. */
export interface FuseMount {
  /** The mount point without symlinks. */
  readonly dir: string;
  /** Resolves when the filesystem is unmounted, its last user gone and InodeFs.destroy done. Never rejects. */
  readonly ended: Promise<void>;
  /**
   * Unmounts. Nobody uses it: resolves when all is over. Busy: takes it off the tree and resolves; it is served on until
   * the last user leaves, which `ended` tells.
   */
  unmount(): Promise<void>;
  /** Takes it off the tree and ends it at once: who still uses it gets ENOTCONN. */
  abort(): Promise<void>;
  stats(): SessionStats;
  /** Resolves when no request waits for the filesystem and every notification was delivered. */
  idle(): Promise<void>;
}

/** What `mountFuse` will check first, for who has something long to do before: returns the folder without symlinks. Throws as it does. */
export async function checkMountPoint(dir: string, allowNonEmpty: boolean): Promise<string> {
  return await prepareMountPoint(dir, allowNonEmpty, systemClock);
}

/**
 * Mounts and serves until it is unmounted; the process stays alive meanwhile. Resolves when the kernel has taken it.
 * The thread that calls this must never touch the mount synchronously: it would wait for itself.
 * Throws not_found, not_a_directory, directory_not_empty, conflict (EBUSY), access_denied, permission_denied,
 * not_supported (no fusermount3, kernel too old).
 */
export async function mountFuse(options: MountOptions): Promise<FuseMount> {
  const clock = options.clock ?? systemClock;
  const dir = await prepareMountPoint(options.dir, options.allowNonEmpty ?? false, clock);
  const fd = await mountAtDirectory(dir, {
    fsName: options.fsName,
    subtype: options.subtype ?? "anyfs",
    readOnly: options.readOnly ?? false,
    allowOther: options.allowOther ?? rareLibc.geteuid() === 0,
  });
  const wakeFd = rareLibc.eventfd(0, O_CLOEXEC | O_NONBLOCK);
  const device = mountAt(dir)?.device;
  const guard = guardOf(dir, device ?? "", options);
  const ready = Promise.withResolvers<void>();
  const session = new Session(fd, wakeFd, {
    fs: options.fs,
    clock,
    entryTimeoutSec: options.entryTimeoutSec ?? 3600,
    attrTimeoutSec: options.attrTimeoutSec ?? 3600,
    negativeTimeoutSec: options.negativeTimeoutSec ?? 3600,
    passthrough: options.passthrough === true && options.readOnly === true && rareLibc.geteuid() === 0,
    requestTimeoutMs: options.requestTimeoutMs ?? Infinity,
    readTimeoutMs: options.readTimeoutMs ?? Infinity,
    onReady: ready.resolve,
    onError: (error, operation, ino) => {
      if (operation === "INIT") ready.reject(error);
      options.onError?.(error, operation, ino);
    },
  });
  const ended = (async () => {
    await session.run();
    // Ended, yet still there: the connection was aborted from outside.
    if (device !== undefined && mountAt(dir)?.device === device) await unmountDirectory(dir).catch(() => undefined);
    await guard?.finish("ok");
    rareLibc.close(fd);
    rareLibc.close(wakeFd);
    ready.reject(
      new FsError("unavailable", `${dir} was unmounted before it was ready`, { operation: "mount", path: dir }),
    );
    options.onEnd?.();
  })();
  try {
    await ready.promise;
  } catch (error) {
    await unmountDirectory(dir).catch(() => undefined);
    session.stop();
    throw error;
  }
  raiseReadAhead(dir, options.readAheadKib ?? 4096);

  let over = false;
  void ended.then(() => {
    over = true;
  });
  const unmount = async (): Promise<void> => {
    if (over) return;
    let how: "clean" | "lazy";
    try {
      how = await unmountDirectory(dir);
    } catch (error) {
      // Somebody else was faster (umount(8)): then it is over, or its last users are leaving.
      if (error instanceof FsError && error.code === "invalid_input") return;
      throw error;
    }
    if (how === "clean") await ended;
  };
  return {
    dir,
    ended,
    unmount,
    async abort() {
      if (over) return;
      // Taken off the tree already, it must not take away what is there by now.
      if (device === undefined || mountAt(dir)?.device === device) await unmountDirectory(dir).catch(() => undefined);
      session.stop();
      await ended;
    },
    stats: () => session.stats(),
    async idle() {
      await session.idle();
      await session.notifier.settled();
    },
  };
}

/** A mount works without its guard too, only its crash is then cleared no sooner than at the next start. */
function guardOf(dir: string, device: string, options: MountOptions): Watcher | null {
  try {
    return startGuard(dir, device);
  } catch (error) {
    options.onError?.(error, "guard", 0);
    return null;
  }
}
