/**
 * Announcements: files of which others were told that newer content is on its way from here, so that who opens one there waits
 * for it (close-to-open). Each stands until the last record that was waited for is delivered or given up, whatever became of it:
 * a conflict may have made it another file's.
 */

/** So many are told at once after a new connection. */
const AT_ONCE = 500;

export class Announcements<Sent extends object> {
  readonly #tell: (ino: number, pending: boolean) => Promise<unknown>;
  /** For each file that others wait for: the last record of it. */
  readonly #last = new Map<number, Sent>();
  readonly #inos = new Map<Sent, number>();

  /** `tell` says it to the server; it may reject when there is no connection. */
  constructor(tell: (ino: number, pending: boolean) => Promise<unknown>) {
    this.#tell = tell;
  }

  get size(): number {
    return this.#last.size;
  }
  /** Others wait for this record when they open the file from when this resolves; it is not settled yet. */
  async add(ino: number, record: Sent): Promise<void> {
    // A conflict made it another file's since.
    if (this.#inos.get(record) !== ino) this.end(record);
    const before = this.#last.get(ino);
    if (before !== undefined) this.#inos.delete(before);
    this.#last.set(ino, record);
    this.#inos.set(record, ino);
    if (before === undefined) await this.#say(ino, true);
  }
  /** The record is delivered, or will never be. */
  end(record: Sent): void {
    const ino = this.#inos.get(record);
    if (ino === undefined) return;
    this.#inos.delete(record);
    this.#last.delete(ino);
    void this.#say(ino, false);
  }
  /** There is a new connection: the server forgets what is not said again. */
  async again(): Promise<void> {
    const inos = [...this.#last.keys()];
    for (let at = 0; at < inos.length; at += AT_ONCE) {
      const some = inos.slice(at, at + AT_ONCE).filter((ino) => this.#last.has(ino));
      await Promise.all(some.map((ino) => this.#say(ino, true)));
    }
  }
  async #say(ino: number, pending: boolean): Promise<void> {
    // Without a connection it is said with the next one, or forgotten there.
    await this.#tell(ino, pending).catch(() => {});
  }
}
