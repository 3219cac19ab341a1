/** What has not been delivered yet, for people and programs: one item a journal record, and one state a file. */
import { FsError } from "../fs/error.ts";
import type { Op } from "../index/ops.ts";
import { namedIn } from "./conflicts.ts";
import type { Conflict } from "./conflict_list.ts";
import type { Blocked, Outgoing } from "./delivery.ts";
import type { LayerStack } from "./layers.ts";
import type { Replica } from "./replica.ts";

/** One undelivered change. */
export interface JournalItem {
  /** Its number, for `wal drop`. */
  readonly id: number;
  /** What it does: `create`, `write`, `unlink`, ... */
  readonly what: string;
  /** The file's path as it is here now. */
  readonly path: string;
  readonly ino: number;
  /** New bytes that have to be sent at most. */
  readonly bytes: number;
  /** Milliseconds since it was journaled, or since this mount began if that was earlier. */
  readonly age_ms: number;
  readonly state: "queued" | "sending" | "visible" | "conflict";
  readonly last_error: string | null;
}
/** The state of a file: `clean` (the server has all of it on its disk), `dirty` (bytes that were not flushed), `queued`, `conflict`. */
export type FileState = "clean" | "dirty" | "queued" | "conflict";

export interface JournalScene {
  readonly replica: Replica;
  readonly stacks: ReadonlyMap<number, LayerStack>;
  readonly now: () => number;
  list(): readonly Outgoing[];
  blocked(): Blocked | null;
  conflicts(): readonly Conflict[];
}

const STATES = { queued: "queued", sent: "sending", visible: "visible", refused: "conflict" } as const;

function whatOf(out: Outgoing): string {
  const kinds = [...new Set(out.ops.map((op) => op.t === "content" ? "write" : op.t))];
  if (out.data !== null) kinds.push("write");
  return kinds.join(" ") || "write";
}
function pathOf(scene: JournalScene, ops: readonly Op[], ino: number): string {
  const { tree } = scene.replica;
  const path = ino === 0 ? null : tree.pathOf(ino);
  if (path !== null) return path;
  const place = ops.flatMap((op) => namedIn(op)).at(-1);
  if (place === undefined) return `inode ${ino}`;
  const folder = tree.pathOf(place.parent) ?? `inode ${place.parent}`;
  return `${folder === "/" ? "" : folder}/${place.name}`;
}

/** Oldest first, `limit` at most, those with a number above `after`. */
export function journalItems(scene: JournalScene, after = 0, limit = 1000): JournalItem[] {
  const items: JournalItem[] = [];
  const blocked = scene.blocked();
  const now = scene.now();
  let first = true;
  for (const out of scene.list()) {
    const waits = out.state !== "visible";
    // What stands in the way of the first stands in the way of all.
    const error = out.error?.message ?? (waits && first && blocked !== null ? blocked.message : null);
    if (waits) first = false;
    if (out.request <= after) continue;
    if (items.length >= limit) break;
    const ino = out.data?.ino ?? out.ops.at(-1)?.ino ?? 0;
    items.push({
      id: out.request,
      what: whatOf(out),
      path: pathOf(scene, out.ops, ino),
      ino,
      bytes: out.layer?.extents.total ?? 0,
      age_ms: Math.max(0, Math.round(now - out.since)),
      state: STATES[out.state],
      last_error: error,
    });
  }
  return items;
}

export function fileState(scene: JournalScene, ino: number): FileState {
  if (scene.conflicts().some((each) => each.open && (each.winnerIno === ino || each.loserIno === ino))) {
    return "conflict";
  }
  const stack = scene.stacks.get(ino);
  if (stack !== undefined && stack.open !== null) return "dirty";
  // What is on the server's disk already is only not let go of here yet.
  return (stack !== undefined && scene.list().some((out) => out.stack === stack)) || scene.replica.isPendingNode(ino)
    ? "queued"
    : "clean";
}
/** For the mount's root: its mode and how much waits, `online queued=3 bytes=1000 conflicts=0`. */
export function mountState(scene: JournalScene, mode: string): string {
  const list = scene.list();
  const bytes = list.reduce((sum, out) => sum + (out.layer?.extents.total ?? 0), 0);
  let dirty = 0;
  for (const stack of scene.stacks.values()) if (stack.open !== null) dirty++;
  const conflicts = scene.conflicts().filter((each) => each.open).length;
  const state = conflicts > 0 ? "conflict" : dirty > 0 ? "dirty" : list.length > 0 ? "queued" : "clean";
  return `${state} mode=${mode} dirty=${dirty} queued=${list.length} bytes=${bytes} conflicts=${conflicts}`;
}

/** A number of a journal record or conflict as a control call brings it. Throws invalid_input. */
export function naturalParam(value: unknown, name: string): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw new FsError("invalid_input", `${name}: a whole number of 0 or more is needed`);
  }
  return value;
}
