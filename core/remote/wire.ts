/** The protocol's values in MessagePack: a codec for each call, result and push, and the frames of a message. */
import { decode, Encoder } from "@msgpack/msgpack";
import { FsError, type FsErrorCode, isFsErrorCode } from "../fs/error.ts";
import type { DirEntry, Stat } from "../fs/stat.ts";
import type { WantedChunk } from "../index/contents.ts";
import type { Op, OpDone, Time } from "../index/ops.ts";
import { MAX_CHUNK } from "../store/chunker.ts";
import { HASH_LENGTH } from "../store/hash.ts";
import {
  boolean,
  bytes,
  choice,
  type Codec,
  hexHash,
  integer,
  list,
  nothing,
  nullable,
  optional,
  record,
  text,
  tuple,
  variants,
  wireName,
} from "./codec.ts";
import {
  type Applied,
  type ApplyCall,
  type Calls,
  type Hello,
  type LockAnswer,
  MAX_INLINE_BYTES,
  MAX_MESSAGE,
  type Method,
  type PushedChange,
  type Pushes,
  type PushKind,
  type Welcome,
  type WireLock,
} from "./protocol.ts";

/** Entries of one readDir, changes of one push, operations of one apply. */
export const MAX_ENTRIES = 1000;
export const MAX_OPS = 4096;
/** Locks, or files with locks, that one device may claim. */
export const MAX_CLAIMED = 65_536;
/** Chunks one `missing` may ask about. */
export const MAX_WANTED = 65_536;
/** Longest value of an extended attribute (linux/limits.h XATTR_SIZE_MAX). */
const XATTR_SIZE_MAX = 65_536;

const natural = integer();
const whole = integer(Number.MIN_SAFE_INTEGER);
const u32 = integer(0, 2 ** 32 - 1);
const nanoseconds = integer(0, 999_999_999);
const ino = natural;
const hash = bytes(HASH_LENGTH, HASH_LENGTH);
const permissionBits = integer(0, 0o7777);

/** The order of a Stat's numbers on the wire. Add at the end only. */
const STAT_ORDER = [
  "ino",
  "mode",
  "nlink",
  "uid",
  "gid",
  "rdev",
  "size",
  "atimeSec",
  "atimeNsec",
  "mtimeSec",
  "mtimeNsec",
  "ctimeSec",
  "ctimeNsec",
  "btimeSec",
  "btimeNsec",
  "version",
  "content",
  "tiers",
  "holes",
  "xattrs",
] as const satisfies readonly (keyof Stat)[];

const statFields = {
  ino,
  mode: u32,
  nlink: u32,
  uid: u32,
  gid: u32,
  rdev: natural,
  size: natural,
  atimeSec: whole,
  atimeNsec: nanoseconds,
  mtimeSec: whole,
  mtimeNsec: nanoseconds,
  ctimeSec: whole,
  ctimeNsec: nanoseconds,
  btimeSec: whole,
  btimeNsec: nanoseconds,
  version: natural,
  content: nullable(hexHash),
  tiers: integer(0, 255),
  holes: optional(natural),
  xattrs: optional<number | null>(natural as Codec<number | null>),
};
const stat: Codec<Stat> = tuple<Stat>(STAT_ORDER, statFields);

const time = record<Time>({ sec: whole, nsec: nanoseconds });
const tag = <const T extends string>(value: T): Codec<T> => choice(value);

