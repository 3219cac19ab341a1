/** ActiveWriters: who is writing a content right now, so that the garbage collector leaves alone what they may reuse. */

export class ActiveWriters {
  readonly #starts = new Set<{ readonly at: number }>();

  /** A write begins (milliseconds since 1970); it ends when the result is disposed of. */
  begin(at: number): Disposable {
    const entry = { at };
    this.#starts.add(entry);
    return { [Symbol.dispose]: () => void this.#starts.delete(entry) };
  }
  /** When the oldest write under way began; Infinity when there is none. */
  oldest(): number {
    let oldest = Infinity;
    for (const { at } of this.#starts) oldest = Math.min(oldest, at);
    return oldest;
  }
}
