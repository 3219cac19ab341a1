/** An open directory: turns the kernel's numeric cookies into the contract's "entries after this name", page by page. */
import type { Awaitable } from "../core/fs/inode_fs.ts";
import type { DirEntry } from "../core/fs/stat.ts";

/** Entries asked for at once. */
export const PAGE_ENTRIES = 1024;

/** Reads entries after a name (null: from the start), at most `limit`, in a stable order; none means the end. */
export type ReadPage = (after: string | null, limit: number) => Awaitable<DirEntry[]>;

/**
 * Entry i of the listing has index i (without `.` and `..`). The page read last is kept whole; of earlier pages only the
 * index and the name they began after, so a seek back reads its page again and memory grows by one name a page.
 */
export class Directory {
  readonly ino: number;
  readonly #read: ReadPage;
  #page: DirEntry[] = [];
  #start = 0;
  #starts: number[] = [0];
  #afters: (string | null)[] = [null];

  constructor(ino: number, read: ReadPage) {
    this.ino = ino;
    this.#read = read;
  }

  /** The next listing begins afresh (rewinddir): entries may have changed. */
  rewind(): void {
    this.#page = [];
    this.#start = 0;
    this.#starts = [0];
    this.#afters = [null];
  }

  /** Entry `index` when its page is at hand. */
  entry(index: number): DirEntry | undefined {
    return this.#page[index - this.#start];
  }

  /** Gets the page that holds `index`, unless it is at hand. False: the listing ends before it. */
  load(index: number): Awaitable<boolean> {
    return this.#find(index, PAGE_ENTRIES);
  }

  /**
   * As `load`, read now, `limit` entries from there on where that is known to begin: who is told attributes, which the
   * kernel takes to be those of the time it asked, is not told those of a page that was read before.
   */
  loadNow(index: number, limit: number): Awaitable<boolean> {
    const before = this.entry(index - 1);
    if (before !== undefined) {
      const at = this.#boundaryBefore(index);
      if (this.#starts[at] !== index) {
        this.#starts.length = this.#afters.length = at + 1;
        this.#starts.push(index);
        this.#afters.push(before.name);
      }
    }
    this.#page = [];
    return this.#find(index, limit);
  }

  #find(index: number, limit: number): Awaitable<boolean> {
    for (;;) {
      if (index >= this.#start && index < this.#start + this.#page.length) return true;
      const at = this.#boundaryBefore(index);
      const start = this.#starts[at] ?? 0;
      const answer = this.#read(this.#afters[at] ?? null, limit);
      if (answer instanceof Promise) {
        return answer.then((page) => this.#take(at, start, page, index) ? this.#find(index, limit) : false);
      }
      if (!this.#take(at, start, answer, index)) return false;
    }
  }

  #boundaryBefore(index: number): number {
    let at = this.#starts.length - 1;
    while (at > 0 && (this.#starts[at] ?? 0) > index) at--;
    return at;
  }

  #take(at: number, start: number, page: DirEntry[], wanted: number): boolean {
    const last = page[page.length - 1];
    if (last === undefined) return false;
    this.#page = page;
    this.#start = start;
    const end = start + page.length;
    const next = this.#starts[at + 1];
    // A page that was read again may have become shorter; what follows it then begins at its new end.
    if (next === undefined || (end <= wanted && wanted < next)) {
      this.#starts.length = this.#afters.length = at + 1;
      this.#starts.push(end);
      this.#afters.push(last.name);
    }
    return true;
  }
}