type OpOf<T extends Op["t"]> = Extract<Op, { readonly t: T }>;
const op: Codec<Op> = variants<Op, "t">("t", {
  create: record<OpOf<"create">>({
    t: tag("create"),
    parent: ino,
    name: wireName,
    ino,
    mode: u32,
    uid: u32,
    gid: u32,
    rdev: natural,
    target: optional(wireName),
    time,
  }),
  link: record<OpOf<"link">>({ t: tag("link"), ino, parent: ino, name: wireName, time }),
  unlink: record<OpOf<"unlink">>({
    t: tag("unlink"),
    parent: ino,
    name: wireName,
    ino,
    baseContent: optional(nullable(hexHash)),
    others: optional(boolean),
    time,
  }),
  rmdir: record<OpOf<"rmdir">>({ t: tag("rmdir"), parent: ino, name: wireName, ino, time }),
  rename: record<OpOf<"rename">>({
    t: tag("rename"),
    parent: ino,
    name: wireName,
    newParent: ino,
    newName: wireName,
    flags: integer(0, 3),
    ino,
    overIno: optional(ino),
    overContent: optional(nullable(hexHash)),
    overOthers: optional(boolean),
    time,
  }),
  attr: record<OpOf<"attr">>({
    t: tag("attr"),
    ino,
    mode: optional(permissionBits),
    uid: optional(u32),
    gid: optional(u32),
    atime: optional(time),
    mtime: optional(time),
    time,
  }),
  atime: record<OpOf<"atime">>({ t: tag("atime"), ino, atime: time }),
  content: record<OpOf<"content">>({
    t: tag("content"),
    ino,
    base: nullable(natural),
    baseContent: optional(nullable(hexHash)),
    content: nullable(hexHash),
    size: natural,
    holes: optional(natural),
    time,
    mode: optional(permissionBits),
  }),
  setxattr: record<OpOf<"setxattr">>({
    t: tag("setxattr"),
    ino,
    name: wireName,
    value: bytes(0, XATTR_SIZE_MAX),
    flags: integer(0, 3),
    time,
  }),
  removexattr: record<OpOf<"removexattr">>({ t: tag("removexattr"), ino, name: wireName, time }),
});

const done = record<OpDone>({ ino, version: natural });
const change = record<PushedChange>({
  seq: natural,
  device: natural,
  request: natural,
  kind: choice("entry", "node"),
  ino,
  parent: ino,
  name: wireName,
  stat: nullable(stat),
});
const wanted = record<WantedChunk>({ hash, length: integer(1, MAX_CHUNK) });
const chunk = record<{ hash: Uint8Array; bytes: Uint8Array }>({ hash, bytes: bytes(1, MAX_CHUNK) });
const blob = bytes(0, MAX_MESSAGE);

const hello = record<Hello>({
  protocol: natural,
  device: text(64),
  host: text(255),
  after: nullable(natural),
  epoch: nullable(text(64)),
});
const welcome = record<Welcome>({
  protocol: natural,
  device: natural,
  lastRequest: natural,
  epoch: text(64),
  bootSeq: natural,
  seq: natural,
  reset: boolean,
  run: text(64),
});
const applyCall = record<ApplyCall>({
  request: natural,
  previous: natural,
  group: boolean,
  urgent: boolean,
  chunks: list(chunk, MAX_INLINE_BYTES),
  manifests: list(blob, MAX_OPS),
  ops: list(op, MAX_OPS),
});
const applied = record<Applied>({
  done: list(done, MAX_OPS),
  stats: list(stat, 4 * MAX_OPS),
  seq: natural,
  repeated: boolean,
});

const lockFields = {
  ino,
  flock: boolean,
  owner: text(20),
  type: choice("read", "write"),
  start: natural,
  end: natural,
  pid: u32,
} as const;
const wireLock = record<WireLock>(lockFields);
const lockAnswer = record<LockAnswer>({
  state: choice("granted", "taken", "deadlock", "cancelled"),
  own: boolean,
  by: nullable(record({ type: choice("read", "write"), start: natural, end: natural, pid: u32 })),
});

