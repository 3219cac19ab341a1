/** The ambient world (clock, timers, random, files, network, processes) and the few files that may touch it directly. */

/** The seam itself. */
export const SEAM = /^core\/platform\//;
/** The kernel's descriptors and memory: every use of Deno is allowed in these files of fuse/. */
export const FUSE_FFI = /^fuse\/(.*\/)?(ffi|libc|sys|device|mount)[a-z_]*\.ts$/;

/** Global names that are the world, whatever is done with them. */
export const AMBIENT_GLOBALS: ReadonlySet<string> = new Set([
  "Deno",
  "process",
  "performance",
  "setTimeout",
  "setInterval",
  "setImmediate",
  "clearTimeout",
  "clearInterval",
  "fetch",
  "WebSocket",
  "WebSocketStream",
  "EventSource",
  "XMLHttpRequest",
  "localStorage",
  "sessionStorage",
  "caches",
  "alert",
  "confirm",
  "prompt",
]);

/** Members of harmless globals that are not harmless. */
export const AMBIENT_MEMBERS: { readonly [object: string]: ReadonlySet<string> } = {
  Date: new Set(["now"]),
  Math: new Set(["random"]),
  crypto: new Set(["randomUUID", "getRandomValues"]),
  AbortSignal: new Set(["timeout"]),
};

/** Objects through which a global can be reached by another name. */
export const GLOBAL_OBJECTS: ReadonlySet<string> = new Set(["globalThis", "self", "window"]);

/** Node's modules that only compute. All others reach into the world. */
export const PURE_NODE_MODULES: ReadonlySet<string> = new Set([
  "node:assert",
  "node:assert/strict",
  "node:buffer",
  "node:crypto",
  "node:events",
  "node:path",
  "node:path/posix",
  "node:stream",
  "node:stream/web",
  "node:string_decoder",
  "node:util",
  "node:zlib",
]);

/** Names that may not be taken from a module that is otherwise pure. */
export const IMPURE_NAMES: { readonly [module: string]: RegExp } = {
  "node:crypto": /^(random|getRandomValues|webcrypto|generateKey)/,
};
