/**
 * Pins: subtrees that are kept complete on this machine: every listing, attribute, link target and content, also of what
 * others change later. What is pinned is not evicted from the content cache and does not count against its size.
 */
import { FsError, toFsError } from "../fs/error.ts";
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, type Stat } from "../fs/stat.ts";
import { ROOT_INO } from "../index/ops.ts";
import type { Clock } from "../platform/clock.ts";
import type { ContentCache } from "./content_cache.ts";
import type { Replica } from "./replica.ts";

export interface PinScene {
  readonly replica: Replica;
  readonly cache: ContentCache;
  readonly clock: Clock;
  readonly log: (message: string) => void;
  online(): boolean;
  /** The folder's whole listing is known afterwards. Throws unavailable. */
  complete(dir: number): Promise<void> | void;
  stat(ino: number): Promise<Stat> | Stat;
  readlink(ino: number): Promise<string> | string;
  loadXattrs(ino: number): Promise<void>;
}

export interface PinStatus {
  /** Path in the tree where it is now; where it was pinned when it is gone. */
  readonly path: string;
  /** `gone`: it was removed by somebody; `waiting`: offline, and not complete. */
  readonly state: "complete" | "fetching" | "waiting" | "gone";
  readonly files: number;
  readonly bytes: number;
  readonly files_here: number;
  readonly bytes_here: number;
  readonly last_error: string | null;
}

const PREFIX = "pin:";
const PAGE = 1000;
/** Files that are fetched at once. */
const PARALLEL = 4;
/** Changes of others gather so long before what they brought is fetched. */
const SETTLE_MS = 200;
const RETRY_MS = 30_000;
/** How soon all is looked at again when a content that was held has gone. */
const LOST_MS = 60_000;

export class Pins {
  readonly #s: PinScene;
  /** Inode number of each pinned node, and its path when it was pinned. */
  readonly #pins: Map<number, string>;
  /** Nodes below which something may be missing. */
  #todo = new Set<number>();
  #running = false;
  #closed = false;
  #lost = false;
  #cancel: () => void = () => {};
  #lastError: string | null = null;

  constructor(scene: PinScene) {
    this.#s = scene;
    this.#pins = new Map(scene.replica.metas(PREFIX).map(([ino, path]) => [Number(ino), path]));
  }