type CallCodecs = {
  readonly [M in Method]: { readonly params: Codec<Calls[M]["params"]>; readonly result: Codec<Calls[M]["result"]> };
};
export const CALLS: CallCodecs = {
  hello: { params: hello, result: welcome },
  stat: { params: record({ ino }), result: nullable(stat) },
  writtenByMe: { params: record({ ino }), result: nullable(stat) },
  lookup: { params: record({ parent: ino, name: wireName }), result: nullable(stat) },
  readDir: {
    params: record({ parent: ino, after: nullable(wireName), limit: natural }),
    result: list(record<DirEntry>({ name: wireName, stat }), MAX_ENTRIES),
  },
  readLink: { params: record({ ino }), result: wireName },
  getXattr: { params: record({ ino, name: wireName }), result: nullable(bytes(0, XATTR_SIZE_MAX)) },
  listXattr: { params: record({ ino }), result: list(wireName, 65_536) },
  tiersOf: { params: record({ content: nullable(hexHash) }), result: integer(0, 255) },
  manifest: { params: record({ content: hexHash }), result: nullable(blob) },
  segment: { params: record({ hash }), result: nullable(blob) },
  missing: { params: record({ chunks: list(wanted, MAX_WANTED) }), result: list(natural, MAX_WANTED) },
  putSegment: { params: record({ blob }), result: nothing },
  apply: { params: applyCall, result: applied },
  statFs: {
    params: nothing,
    result: record({ total: natural, free: natural, files: natural, freeFiles: natural }),
  },
  announce: { params: record({ ino, pending: boolean }), result: nothing },
  waitDelivered: { params: record({ ino, timeoutMs: natural }), result: boolean },
  lock: {
    params: record<Calls["lock"]["params"]>({ ...lockFields, wait: boolean, ticket: natural, mayOwn: boolean }),
    result: lockAnswer,
  },
  cancelLock: { params: record({ ticket: natural }), result: nothing },
  unlock: {
    params: record({ ino, flock: boolean, owner: text(20), start: natural, end: natural }),
    result: nothing,
  },
  testLock: { params: wireLock, result: lockAnswer },
  claimLocks: {
    params: record<Calls["claimLocks"]["params"]>({
      run: nullable(text(64)),
      locks: list(record<WireLock & { fresh: boolean }>({ ...lockFields, fresh: boolean }), MAX_CLAIMED),
      own: list(ino, MAX_CLAIMED),
    }),
    result: record<Calls["claimLocks"]["result"]>({ lost: list(natural, MAX_CLAIMED), own: list(ino, MAX_CLAIMED) }),
  },
  giveBackLocks: { params: record({ ino, locks: list(wireLock, MAX_CLAIMED) }), result: nothing },
  reserveName: {
    params: record({ parent: ino, name: wireName, from: natural }),
    result: record({ free: boolean, ino }),
  },
  freeName: { params: record({ parent: ino, name: wireName }), result: nothing },
  ping: { params: nothing, result: integer(Number.MIN_SAFE_INTEGER) },
  hurried: { params: record({ n: natural }), result: nothing },
  heard: { params: record({ seq: natural }), result: nothing },
};

type PushCodecs = { readonly [K in PushKind]: Codec<Pushes[K]> };
export const PUSHES: PushCodecs = {
  changes: record({ seq: natural, changes: list(change, 4 * MAX_OPS) }),
  durable: record({ request: natural }),
  busy: record({ ino, pending: boolean }),
  reset: record({ seq: natural }),
  peers: record({ others: natural }),
  hurry: record({ n: natural }),
  recall: record({ ino }),
};

/** An error as it travels. */
export interface WireFailure {
  readonly code: FsErrorCode;
  readonly message: string;
  readonly errno: number;
  readonly path?: string;
}
const failure: Codec<WireFailure> = record<WireFailure>({
  code: {
    encode: (value) => value,
    // A newer peer may know more codes.
    decode: (value) => isFsErrorCode(value) ? value : "internal",
  },
  message: text(64 * 1024),
  errno: integer(0, 4095),
  path: optional(wireName),
});

export const FrameKind = { call: 0, result: 1, error: 2, push: 3 } as const;

export type ClientFrame = { readonly id: number; readonly method: Method; readonly params: unknown };
export type ServerFrame =
  | { readonly kind: "result"; readonly id: number; readonly value: unknown }
  | { readonly kind: "error"; readonly id: number; readonly failure: WireFailure }
  | { readonly kind: "push"; readonly push: PushKind; readonly value: unknown };

const encoder = new Encoder({ initialBufferSize: 64 * 1024 });

