/** Mounting and unmounting: mount(2) as root, fusermount3 as a user, stale mounts replaced, a guard against our own crash. */
import { Errno, errorFromErrno, FsError } from "../core/fs/error.ts";
import { decodeName } from "../core/fs/names.ts";
import { runProgram, startWatcher, type Watcher } from "../core/platform/child.ts";
import { pid } from "../core/platform/process.ts";
import type { Clock } from "../core/platform/clock.ts";
import { folderIsEmpty, info } from "../core/platform/files.ts";
import { errnoName } from "../core/platform/posix.ts";
import {
  addressOf,
  cString,
  errno,
  F_SETFD,
  F_SETFL,
  FD_CLOEXEC,
  libc,
  MNT_DETACH,
  MS_NODEV,
  MS_NOSUID,
  MS_RDONLY,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDWR,
  rareLibc,
  readProc,
  realPath,
  UMOUNT_NOFOLLOW,
  unmountElsewhere,
  writeSys,
} from "./libc.ts";

/** What a mount point is mounted with. */
export interface MountSettings {
  /** Shown as the device by mount(8) and df(1). */
  readonly fsName: string;
  /** The type is shown as `fuse.` + this. */
  readonly subtype: string;
  readonly readOnly: boolean;
  /** Other users may enter (permissions still hold). */
  readonly allowOther: boolean;
}

/** One line of /proc/self/mountinfo (proc(5)). */
export interface MountEntry {
  readonly dir: string;
  /** `major:minor` of the filesystem. */
  readonly device: string;
  readonly type: string;
  readonly source: string;
}

/** How long a mount that is already there may take to show that it lives. */
const PROBE_MS = 5000;

const isRoot = (): boolean => rareLibc.geteuid() === 0;

function unescapeOctal(field: string): string {
  const text = field.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)));
  return decodeName(Uint8Array.from(text, (character) => character.charCodeAt(0)));
}

/** Every mount this process sees, oldest first. */
export function listMounts(): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of (readProc("/proc/self/mountinfo") ?? "").split("\n")) {
    const [left, right] = line.split(" - ");
    if (left === undefined || right === undefined) continue;
    const [, , device, , dir] = left.split(" ");
    const [type, source] = right.split(" ");
    if (device === undefined || dir === undefined || type === undefined) continue;
    entries.push({ dir: unescapeOctal(dir), device, type, source: unescapeOctal(source ?? "") });
  }
  return entries;
}

/** The topmost mount at exactly this directory (a resolved path). */
export function mountAt(dir: string): MountEntry | undefined {
  return listMounts().findLast((entry) => entry.dir === dir);
}

function isFuse(entry: MountEntry): boolean {
  return entry.type === "fuse" || entry.type.startsWith("fuse.");
}

/** The directory without symlinks. Throws not_found and the like. */
export function resolveDirectory(dir: string): string {
  const resolved = realPath(dir);
  if ("path" in resolved) return resolved.path;
  const details = { operation: "mount", path: dir };
  if (resolved.errno === Errno.ENOENT) {
    throw errorFromErrno(
      resolved.errno,
      `the mount point ${dir} does not exist: create it with mkdir -p ${dir}`,
      details,
    );
  }
  throw errorFromErrno(
    resolved.errno,
    `the mount point ${dir} can't be reached: ${errnoName(resolved.errno)}`,
    details,
  );
}

/**
 * Does the FUSE filesystem at `dir` answer? statfs(2) is never answered from the kernel's cache. `dead` when its server
 * is gone (ENOTCONN, ECONNABORTED), `silent` when there was no answer in time.
 */
async function probe(dir: string, clock: Clock): Promise<"alive" | "dead" | "silent"> {
  const path = cString(dir);
  const buffer = new Uint8Array(256);
  const asked = libc.statfs_elsewhere(path, buffer).then((result) => {
    if (result === 0) return "alive" as const;
    // errno stayed on the other thread; a dead mount fails at once, so it may be asked from this one.
    if (rareLibc.statfs(path, buffer) === 0) return "alive" as const;
    const code = errno();
    return code === Errno.ENOTCONN || code === 103 ? "dead" as const : "alive" as const;
  });
  const stop = new AbortController();
  try {
    return await Promise.race([asked, clock.sleep(PROBE_MS, stop.signal).then(() => "silent" as const)]);
  } finally {
    stop.abort();
  }
}

