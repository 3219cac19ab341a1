/** The system calls that the kernel protocol and mounting need, by FFI. Sizes travel as u32: a number passed as usize leaves V8's fast path (120 ns). */
import { decodeName, encodeName } from "../core/fs/names.ts";
import { bindRare } from "../core/platform/rare_calls.ts";
import { PAGE_SIZE } from "./abi.ts";

const lib = Deno.dlopen("libc.so.6", {
  read: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  write: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  write_elsewhere: { name: "write", parameters: ["i32", "buffer", "u32"], result: "i32", nonblocking: true },
  writev: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32", nonblocking: true },
  sched_yield: { parameters: [], result: "i32" },
  umount2_elsewhere: { name: "umount2", parameters: ["buffer", "i32"], result: "i32", nonblocking: true },
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "isize", nonblocking: true },
  statfs_elsewhere: { name: "statfs", parameters: ["buffer", "buffer"], result: "i32", nonblocking: true },
});

/** The calls themselves. Those named `_elsewhere`, `poll` and `recvmsg` run on another thread and return promises. */
export const libc = lib.symbols;

/** Those that are no part of a request, or of few. */
export const rareLibc = bindRare("libc.so.6", {
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  mount: { parameters: ["buffer", "buffer", "buffer", "u64", "buffer"], result: "i32" },
  geteuid: { parameters: [], result: "u32" },
  realpath: { parameters: ["buffer", "buffer"], result: "pointer" },
  __errno_location: { parameters: [], result: "pointer" },
  ioctl: { parameters: ["i32", "u32", "buffer"], result: "i32" },
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  statfs: { parameters: ["buffer", "buffer"], result: "i32" },
});

function errnoView(): Int32Array {
  const location = rareLibc.__errno_location();
  if (location === null) throw new Error("libc gave no errno location");
  return new Int32Array(Deno.UnsafePointerView.getArrayBuffer(location, 4));
}
const errnoCell = errnoView();

/** errno of this thread's last synchronous call. Read it in the very next expression: an allocation in between can change it. */
export function errno(): number {
  return errnoCell[0] ?? 0;
}

export const O_RDONLY = 0;
export const O_WRONLY = 1;
export const O_RDWR = 2;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
export const F_SETFD = 2;
export const F_SETFL = 4;
export const FD_CLOEXEC = 1;
export const POLLIN = 1;
export const MNT_DETACH = 2;
export const UMOUNT_NOFOLLOW = 8;
export const MS_RDONLY = 1;
export const MS_NOSUID = 2;
export const MS_NODEV = 4;

/** Text as the NUL-terminated bytes libc wants; names that are not UTF-8 survive. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  const bytes = encodeName(text);
  const out = new Uint8Array(bytes.length + 1);
  out.set(bytes);
  return out;
}

/** umount2(2) on another thread, where the kernel may wait for answers of this one. */
export async function unmountElsewhere(dir: string, flags: number): Promise<boolean> {
  const path = cString(dir);
  const result = await libc.umount2_elsewhere(path, flags);
  // The path is looked at again so that it is not collected while the other thread reads it.
  return result === 0 && path.length > 0;
}

/** Where a buffer lies in memory. */
export function addressOf(buffer: Uint8Array<ArrayBuffer>): bigint {
  return Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer));
}

/** A buffer of `bytes` whose byte `aligned` lies on a page boundary, so that the kernel copies whole pages. */
export function alignedBuffer(bytes: number, aligned: number): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(bytes + PAGE_SIZE + 8);
  const start = Number(addressOf(whole) % BigInt(PAGE_SIZE));
  const offset = (2 * PAGE_SIZE - start - aligned) % PAGE_SIZE;
  return whole.subarray(offset, offset + bytes);
}

const PROC_CHUNK = 16384;

/** The bytes of a file of /proc as Latin-1 text (one character a byte); null when it can't be read. */
export function readProc(path: string): string | null {
  const fd = rareLibc.open(cString(path), O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) return null;
  const decoder = new TextDecoder("latin1");
  const buffer = new Uint8Array(PROC_CHUNK);
  let text = "";
  let length: number;
  while ((length = libc.read(fd, buffer, PROC_CHUNK)) > 0) text += decoder.decode(buffer.subarray(0, length));
  rareLibc.close(fd);
  return length < 0 ? null : text;
}

/** Writes a short text to a file of /sys; false when that is not allowed. */
export function writeSys(path: string, text: string): boolean {
  const fd = rareLibc.open(cString(path), O_WRONLY | O_CLOEXEC, 0);
  if (fd < 0) return false;
  const bytes = new TextEncoder().encode(text);
  const written = libc.write(fd, bytes, bytes.length);
  rareLibc.close(fd);
  return written === bytes.length;
}

/** realpath(3): absolute, without symlinks. Null and errno when it can't be resolved. */
export function realPath(path: string): { path: string } | { errno: number } {
  const resolved = new Uint8Array(4097);
  if (rareLibc.realpath(cString(path), resolved) === null) return { errno: errno() };
  return { path: decodeName(resolved, 0, resolved.indexOf(0)) };
}