export function encodeCall<M extends Method>(
  id: number,
  method: M,
  params: Calls[M]["params"],
): Uint8Array<ArrayBuffer> {
  return encoder.encode([FrameKind.call, id, method, CALLS[method].params.encode(params)]);
}
export function encodeResult<M extends Method>(
  id: number,
  method: M,
  value: Calls[M]["result"],
): Uint8Array<ArrayBuffer> {
  return encoder.encode([FrameKind.result, id, CALLS[method].result.encode(value)]);
}
export function encodeFailure(id: number, error: FsError): Uint8Array<ArrayBuffer> {
  const { path } = error.details;
  return encoder.encode([
    FrameKind.error,
    id,
    failure.encode({
      code: error.code,
      message: error.message.toWellFormed().slice(0, 4096),
      errno: error.errno,
      ...(path !== undefined && { path }),
    }),
  ]);
}
export function encodePush<K extends PushKind>(kind: K, value: Pushes[K]): Uint8Array<ArrayBuffer> {
  return encoder.encode([FrameKind.push, kind, PUSHES[kind].encode(value)]);
}

/** The message made of these frames: a MessagePack array. */
export function joinFrames(frames: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const count = frames.length;
  const header = count < 16
    ? [0x90 | count]
    : count < 0x10000
    ? [0xdc, count >> 8, count & 0xff]
    : [0xdd, count >>> 24, (count >>> 16) & 0xff, (count >>> 8) & 0xff, count & 0xff];
  let length = header.length;
  for (const frame of frames) length += frame.length;
  const message = new Uint8Array(length);
  message.set(header);
  let at = header.length;
  for (const frame of frames) {
    message.set(frame, at);
    at += frame.length;
  }
  return message;
}

/** Deepest nesting a message may have: frames, frame, params, list, record, stat. */
const MAX_DEPTH = 12;

/**
 * Walks a MessagePack value without building it. Throws invalid_input when it is cut short, has a tail, nests too deep or
 * uses extension types: so that decoding it afterwards needs memory in proportion to its length only.
 */
export function checkStructure(message: Uint8Array): void {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  const bad = (what: string) => new FsError("invalid_input", `not a message of the protocol: ${what}`);
  const left = new Float64Array(MAX_DEPTH + 1);
  left[0] = 1;
  let depth = 0;
  let at = 0;
  const end = message.length;
  for (;;) {
    while (left[depth] === 0) {
      if (depth === 0) {
        if (at !== end) throw bad(`${end - at} bytes behind its end`);
        return;
      }
      depth--;
    }
    left[depth] = (left[depth] ?? 0) - 1;
    if (at >= end) throw bad("it is cut short");
    const head = message[at++] ?? 0;
    let skip = 0;
    let items = -1;
    const need = (n: number) => {
      if (at + n > end) throw bad("it is cut short");
    };
    if (head < 0x80 || head >= 0xe0) continue;
    else if (head < 0x90) items = (head & 0x0f) * 2;
    else if (head < 0xa0) items = head & 0x0f;
    else if (head < 0xc0) skip = head & 0x1f;
    else {
      switch (head) {
        case 0xc0:
        case 0xc2:
        case 0xc3:
          break;
        case 0xc4:
        case 0xd9:
          need(1);
          skip = 1 + view.getUint8(at);
          break;
        case 0xc5:
        case 0xda:
          need(2);
          skip = 2 + view.getUint16(at);
          break;
        case 0xc6:
        case 0xdb:
          need(4);
          skip = 4 + view.getUint32(at);
          break;
        case 0xcc:
        case 0xd0:
          skip = 1;
          break;
        case 0xcd:
        case 0xd1:
          skip = 2;
          break;
        case 0xca:
        case 0xce:
        case 0xd2:
          skip = 4;
          break;
        case 0xcb:
        case 0xcf:
        case 0xd3:
          skip = 8;
          break;
        case 0xdc:
        case 0xde:
          need(2);
          items = view.getUint16(at) * (head === 0xde ? 2 : 1);
          at += 2;
          break;
        case 0xdd:
        case 0xdf:
          need(4);
          items = view.getUint32(at) * (head === 0xdf ? 2 : 1);
          at += 4;
          break;
        default:
          throw bad(`the type 0x${head.toString(16)} is not used here`);
      }
    }
    if (items >= 0) {
      if (items > end - at) throw bad("it is cut short");
      if (++depth > MAX_DEPTH) throw bad("it nests too deep");
      left[depth] = items;
    } else {
      need(skip);
      at += skip;
    }
  }
}