  /** Throws invalid_input when it is pinned already. */
  add(ino: number, path: string): void {
    if (this.#pins.has(ino)) throw new FsError("already_exists", `${path} is pinned already`, { path });
    this.#pins.set(ino, path);
    this.#s.replica.setMeta(PREFIX + ino, path);
    this.#s.replica.commit();
    this.all();
  }
  /** Throws not_found when it is not pinned. By path of pinning too: what is gone has no other. */
  remove(ino: number, path: string): void {
    const found = this.#pins.has(ino) ? ino : [...this.#pins].find(([, at]) => at === path)?.[0];
    if (found === undefined) {
      throw new FsError("not_found", `${path} is not pinned; "anyfs pin" lists what is`, { path });
    }
    this.#pins.delete(found);
    this.#s.replica.dropMeta(PREFIX + found);
    this.#s.replica.commit();
    this.all();
  }
  async list(): Promise<PinStatus[]> {
    const out: PinStatus[] = [];
    for (const [ino, path] of this.#pins) out.push(await this.#status(ino, path));
    return out;
  }
  async #status(ino: number, pinned: string): Promise<PinStatus> {
    const { replica, cache } = this.#s;
    const path = replica.tree.pathOf(ino);
    const status = {
      path: path ?? pinned,
      files: 0,
      bytes: 0,
      files_here: 0,
      bytes_here: 0,
      last_error: this.#lastError,
    };
    if (path === null || replica.stat(ino) === null) return { ...status, state: "gone" };
    let whole = true;
    const walk = async (stat: Stat): Promise<void> => {
      const kind = stat.mode & S_IFMT;
      if (kind === S_IFREG) {
        status.files++;
        status.bytes += stat.size;
        if (stat.content === null || cache.isComplete(stat.content, stat.size) || replica.isPendingNode(stat.ino)) {
          status.files_here++;
          status.bytes_here += stat.size;
        } else whole = false;
      }
      if (kind !== S_IFDIR) return;
      if (!replica.isComplete(stat.ino)) whole = false;
      for await (const child of this.#children(stat.ino)) await walk(child);
    };
    const top = replica.stat(ino);
    if (top !== null) await walk(top);
    const complete = whole && this.#todo.size === 0 && !this.#running;
    return { ...status, state: complete ? "complete" : this.#s.online() ? "fetching" : "waiting" };
  }
  async *#children(dir: number): AsyncGenerator<Stat> {
    let after: string | null = null;
    for (;;) {
      const page = this.#s.replica.tree.readDir(dir, after, PAGE);
      for (const { stat } of page) yield stat;
      const last = page.at(-1);
      if (last === undefined || page.length < PAGE) return;
      after = last.name;
      await this.#s.clock.sleep(0);
    }
  }

  /** Everything has to be looked at again: a new connection, a new pin. */
  all(): void {
    for (const ino of this.#pins.keys()) this.#todo.add(ino);
    this.#soon(0);
  }
  /** A content that was held is not here any more: another file may have needed it. */
  lost(): void {
    if (this.#pins.size === 0 || this.#lost) return;
    this.#lost = true;
    this.#s.clock.after(LOST_MS, () => {
      this.#lost = false;
      this.all();
    }, true);
  }
  /** Others changed the node, or gave it a name. */
  changed(ino: number): void {
    if (this.#pins.size === 0 || ino === 0 || !this.#isPinned(ino)) return;
    this.#todo.add(ino);
    this.#soon(SETTLE_MS);
  }
  #isPinned(ino: number): boolean {
    let at = ino;
    for (let depth = 0; depth < 4096; depth++) {
      if (this.#pins.has(at)) return true;
      if (at === ROOT_INO) return false;
      const name = this.#s.replica.tree.anyName(at);
      if (name === null) return false;
      at = name.parent;
    }
    return false;
  }
  #soon(ms: number): void {
    if (this.#running || this.#closed) return;
    this.#cancel();
    this.#cancel = this.#s.clock.after(ms, () => void this.#run(), true);
  }

  async #run(): Promise<void> {
    if (this.#running || this.#closed) return;
    this.#running = true;
    try {
      while (this.#todo.size > 0 && this.#s.online() && !this.#closed) {
        const todo = this.#todo;
        this.#todo = new Set();
        const full = [...this.#pins.keys()].every((ino) => todo.has(ino));
        try {
          const held = new Set<string>();
          for (const ino of todo) await this.#fetch(ino, held);
          if (full && this.#todo.size === 0) this.#s.cache.keepOnly(held);
          this.#lastError = null;
        } catch (error) {
          for (const ino of todo) this.#todo.add(ino);
          throw error;
        }
      }
      if (this.#pins.size === 0) this.#s.cache.keepOnly(new Set());
    } catch (error) {
      const { message } = toFsError(error);
      if (message !== this.#lastError && !this.#closed) this.#s.log(`pin: ${message}; tried again later`);
      this.#lastError = message;
    } finally {
      this.#running = false;
      if (this.#todo.size > 0) this.#soon(RETRY_MS);
    }
  }
  /** Brings all below the node here. Throws unavailable, no_space. */
  async #fetch(ino: number, held: Set<string>): Promise<void> {
    const { replica, cache } = this.#s;
    const under = new Set<Promise<void>>();
    const failed: unknown[] = [];
    const start = async (work: Promise<void>) => {
      const done: Promise<void> = work.catch((error) => {
        // Removed or changed meanwhile: news of that comes by itself.
        if (!(error instanceof FsError && error.code === "not_found")) failed.push(error);
      }).finally(() => under.delete(done));
      under.add(done);
      if (under.size >= PARALLEL) await Promise.race(under);
    };
    const walk = async (stat: Stat): Promise<void> => {
      if (failed.length > 0 || this.#closed) return;
      const kind = stat.mode & S_IFMT;
      if (!replica.xattrsKnown(stat.ino)) await start(this.#s.loadXattrs(stat.ino));
      if (kind === S_IFLNK) await start((async () => void await this.#s.readlink(stat.ino))());
      if (kind === S_IFREG && stat.content !== null) {
        const { content, size } = stat;
        held.add(content);
        cache.hold(content);
        if (!cache.isComplete(content, size)) await start(cache.fetch(content, size));
      }
      if (kind !== S_IFDIR) return;
      await this.#s.complete(stat.ino);
      for await (const child of this.#children(stat.ino)) await walk(child);
    };
    try {
      const top = replica.stat(ino) ?? await this.#s.stat(ino);
      await walk(top);
    } catch (error) {
      if (!(error instanceof FsError) || (error.code !== "not_found" && error.code !== "access_denied")) {
        failed.push(error);
      }
    }
    await Promise.all(under);
    if (failed.length > 0) throw failed[0];
  }
  close(): void {
    this.#closed = true;
    this.#cancel();
  }
}