/** Takes a FUSE mount off the tree, waiting for nobody. Throws when the kernel or fusermount3 refuses. */
async function detach(dir: string): Promise<void> {
  if (isRoot()) {
    if (await unmountElsewhere(dir, MNT_DETACH | UMOUNT_NOFOLLOW)) return;
  } else {
    const result = await runFusermount(["-u", "-z", "--", dir]);
    if (result.code === 0) return;
    if (mountAt(dir) !== undefined) {
      throw errorFromErrno(Errno.EPERM, `${dir} can't be unmounted: ${result.stderr.trim()}`, {
        operation: "unmount",
        path: dir,
      });
    }
  }
  if (mountAt(dir) !== undefined) {
    throw errorFromErrno(Errno.EBUSY, `${dir} can't be unmounted: try umount -l ${dir} as root`, {
      operation: "unmount",
      path: dir,
    });
  }
}

/**
 * Unmounts a FUSE filesystem, of this process or another, alive, busy or dead.
 * `clean` when nobody used it; `lazy` when it was only taken off the tree and lives on until its last user leaves.
 * Throws invalid_input when `dir` is not a FUSE mount.
 */
export async function unmountDirectory(dir: string): Promise<"clean" | "lazy"> {
  const resolved = resolveDirectory(dir);
  const entry = mountAt(resolved);
  if (entry === undefined || !isFuse(entry)) {
    throw new FsError("invalid_input", `${dir} is not a mount point of AnyFS: see findmnt -t fuse.anyfs`, {
      operation: "unmount",
      path: dir,
    });
  }
  // Never on this thread: the kernel may ask us for something before the unmount can end.
  if (isRoot()) {
    if (await unmountElsewhere(resolved, UMOUNT_NOFOLLOW)) return "clean";
  } else if ((await runFusermount(["-u", "--", resolved])).code === 0) return "clean";
  await detach(resolved);
  return "lazy";
}

