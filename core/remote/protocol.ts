/**
 * The protocol between a server and its clients: one WebSocket (`/v1/ws`) for metadata and push, plain HTTP for bulk
 * bytes by hash. This file is the one definition both ends share; docs/protocol.md tells it in prose.
 *
 * Every WebSocket message is one MessagePack array of frames, so many calls share a message:
 *   call   [0, id, method, params]      client -> server
 *   result [1, id, value]               server -> client
 *   error  [2, id, {code, message, errno, path?}]
 *   push   [3, kind, value]             server -> client
 * Names travel as strings when they are well-formed Unicode, else as bytes (see wireName).
 */
import type { Stat } from "../fs/stat.ts";
import type { Change, Op, OpDone } from "../index/ops.ts";
import type { WantedChunk } from "../index/contents.ts";

export const PROTOCOL_VERSION = 1;
/** A WebSocket message may have so many bytes. */
export const MAX_MESSAGE = 8 * 1024 * 1024;
/** Chunk bytes that may travel inside an apply call; more goes by POST /v1/chunks first. */
export const MAX_INLINE_BYTES = 512 * 1024;
/** A POST /v1/chunks body may have so many bytes. */
export const MAX_CHUNKS_BODY = 16 * 1024 * 1024;

export interface Hello {
  readonly protocol: number;
  /** The client's own lasting random id. */
  readonly device: string;
  readonly host: string;
  /** Push changes after this number; null: only new ones. */
  readonly after: number | null;
  /** The epoch the client knows, null at first. */
  readonly epoch: string | null;
}
export interface Welcome {
  readonly protocol: number;
  readonly device: number;
  /** Highest request number of this device that was applied. */
  readonly lastRequest: number;
  readonly epoch: string;
  /** See Index.bootSeq: what the client learnt under higher numbers, and before this run of the server, may be void. */
  readonly bootSeq: number;
  readonly seq: number;
  /** The client must forget what it cached: its `after` is too old, void, or of another epoch. */
  readonly reset: boolean;
  /** Id of this run of the server. */
  readonly run: string;
}
export interface ApplyCall {
  /** The device's ascending request number; 0: none. */
  readonly request: number;
  /**
   * The device's request before this one: the server refuses (`unavailable`) when it has not seen that to its end, so
   * that none is ever applied after a later one. 0: no check.
   */
  readonly previous: number;
  /**
   * Several records of the sender under the number of the last: all are applied or none, and a failure is not remembered,
   * so that they can be sent again one by one. When some of them have been applied already, the connection ends: the
   * welcome of the next one tells which.
   */
  readonly group: boolean;
  /** Somebody waits for it to be durable (write policy `through`); else the server may gather more first. */
  readonly urgent: boolean;
  /** Chunks the server lacks, at most MAX_INLINE_BYTES together. */
  readonly chunks: readonly { hash: Uint8Array; bytes: Uint8Array }[];
  readonly manifests: readonly Uint8Array[];
  readonly ops: readonly Op[];
}
/** Visible to everybody; durable when the `durable` push names a request number as high as this one's. */
export interface Applied {
  readonly done: readonly OpDone[];
  readonly stats: readonly Stat[];
  readonly seq: number;
  readonly repeated: boolean;
}
/** A change with the node as it is now (null: gone, or the change is about no node). */
export interface PushedChange extends Change {
  readonly stat: Stat | null;
}

/** A lock as it travels; a flock(2) lock is on the whole file. `end` is included; 2^53 - 1: to the end of the file. */
export interface WireLock {
  readonly ino: number;
  readonly flock: boolean;
  /** The kernel's number for the process (fcntl) or the open file (flock, OFD), in hexadecimal. */
  readonly owner: string;
  readonly type: "read" | "write";
  readonly start: number;
  readonly end: number;
  readonly pid: number;
}
export interface LockAnswer {
  readonly state: "granted" | "taken" | "deadlock" | "cancelled";
  /** The device decides this file's locks by itself until a `recall`. */
  readonly own: boolean;
  /** What stands in the way, where it is known; `pid` is 0 for another device's. */
  readonly by:
    | { readonly type: "read" | "write"; readonly start: number; readonly end: number; readonly pid: number }
    | null;
}

