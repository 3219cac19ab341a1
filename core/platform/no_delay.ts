/**
 * TCP_NODELAY by FFI: Deno sets it on no socket, and what is written in several sends then waits up to 44 ms for the
 * peer's delayed acknowledgement. Accepted sockets inherit it from the listening one on Linux (tcp(7)).
 */
import { bindRare } from "./rare_calls.ts";

/** asm-generic/socket.h, linux/tcp.h. */
const SOL_SOCKET = 1;
const SO_ACCEPTCONN = 30;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
/** Size of the largest socket address (struct sockaddr_storage). */
const ADDRESS_BYTES = 128;

const libc = bindRare("libc.so.6", {
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
});

/** The TCP port of one end of a socket; 0 for every other descriptor. */
function portOf(fd: number, end: "getsockname" | "getpeername"): number {
  const address = new Uint8Array(ADDRESS_BYTES);
  if (libc[end](fd, address, new Uint8Array(Uint32Array.of(ADDRESS_BYTES).buffer)) !== 0) return 0;
  // sin_port and sin6_port stand at the same place, in network order; AF_INET is 2, AF_INET6 10.
  const view = new DataView(address.buffer);
  const family = view.getUint16(0, true);
  return family === 2 || family === 10 ? view.getUint16(2, false) : 0;
}

function isListening(fd: number): boolean {
  const value = new Int32Array(1);
  const length = new Uint8Array(Uint32Array.of(4).buffer);
  return libc.getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, new Uint8Array(value.buffer), length) === 0 && value[0] !== 0;
}

function setWhere(wanted: (fd: number) => boolean): number {
  if (Deno.build.os !== "linux") return 0;
  const one = new Uint8Array(Int32Array.of(1).buffer);
  let set = 0;
  for (const entry of Deno.readDirSync("/proc/self/fd")) {
    const fd = Number(entry.name);
    if (!wanted(fd)) continue;
    if (libc.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, one, 4) === 0) set++;
  }
  return set;
}

/** Sets it on every listening TCP socket of this process bound to `port`; returns how many. 0 where libc isn't Linux's. */
export function setListenerNoDelay(port: number): number {
  return setWhere((fd) => portOf(fd, "getsockname") === port && isListening(fd));
}

/** Sets it on every TCP connection of this process to `port` of any machine; returns how many. */
export function setConnectionNoDelay(port: number): number {
  return setWhere((fd) => portOf(fd, "getpeername") === port);
}
