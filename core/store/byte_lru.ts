/** ByteLru: the byte strings used last, bounded by the sum of their lengths. */

export class ByteLru {
  readonly #limit: number;
  readonly #entries = new Map<string, Uint8Array>();
  #bytes = 0;

  /** `limit` in bytes; 0 keeps nothing. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  get(key: string): Uint8Array | undefined {
    const found = this.#entries.get(key);
    if (found === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, found);
    return found;
  }

  /** Keeps `bytes` (not a copy) unless it is larger than the whole limit. */
  set(key: string, bytes: Uint8Array): void {
    if (bytes.length > this.#limit) return;
    this.delete(key);
    this.#entries.set(key, bytes);
    this.#bytes += bytes.length;
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes <= this.#limit) break;
      this.delete(oldest);
    }
  }

  delete(key: string): void {
    const found = this.#entries.get(key);
    if (found === undefined) return;
    this.#entries.delete(key);
    this.#bytes -= found.length;
  }

  clear(): void {
    this.#entries.clear();
    this.#bytes = 0;
  }
}
