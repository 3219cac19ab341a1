/** ConflictList: the conflicts a client has met, kept with its replica: what they were about, and where the other version is. */
import { FsError } from "../fs/error.ts";
import type { Replica } from "./replica.ts";

export type ConflictPolicy = "server-wins" | "client-wins" | "keep-both" | "newer" | "manual";

/** What met: ours first, theirs second. */
export type ConflictKind =
  | "edit-edit"
  | "edit-remove"
  | "remove-edit"
  | "replace-edit"
  | "name-name"
  | "folder-removed"
  | "partial";

export interface Conflict {
  readonly id: number;
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly kind: ConflictKind;
  readonly policy: ConflictPolicy;
  /** Where it happened, a path in the tree. */
  readonly path: string;
  /** The version that stands there. */
  readonly winner: "ours" | "theirs";
  /** The other version: where it lies, and its inode number; 0: there is none. */
  readonly loser: string | null;
  readonly loserIno: number;
  /** The node that stands at `path`; 0: none. */
  readonly winnerIno: number;
  /** Somebody has to say which version holds. */
  readonly open: boolean;
}

const PREFIX = "conflict:";
/** Settled ones that are remembered. */
const KEPT = 500;

export class ConflictList {
  readonly #replica: Replica;

  constructor(replica: Replica) {
    this.#replica = replica;
  }
  /** Oldest first. */
  all(): Conflict[] {
    return this.#replica.metas(PREFIX).map(([, value]) => JSON.parse(value) as Conflict);
  }
  open(): Conflict[] {
    return this.all().filter((conflict) => conflict.open);
  }
  add(conflict: Omit<Conflict, "id">): Conflict {
    const id = Number(this.#replica.getMeta("last_conflict") ?? 0) + 1;
    this.#replica.setMeta("last_conflict", String(id));
    const added = { id, ...conflict };
    this.#put(added);
    const settled = this.all().filter((each) => !each.open);
    for (const old of settled.slice(0, Math.max(0, settled.length - KEPT))) this.#replica.dropMeta(key(old.id));
    return added;
  }
  /** Throws not_found when there is no such conflict, conflict when it is settled already. */
  mustBeOpen(id: number): Conflict {
    const value = this.#replica.getMeta(key(id));
    if (value === null) throw new FsError("not_found", `there is no conflict ${id}; see "anyfs wal --journal"`);
    const conflict = JSON.parse(value) as Conflict;
    if (!conflict.open) throw new FsError("conflict", `conflict ${id} is settled already`);
    return conflict;
  }
  settle(conflict: Conflict): void {
    this.#put({ ...conflict, open: false });
  }
  #put(conflict: Conflict): void {
    this.#replica.setMeta(key(conflict.id), JSON.stringify(conflict));
  }
}

const key = (id: number) => `${PREFIX}${String(id).padStart(9, "0")}`;
