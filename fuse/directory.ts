/** An open directory: turns the kernel's numeric cookies into the contract's "entries after this name", page by page. */
import type { Awaitable } from "../core/fs/inode_fs.ts";
import type { ListedEntry, ListedName } from "../core/fs/stat.ts";

/** Names asked for at once: some five answers of the size that C libraries ask for, and three milliseconds. */
export const PAGE_ENTRIES = 4096;

/** Reads entries after a name (null: from the start), at most `limit`, in a stable order; none means the end. */
export type ReadPage<T> = (after: string | null, limit: number) => Awaitable<T[]>;

/** A page of a listing; without attributes when only names were asked for. */
interface Page {
  readonly names: readonly ListedName[];
  readonly entries: readonly ListedEntry[];
}
const EMPTY: Page = { names: [], entries: [] };

/**
 * Entry i of the listing has index i (without `.` and `..`). The page read last is kept whole; of earlier pages only the
 * index and the name they began after, so a seek back reads its page again and memory grows by one name a page.
 */
export class Directory {
  readonly ino: number;
  readonly #readNames: ReadPage<ListedName>;
  readonly #readEntries: ReadPage<ListedEntry>;
  #page = EMPTY;
  #start = 0;
  #starts: number[] = [0];
  #afters: (string | null)[] = [null];

  constructor(ino: number, readNames: ReadPage<ListedName>, readEntries: ReadPage<ListedEntry>) {
    this.ino = ino;
    this.#readNames = readNames;
    this.#readEntries = readEntries;
  }

  /** The next listing begins afresh (rewinddir): entries may have changed. */
  rewind(): void {
    this.#page = EMPTY;
    this.#start = 0;
    this.#starts = [0];
    this.#afters = [null];
  }

  /** Name `index` when its page is at hand. */
  name(index: number): ListedName | undefined {
    return this.#page.names[index - this.#start];
  }

  /** Entry `index` with its attributes, after `loadNow`. */
  entry(index: number): ListedEntry | undefined {
    return this.#page.entries[index - this.#start];
  }

  /** Gets the page of names that holds `index`, unless it is at hand. False: the listing ends before it. */
  load(index: number): Awaitable<boolean> {
    return this.#find(index, PAGE_ENTRIES, false);
  }

  /**
   * As `load`, with attributes, read now, `limit` entries from there on where that is known to begin: who is told
   * attributes, which the kernel takes to be those of the time it asked, is not told those of a page that was read before.
   */
  loadNow(index: number, limit: number): Awaitable<boolean> {
    const before = this.name(index - 1);
    if (before !== undefined) {
      const at = this.#boundaryBefore(index);
      if (this.#starts[at] !== index) {
        this.#starts.length = this.#afters.length = at + 1;
        this.#starts.push(index);
        this.#afters.push(before.name);
      }
    }
    this.#page = EMPTY;
    return this.#find(index, limit, true);
  }

  #find(index: number, limit: number, plus: boolean): Awaitable<boolean> {
    for (;;) {
      if (index >= this.#start && index < this.#start + this.#page.names.length) return true;
      const at = this.#boundaryBefore(index);
      const start = this.#starts[at] ?? 0;
      const answer = this.#read(this.#afters[at] ?? null, limit, plus);
      if (answer instanceof Promise) {
        return answer.then((page) => this.#take(at, start, page, index) ? this.#find(index, limit, plus) : false);
      }
      if (!this.#take(at, start, answer, index)) return false;
    }
  }

  #read(after: string | null, limit: number, plus: boolean): Awaitable<Page> {
    if (!plus) {
      const names = this.#readNames(after, limit);
      return names instanceof Promise ? names.then((names) => ({ names, entries: [] })) : { names, entries: [] };
    }
    const entries = this.#readEntries(after, limit);
    return entries instanceof Promise
      ? entries.then((entries) => ({ names: entries, entries }))
      : { names: entries, entries };
  }

  #boundaryBefore(index: number): number {
    let at = this.#starts.length - 1;
    while (at > 0 && (this.#starts[at] ?? 0) > index) at--;
    return at;
  }

  #take(at: number, start: number, page: Page, wanted: number): boolean {
    const last = page.names[page.names.length - 1];
    if (last === undefined) return false;
    this.#page = page;
    this.#start = start;
    const end = start + page.names.length;
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