/** The calls: parameters and results. */
export interface Calls {
  hello: { params: Hello; result: Welcome };
  stat: { params: { ino: number }; result: Stat | null };
  /** The file, when the device that asks made it or wrote it last; null: another did, or it is gone. */
  writtenByMe: { params: { ino: number }; result: Stat | null };
  lookup: { params: { parent: number; name: string }; result: Stat | null };
  /** At most 1,000 entries whatever the limit. */
  readDir: { params: { parent: number; after: string | null; limit: number }; result: { name: string; stat: Stat }[] };
  readLink: { params: { ino: number }; result: string };
  getXattr: { params: { ino: number; name: string }; result: Uint8Array | null };
  listXattr: { params: { ino: number }; result: string[] };
  tiersOf: { params: { content: string | null }; result: number };
  manifest: { params: { content: string }; result: Uint8Array | null };
  segment: { params: { hash: Uint8Array }; result: Uint8Array | null };
  missing: { params: { chunks: readonly WantedChunk[] }; result: number[] };
  putSegment: { params: { blob: Uint8Array }; result: null };
  apply: { params: ApplyCall; result: Applied };
  statFs: { params: null; result: { total: number; free: number; files: number; freeFiles: number } };
  /** "I hold newer content of this file than you": other clients' opens wait for it (bounded). */
  announce: { params: { ino: number; pending: boolean }; result: null };
  /** Resolves true when no client holds newer content of the file, false after the time. */
  waitDelivered: { params: { ino: number; timeoutMs: number }; result: boolean };
  /**
   * Asks for a lock, at once or (`wait`) until it is free; then the answer may take for ever. `ticket`: the client's number
   * for `cancelLock`. `mayOwn`: nothing else of this file is being asked for.
   */
  lock: { params: WireLock & { wait: boolean; ticket: number; mayOwn: boolean }; result: LockAnswer };
  cancelLock: { params: { ticket: number }; result: null };
  unlock: { params: { ino: number; flock: boolean; owner: string; start: number; end: number }; result: null };
  /** What would stand in the way? */
  testLock: { params: WireLock; result: LockAnswer };
  /**
   * First after every hello: what the client believes to hold (`fresh`: taken while there was no connection), and the
   * files it owns, since that run of the server. Answers the places in `locks` of those it does not hold, and the files
   * it does own.
   */
  claimLocks: {
    params: { run: string | null; locks: readonly (WireLock & { fresh: boolean })[]; own: readonly number[] };
    result: { lost: number[]; own: number[] };
  };
  /** The answer to `recall`, when all that was written is visible: the locks of the file now. */
  giveBackLocks: { params: { ino: number; locks: readonly WireLock[] }; result: null };
  /**
   * "I am about to create this name, with request `from` or a later one": `free` false when another device said so before.
   * `ino`: what has the name now, 0: nothing; the name is reserved either way.
   */
  reserveName: { params: { parent: number; name: string; from: number }; result: { free: boolean; ino: number } };
  freeName: { params: { parent: number; name: string }; result: null };
  ping: { params: null; result: number };
  /** What was held back when the `hurry` push with this number came has been told. */
  hurried: { params: { n: number }; result: null };
  /** Changes up to this number have been taken in: nobody here sees anything older. The first one after the hello asks to be waited for. */
  heard: { params: { seq: number }; result: null };
}
export type Method = keyof Calls;

/** What the server says by itself. */
export interface Pushes {
  /** In order, without gaps, each request's changes together; a connection is not told of its own, only `seq` moves on. */
  changes: { readonly seq: number; readonly changes: readonly PushedChange[] };
  /** Requests of this device up to this number are on the server's disk. */
  durable: { readonly request: number };
  /** Another client holds newer content of the file (true), or has delivered it (false). */
  busy: { readonly ino: number; readonly pending: boolean };
  /** How many other devices are connected: with none, nobody can miss what is still on its way. */
  peers: { readonly others: number };
  /** Somebody wants to look: tell what was held back, then say `hurried` with the same number. */
  hurry: { readonly n: number };
  /** Another device wants a lock of a file this one owns. */
  recall: { readonly ino: number };
  /** Forget what is cached: a group of changes was taken back. */
  reset: { readonly seq: number };
}
export type PushKind = keyof Pushes;

/** The client's end, as core/offline uses it; RemoteClient (client.ts) implements it. */
export interface ServerLink {
  /** Calls while not connected, and calls cut off, reject with `unavailable`; each has a time limit (`timeout`). */
  call<M extends Method>(
    method: M,
    params: Calls[M]["params"],
    options?: { timeoutMs?: number; signal?: AbortSignal },
  ): Promise<Calls[M]["result"]>;
  /** POST /v1/chunks. */
  putChunks(chunks: readonly { hash: Uint8Array; bytes: Uint8Array }[], signal?: AbortSignal): Promise<void>;
  /** GET /v1/contents/HASH with Range: exactly the bytes. They may lie in the memory of `spare`, which is detached then. */
  readContent(
    hash: string,
    offset: number,
    length: number,
    signal?: AbortSignal,
    spare?: Uint8Array<ArrayBuffer>,
  ): Promise<Uint8Array<ArrayBuffer>>;
  readonly connected: boolean;
  /** Called with the server's welcome at each (re)connect, before any push, and with the reason at each loss. */
  onUp(listener: (welcome: Welcome) => void): void;
  onDown(listener: (reason: string) => void): void;
  onPush<K extends PushKind>(kind: K, listener: (value: Pushes[K]) => void): void;
  /** The change number to ask for at the next reconnect, and the known epoch. */
  resumeFrom: () => { after: number | null; epoch: string | null };
  /** Something happened after which the connection may be dead without a word: finds out within seconds. */
  check(): void;
  /** No connection is wanted until `resume`. */
  pause(): void;
  resume(): void;
  close(): Promise<void>;
}
