/**
 * What others changed and this mount passed over, because something of ours was on its way there: the server is asked
 * about it later. It survives a crash: news that was heard is not told again.
 */
import { FsError } from "../fs/error.ts";

/** Of more than this what was answered meanwhile is left out only when that is half of it: to ask twice does no harm. */
const MANY = 1000;

/** A name in a folder. */
export interface MissedEntry {
  readonly parent: number;
  readonly name: string;
}

export class Missed {
  readonly #nodes = new Set<number>();
  readonly #entries = new Map<string, MissedEntry>();
  /** Being asked about: to be asked again when that comes to nothing. */
  readonly #askedNodes = new Set<number>();
  readonly #askedEntries = new Map<string, MissedEntry>();
  /** Since `text`: is there more, or less; and how much there was. */
  #more = false;
  #less = false;
  #told = 0;

  /** With what `text` said in an earlier run. Throws corrupt. */
  constructor(text: string | null) {
    if (text === null) return;
    let read: { nodes: number[]; entries: [number, string][] };
    try {
      read = JSON.parse(text);
      for (const ino of read.nodes) this.#nodes.add(ino);
      for (const [parent, name] of read.entries) this.addEntry(parent, name);
    } catch (error) {
      throw new FsError("corrupt", "what others changed meanwhile can't be read", { cause: error });
    }
    this.#more = false;
    this.#told = this.#size();
  }

  get nodes(): ReadonlySet<number> {
    return this.#nodes;
  }
  get entries(): ReadonlyMap<string, MissedEntry> {
    return this.#entries;
  }
  get isEmpty(): boolean {
    return this.#nodes.size === 0 && this.#entries.size === 0;
  }
  addNode(ino: number): void {
    if (!this.#nodes.has(ino) && !this.#askedNodes.has(ino)) this.#more = true;
    this.#nodes.add(ino);
  }
  addEntry(parent: number, name: string): void {
    const key = `${parent}/${name}`;
    if (!this.#entries.has(key) && !this.#askedEntries.has(key)) this.#more = true;
    this.#entries.set(key, { parent, name });
  }

  /**
   * Asks about the node; resolves with what `question` says. Is that true, the answer was out of date when it came, and the
   * node is as before: to be asked again. Rejects with the question's error, and then it is as before, too.
   */
  async askNode(ino: number, question: () => Promise<boolean>): Promise<boolean> {
    this.#nodes.delete(ino);
    this.#askedNodes.add(ino);
    try {
      const again = await question();
      if (again) this.#nodes.add(ino);
      return again;
    } catch (error) {
      this.#nodes.add(ino);
      throw error;
    } finally {
      this.#askedNodes.delete(ino);
      this.#less = true;
    }
  }
  /** The same for a name; `key` is its key in `entries`. */
  async askEntry(key: string, question: (entry: MissedEntry) => Promise<boolean>): Promise<boolean> {
    const entry = this.#entries.get(key);
    if (entry === undefined) return false;
    this.#entries.delete(key);
    this.#askedEntries.set(key, entry);
    try {
      const again = await question(entry);
      if (again) this.#entries.set(key, entry);
      return again;
    } catch (error) {
      this.#entries.set(key, entry);
      throw error;
    } finally {
      this.#askedEntries.delete(key);
      this.#less = true;
    }
  }

  #size(): number {
    return this.#nodes.size + this.#entries.size + this.#askedNodes.size + this.#askedEntries.size;
  }
  /** All of it, for the next run; null: what was told last will do. */
  text(): string | null {
    const size = this.#size();
    if (!this.#more && (!this.#less || (size > MANY && size > this.#told / 2))) return null;
    this.#more = this.#less = false;
    this.#told = size;
    const nodes = [...new Set([...this.#nodes, ...this.#askedNodes])];
    const entries = [...new Map([...this.#entries, ...this.#askedEntries]).values()].map(({ parent, name }) => [
      parent,
      name,
    ]);
    return JSON.stringify({ nodes, entries });
  }
}
