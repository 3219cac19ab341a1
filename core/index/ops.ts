/** The operations that change a tree: what a client journals, what travels to the server, what the index applies. */

/** Whole seconds since 1970 and nanoseconds 0..999,999,999. */
export interface Time {
  readonly sec: number;
  readonly nsec: number;
}

/** Who makes the change; POSIX permission checks are the kernel's (default_permissions) or the server's scopes. */
export type Op =
  /** A new node with its first entry. `ino` was allotted by the sender (see devices: device * 2^32 + n) or is 0: the index allots. */
  | {
    readonly t: "create";
    readonly parent: number;
    readonly name: string;
    readonly ino: number;
    /** st_mode with type bits. */
    readonly mode: number;
    readonly uid: number;
    readonly gid: number;
    readonly rdev: number;
    /** Symlinks only. */
    readonly target?: string;
    readonly time: Time;
  }
  | { readonly t: "link"; readonly ino: number; readonly parent: number; readonly name: string; readonly time: Time }
  /** `ino`, when not 0, is what the sender believes the entry names: something else there is a conflict. */
  | {
    readonly t: "unlink";
    readonly parent: number;
    readonly name: string;
    readonly ino: number;
    /** The content the sender has seen, null for none: when its last name goes, another one is a conflict. Left out: whatever it is. */
    readonly baseContent?: string | null;
    /** The sender believes that the file has other names: when it has not, it is a conflict. */
    readonly others?: boolean;
    readonly time: Time;
  }
  | { readonly t: "rmdir"; readonly parent: number; readonly name: string; readonly ino: number; readonly time: Time }
  | {
    readonly t: "rename";
    readonly parent: number;
    readonly name: string;
    readonly newParent: number;
    readonly newName: string;
    /** RENAME_NOREPLACE 1, RENAME_EXCHANGE 2. */
    readonly flags: number;
    readonly ino: number;
    /** What the sender believes the new name names, and so replaces; 0: nothing. Another node there is a conflict. Left out: whatever it is. */
    readonly overIno?: number;
    /** The content of that file the sender has seen, as for unlink. */
    readonly overContent?: string | null;
    readonly overOthers?: boolean;
    readonly time: Time;
  }
  | {
    readonly t: "attr";
    readonly ino: number;
    /** Permission bits. */
    readonly mode?: number;
    readonly uid?: number;
    readonly gid?: number;
    readonly atime?: Time;
    readonly mtime?: Time;
    readonly time: Time;
  }
  /** It was read then. No change of the node: no version, no change time, no news; nothing when the node is gone. */
  | { readonly t: "atime"; readonly ino: number; readonly atime: Time }
  /** The file's whole content becomes this one; its manifest and chunks are already known to the store. */
  | {
    readonly t: "content";
    readonly ino: number;
    /** The version the change is based on; null: whatever is there. Another one is a conflict. */
    readonly base: number | null;
    /** The content the change was made from: another one there is a conflict. Left out: whatever is there. */
    readonly baseContent?: string | null;
    /** 64 hex digits; null: empty. */
    readonly content: string | null;
    readonly size: number;
    readonly time: Time;
    /** Bytes of it that are holes. @default {0} */
    readonly holes?: number;
    /** Permission bits after the write where it cleared setuid/setgid. */
    readonly mode?: number;
  }
  | {
    readonly t: "setxattr";
    readonly ino: number;
    readonly name: string;
    readonly value: Uint8Array;
    readonly flags: number;
    readonly time: Time;
  }
  | { readonly t: "removexattr"; readonly ino: number; readonly name: string; readonly time: Time };

/** What an applied operation did: the node it concerns afterwards. */
export interface OpDone {
  readonly ino: number;
  /** 0 when the node is gone. */
  readonly version: number;
}

/** One fact of the change feed. */
export interface Change {
  readonly seq: number;
  /** Device that caused it and its request number; 0 for the server itself. */
  readonly device: number;
  readonly request: number;
  readonly kind: "entry" | "node";
  /** entry: the node it names now, 0 when the entry is gone. node: the node that changed. */
  readonly ino: number;
  readonly parent: number;
  readonly name: string;
}

export const ROOT_INO = 1;
/** Inode numbers a device may allot itself: device * INO_STRIDE + n, n from 1 to INO_STRIDE - 1. Devices: 1 to 2^20. */
export const INO_STRIDE = 2 ** 32;
/** The most names one file may have (ext4's limit). */
export const LINK_MAX = 65000;

/** The operation without what it expects to find: for a replica, whose owner has looked already. */
export function withoutExpectation(op: Op): Op {
  if (op.t === "unlink") {
    const { baseContent: _, others: __, ...rest } = op;
    return rest;
  }
  if (op.t !== "rename") return op;
  const { overIno: _, overContent: __, overOthers: ___, ...rest } = op;
  return rest;
}
/** The file whose last name the operation may take away; 0: none. */
export function removedBy(op: Op): number {
  if (op.t === "unlink") return op.ino;
  // A file renamed to itself, or to another name of its own, stays.
  return op.t === "rename" && op.overIno !== op.ino ? op.overIno ?? 0 : 0;
}