function frames(message: Uint8Array): unknown[][] {
  if (message.length > MAX_MESSAGE) {
    throw new FsError("invalid_input", `a message of ${message.length} bytes is too long; the limit is ${MAX_MESSAGE}`);
  }
  checkStructure(message);
  let value: unknown;
  try {
    value = decode(message);
  } catch (error) {
    throw new FsError(
      "invalid_input",
      `not a message of the protocol: ${error instanceof Error ? error.message : error}`,
    );
  }
  if (!Array.isArray(value)) throw new FsError("invalid_input", "a message is a list of frames");
  for (const frame of value) {
    if (!Array.isArray(frame)) throw new FsError("invalid_input", "a frame is a list");
  }
  return value as unknown[][];
}

function callId(value: unknown): number {
  return natural.decode(value);
}

/** The calls in a message, parameters still undecoded. Throws invalid_input: the connection is of no use then. */
export function decodeCalls(message: Uint8Array): ClientFrame[] {
  return frames(message).map(([kind, id, method, params]) => {
    if (kind !== FrameKind.call) throw new FsError("invalid_input", "a client sends calls only");
    if (typeof method !== "string" || !Object.hasOwn(CALLS, method)) {
      throw new FsError("invalid_input", `no such call: ${JSON.stringify(method)?.slice(0, 80)}`);
    }
    return { id: callId(id), method: method as Method, params: params ?? null };
  });
}

/** What the server says in a message, values still undecoded. Pushes of an unknown kind (a newer server) are left out. */
export function decodeReplies(message: Uint8Array): ServerFrame[] {
  const out: ServerFrame[] = [];
  for (const [kind, second, third] of frames(message)) {
    if (kind === FrameKind.result) out.push({ kind: "result", id: callId(second), value: third ?? null });
    else if (kind === FrameKind.error) out.push({ kind: "error", id: callId(second), failure: failure.decode(third) });
    else if (kind === FrameKind.push) {
      if (typeof second === "string" && Object.hasOwn(PUSHES, second)) {
        out.push({ kind: "push", push: second as PushKind, value: third });
      }
    } else throw new FsError("invalid_input", "a server sends results, errors and pushes only");
  }
  return out;
}

/** The error a server reported. */
export function failureToError({ code, message, errno, path }: WireFailure, operation: string): FsError {
  return new FsError(code, message, { operation, errno, ...(path !== undefined && { path }) });
}

/** A `POST /v1/chunks` body: for each chunk its hash (32 bytes), its length (u32, little-endian) and its bytes. */
export function encodeChunks(
  chunks: readonly { readonly hash: Uint8Array; readonly bytes: Uint8Array }[],
): Uint8Array<ArrayBuffer> {
  let length = 0;
  for (const { bytes } of chunks) length += HASH_LENGTH + 4 + bytes.length;
  const body = new Uint8Array(length);
  const view = new DataView(body.buffer);
  let at = 0;
  for (const { hash, bytes } of chunks) {
    body.set(hash, at);
    view.setUint32(at + HASH_LENGTH, bytes.length, true);
    body.set(bytes, at + HASH_LENGTH + 4);
    at += HASH_LENGTH + 4 + bytes.length;
  }
  return body;
}

/** The inverse of encodeChunks; the parts are views into `body`. Throws invalid_input. */
export function decodeChunks(body: Uint8Array): { hash: Uint8Array; bytes: Uint8Array }[] {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const out: { hash: Uint8Array; bytes: Uint8Array }[] = [];
  let at = 0;
  while (at < body.length) {
    const start = at + HASH_LENGTH + 4;
    const length = start <= body.length ? view.getUint32(at + HASH_LENGTH, true) : 0;
    if (start > body.length || length < 1 || length > MAX_CHUNK || start + length > body.length) {
      throw new FsError(
        "invalid_input",
        `the chunks end in the middle or hold one that is not 1 to ${MAX_CHUNK} bytes long (at byte ${at})`,
        { operation: "put chunks" },
      );
    }
    out.push({ hash: body.subarray(at, at + HASH_LENGTH), bytes: body.subarray(start, start + length) });
    at = start + length;
  }
  return out;
}