async function runFusermount(
  programArgs: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<{ code: number; stderr: string }> {
  try {
    return await runProgram("fusermount3", programArgs, environment);
  } catch (error) {
    if (error instanceof FsError && error.code === "not_found") {
      throw new FsError(
        "not_supported",
        "fusermount3 is needed to mount as an ordinary user: install the package fuse3, or run as root",
        { operation: "mount", cause: error },
      );
    }
    throw error;
  }
}

/**
 * Checks that a filesystem can be mounted at `dir` and returns it without symlinks; a mount left by a crashed server is
 * replaced. Throws not_found, not_a_directory, conflict (EBUSY: something lives there), directory_not_empty.
 */
export async function prepareMountPoint(dir: string, allowNonEmpty: boolean, clock: Clock): Promise<string> {
  const resolved = resolveDirectory(dir);
  const details = { operation: "mount", path: dir };
  for (let entry = mountAt(resolved); entry !== undefined && isFuse(entry); entry = mountAt(resolved)) {
    if (await probe(resolved, clock) !== "dead") {
      throw new FsError(
        "conflict",
        `${dir} is in use: ${entry.source} (${entry.type}) is mounted there; unmount it first with ` +
          `anyfs unmount ${dir}`,
        { ...details, errno: Errno.EBUSY },
      );
    }
    await detach(resolved);
  }
  const found = await info(resolved);
  if (found === null || !found.isDirectory) {
    throw errorFromErrno(Errno.ENOTDIR, `the mount point ${dir} is not a directory: name an empty directory`, details);
  }
  if (!allowNonEmpty && !await folderIsEmpty(resolved)) {
    throw new FsError(
      "directory_not_empty",
      `the mount point ${dir} is not empty, and a mount would hide what it holds: choose an empty directory, ` +
        "or allow this with --allow-non-empty",
      details,
    );
  }
  return resolved;
}

/** Mounts at a prepared directory. Returns the descriptor of /dev/fuse: close-on-exec, nonblocking, the caller's to close. */
export function mountAtDirectory(dir: string, settings: MountSettings): Promise<number> {
  return isRoot() ? Promise.resolve(mountAsRoot(dir, settings)) : mountAsUser(dir, settings);
}

function mountAsRoot(dir: string, settings: MountSettings): number {
  const details = { operation: "mount", path: dir };
  const fd = rareLibc.open(cString("/dev/fuse"), O_RDWR | O_CLOEXEC | O_NONBLOCK, 0);
  if (fd < 0) {
    const code = errno();
    throw errorFromErrno(
      code,
      `/dev/fuse can't be opened (${errnoName(code)}): load the module with modprobe fuse; in a container, pass ` +
        "--device /dev/fuse --cap-add SYS_ADMIN",
      details,
    );
  }
  const data = `fd=${fd},rootmode=40000,user_id=0,group_id=0,default_permissions` +
    (settings.allowOther ? ",allow_other" : "");
  const flags = MS_NOSUID | MS_NODEV | (settings.readOnly ? MS_RDONLY : 0);
  const type = `fuse.${settings.subtype}`;
  if (rareLibc.mount(cString(settings.fsName), cString(dir), cString(type), BigInt(flags), cString(data)) !== 0) {
    const code = errno();
    rareLibc.close(fd);
    const fix = code === Errno.EPERM
      ? ": mounting needs CAP_SYS_ADMIN; in a container, pass --cap-add SYS_ADMIN"
      : code === Errno.ENODEV
      ? ": the kernel has no FUSE; load it with modprobe fuse"
      : "";
    throw errorFromErrno(code, `${dir} can't be mounted (${errnoName(code)})${fix}`, details);
  }
  return fd;
}

const AF_UNIX = 1;
const SOCK_STREAM_CLOEXEC = 1 | 0o2000000;
const MSG_CMSG_CLOEXEC = 0x40000000;

/** A mount option's value: fusermount3 splits at commas, a backslash keeps one. */
function optionValue(text: string): string {
  return text.replace(/[\\,]/g, (character) => `\\${character}`);
}

async function mountAsUser(dir: string, settings: MountSettings): Promise<number> {
  const pair = new Int32Array(2);
  if (rareLibc.socketpair(AF_UNIX, SOCK_STREAM_CLOEXEC, 0, new Uint8Array(pair.buffer)) !== 0) {
    throw errorFromErrno(errno(), "no socket pair for fusermount3", { operation: "mount", path: dir });
  }
  const [ours = -1, theirs = -1] = pair;
  const options = [
    `fsname=${optionValue(settings.fsName)}`,
    `subtype=${optionValue(settings.subtype)}`,
    "default_permissions",
    "nosuid",
    "nodev",
    ...(settings.allowOther ? ["allow_other"] : []),
    ...(settings.readOnly ? ["ro"] : []),
  ].join(",");
  rareLibc.fcntl(theirs, F_SETFD, 0);
  const running = runFusermount(["-o", options, "--", dir], { _FUSE_COMMFD: String(theirs) });
  // Closed here once the child has its copy, so that its failure shows as end of file.
  rareLibc.close(theirs);
  let fd: number | null = null;
  try {
    const result = (await Promise.all([receiveDescriptor(ours), running])) as [
      number | null,
      { code: number; stderr: string },
    ];
    fd = result[0];
    if (fd === null) throw fusermountError(dir, result[1].stderr.trim(), result[1].code);
  } finally {
    rareLibc.close(ours);
  }
  rareLibc.fcntl(fd, F_SETFD, FD_CLOEXEC);
  rareLibc.fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK);
  return fd;
}

/** What fusermount3 says, with what to do about it. */
function fusermountError(dir: string, said: string, code: number): FsError {
  const details = { operation: "mount", path: dir };
  const text = said.replace(/^fusermount3?: /, "") || `it ended with code ${code}`;
  const message = (fix: string) => `${dir} can't be mounted: fusermount3: ${text}${fix}`;
  if (text.includes("/dev/fuse")) {
    return errorFromErrno(
      Errno.EACCES,
      message("; allow users the device with chmod 666 /dev/fuse, or run as root"),
      details,
    );
  }
  if (text.includes("allow_other")) {
    return errorFromErrno(Errno.EPERM, message("; or mount without allow-other"), details);
  }
  if (text.includes("write access")) {
    return errorFromErrno(Errno.EACCES, message("; choose a directory you own"), details);
  }
  return errorFromErrno(Errno.EPERM, message(""), details);
}

/**
 * Receives one byte with a descriptor attached (SCM_RIGHTS, unix(7)); null at end of file.
 * struct msghdr of 64-bit Linux: name@0 namelen@8 iov@16 iovlen@24 control@32 controllen@40 flags@48.
 */
