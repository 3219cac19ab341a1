/** Large buffers that are used again: thrown away, they pile up faster than the collector takes them. */
export class SpareBuffers {
  readonly #spare: Uint8Array<ArrayBuffer>[] = [];
  readonly #most: number;

  /** `most`: buffers kept. */
  constructor(most: number) {
    this.#most = most;
  }
  /** A buffer of at least `length` bytes, with anything in it. */
  take(length: number): Uint8Array<ArrayBuffer> {
    const at = this.#spare.findIndex((buffer) => buffer.length >= length);
    const [found] = at < 0 ? [] : this.#spare.splice(at, 1);
    return found ?? new Uint8Array(length);
  }
  /** Nobody uses the buffer any more. */
  give(buffer: Uint8Array<ArrayBuffer>): void {
    if (this.#spare.length >= this.#most) this.#spare.shift();
    this.#spare.push(buffer);
  }
}
