/**
 * SequencePrefetch: whoever opens the files of a folder one after the other, in the order of their names (photos, the
 * tracks of an album), finds the next ones here already.
 */
import type { DirEntry } from "../fs/stat.ts";
import { S_IFMT, S_IFREG } from "../fs/stat.ts";

/** Files opened in order before the next ones are fetched. */
const SEEN = 2;
/** How many are fetched ahead, and how large they may be, bytes: a film has its own read-ahead. */
const AHEAD = 2;
const MAX_BYTES = 64 * 1024 * 1024;
/** Folders that are remembered. */
const FOLDERS = 32;
/** Entries looked at to find the next file: folders and the like lie between. */
const LOOKED_AT = 8;

export interface SequenceSource {
  /** A name of the node, null when none is known. */
  nameOf(ino: number): { parent: number; name: string } | null;
  /** The entries after a name, in the order of names; none when the folder's listing is not here. */
  after(parent: number, name: string, limit: number): DirEntry[];
  /** Brings a content here; nothing when it is here. */
  fetch(content: string, size: number): Promise<void>;
}

export class SequencePrefetch {
  readonly #source: SequenceSource;
  readonly #folders = new Map<number, { last: string; inOrder: number }>();
  /** Nodes that were fetched ahead: opening them goes on with the sequence. */
  readonly #expected = new Set<number>();
  #queue: { content: string; size: number }[] = [];
  #running = false;

  constructor(source: SequenceSource) {
    this.#source = source;
  }

  /** Was the node fetched because it comes next? */
  expects(ino: number): boolean {
    return this.#expected.size > 0 && this.#expected.has(ino);
  }

  /** A file was opened whose bytes are not all here, or were fetched by us. */
  opened(ino: number): void {
    this.#expected.delete(ino);
    const place = this.#source.nameOf(ino);
    if (place === null) return;
    const { parent, name } = place;
    const known = this.#folders.get(parent);
    this.#folders.delete(parent);
    const goesOn = known !== undefined && this.#nextFiles(parent, known.last, 1)[0]?.name === name;
    const inOrder = goesOn ? known.inOrder + 1 : 1;
    this.#folders.set(parent, { last: name, inOrder });
    if (this.#folders.size > FOLDERS) {
      for (const oldest of this.#folders.keys()) {
        this.#folders.delete(oldest);
        break;
      }
    }
    if (inOrder < SEEN) return;
    for (const { stat } of this.#nextFiles(parent, name, AHEAD)) {
      if (stat.content === null || stat.size > MAX_BYTES || this.#expected.has(stat.ino)) continue;
      if (this.#expected.size >= 4 * FOLDERS) this.#expected.clear();
      this.#expected.add(stat.ino);
      this.#queue.push({ content: stat.content, size: stat.size });
    }
    // Who has moved on does not want the old ones.
    this.#queue = this.#queue.slice(-2 * AHEAD);
    void this.#run();
  }

  #nextFiles(parent: number, name: string, count: number): DirEntry[] {
    return this.#source.after(parent, name, LOOKED_AT)
      .filter(({ stat }) => (stat.mode & S_IFMT) === S_IFREG)
      .slice(0, count);
  }

  async #run(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      // Without the server there is nothing to fetch; the reader will be told.
      await this.#source.fetch(next.content, next.size).catch(() => {});
    }
    this.#running = false;
  }
}
