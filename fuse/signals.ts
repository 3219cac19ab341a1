/** Why a caller was interrupted: read from the pending signals of its thread (proc(5), SigPnd and ShdPnd). */
import { Opcode } from "./abi.ts";
import { readProc } from "./libc.ts";

const bit = (signal: number): bigint => 1n << BigInt(signal - 1);
const SIGKILL = bit(9);
/** SIGHUP, SIGINT, SIGQUIT, SIGTERM: somebody wants the program to stop. */
const ENDING = bit(1) | bit(2) | bit(3) | bit(15);

/** Operations that change nothing: an EINTR tells no lie. */
export const READING: ReadonlySet<number> = new Set([
  Opcode.LOOKUP,
  Opcode.GETATTR,
  Opcode.STATX,
  Opcode.READLINK,
  Opcode.OPEN,
  Opcode.READ,
  Opcode.STATFS,
  Opcode.GETXATTR,
  Opcode.LISTXATTR,
  Opcode.OPENDIR,
  Opcode.READDIR,
  Opcode.READDIRPLUS,
  Opcode.GETLK,
  Opcode.LSEEK,
]);

/**
 * Should the waiting request `op` of thread `pid` be answered EINTR now? Always when the thread is dying (the kernel puts
 * SIGKILL on every thread of a process that a signal ends) or gone. A signal with a handler (SIGCHLD, a profiler's
 * timer) must not make a `stat` fail; one that asks the program to end may, when the operation only reads.
 */
export function interruption(pid: number, op: number): boolean {
  // Of another pid namespace: its signals can't be seen. What only reads may be asked again.
  if (pid === 0) return READING.has(op);
  const status = readProc(`/proc/${pid}/status`);
  if (status === null) return true;
  let pending = 0n;
  for (const match of status.matchAll(/^S(?:ig|hd)Pnd:\s*([0-9a-f]+)$/gm)) pending |= BigInt(`0x${match[1]}`);
  if ((pending & SIGKILL) !== 0n) return true;
  return READING.has(op) && (pending & ENDING) !== 0n;
}