async function receiveDescriptor(socket: number): Promise<number | null> {
  const memory = new Uint8Array(256);
  const view = new DataView(memory.buffer);
  const base = addressOf(memory);
  const IOV = 64, CONTROL = 96, BYTE = 160;
  view.setBigUint64(16, base + BigInt(IOV), true);
  view.setBigUint64(24, 1n, true);
  view.setBigUint64(32, base + BigInt(CONTROL), true);
  view.setBigUint64(40, 24n, true);
  view.setBigUint64(IOV, base + BigInt(BYTE), true);
  view.setBigUint64(IOV + 8, 1n, true);
  const received = Number(await libc.recvmsg(socket, memory, MSG_CMSG_CLOEXEC));
  const SOL_SOCKET = 1, SCM_RIGHTS = 1;
  const hasDescriptor = received === 1 && view.getBigUint64(40, true) >= 20n &&
    view.getInt32(CONTROL + 8, true) === SOL_SOCKET && view.getInt32(CONTROL + 12, true) === SCM_RIGHTS;
  return hasDescriptor ? view.getInt32(CONTROL + 16, true) : null;
}

/**
 * What the guard runs, with the mount point, its device (mountinfo's `0:39`), the process to outlive and the command that
 * takes the mount off the tree. A thread of that process that writes a notification may wait for a page or a directory whose
 * answer died with the process: then the descriptor of /dev/fuse and our pipe stay open, all wait for each other, and only
 * an abort of the connection ends that. So the guard asks to be signalled when its parent's thread ends (PR_SET_PDEATHSIG),
 * and looks whether that was the process's end. (SIGURG: one that comes before the trap is set does nothing.)
 */
const GUARD_SCRIPT = `
dir=$0 device=$1 parent=$2; shift 2
trap "" INT TERM HUP
trap woken=1 URG
is_dead() {
  { read -r line < "/proc/$parent/stat"; } 2>/dev/null || return 0
  case "\${line##*) }" in [ZX]*) return 0;; esac
  return 1
}
is_there() {
  while read -r _ _ at _; do [ "$at" = "$device" ] && return 0; done < /proc/self/mountinfo
  return 1
}
abort() {
  connection=/sys/fs/fuse/connections/\${device#*:}/abort
  { echo 1 > "$connection"; } 2>/dev/null && return
  # Where nobody has mounted what aborts connections, as in containers: for root, in a namespace of its own.
  unshare -m sh -c "mount -t fusectl none /sys/fs/fuse/connections && echo 1 > $connection" 2>/dev/null && return
  is_there && umount -f -i -c -- "$dir"
}
while :; do
  is_dead && abort
  x= woken=
  # Ends at a line, at the signal, or at the end of our input: no part of the process lives then.
  read -r x
  [ -n "$woken" ] || break
  # The signal comes a moment before the process is seen to be dead.
  for _ in 1 2 3 4 5 6 7 8 9 10; do is_dead && break; sleep 0.1; done
done
[ "$x" = ok ] || stat -f -- "$dir" || "$@" "$dir"
`;

/**
 * A shell that outlives us and then takes the dead mount off the tree, unless it reads `ok`. (fusermount3's auto_unmount
 * fails for users in fuse3 3.14.) A mount that answers is somebody's new one.
 */
export function startGuard(dir: string, device: string): Watcher {
  const unmount = isRoot() ? ["umount", "-l", "--"] : ["fusermount3", "-uz", "--"];
  const shell = ["/bin/sh", "-c", GUARD_SCRIPT, dir, device, String(pid()), ...unmount];
  // Without setpriv (util-linux) the shell has only the end of its input.
  const start = 'setpriv --pdeathsig URG true 2>/dev/null && exec setpriv --pdeathsig URG "$@"; exec "$@"';
  return startWatcher("/bin/sh", ["-c", start, "sh", ...shell]);
}

/** Lets the kernel read ahead so far (root only). Call after INIT was answered, which sets a lower one. */
export function raiseReadAhead(dir: string, kib: number): boolean {
  const entry = mountAt(dir);
  return entry !== undefined && isRoot() && writeSys(`/sys/class/bdi/${entry.device}/read_ahead_kb`, String(kib));
}
