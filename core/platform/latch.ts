/** A latch: shut until it is opened, then open for good. It can be waited for, and takes next to no memory while nobody does. */
export class Latch {
  #open = false;
  #waiting: PromiseWithResolvers<void> | null = null;

  /** Resolves when the latch is open; never rejects. */
  get opened(): Promise<void> {
    if (this.#open) return Promise.resolve();
    this.#waiting ??= Promise.withResolvers();
    return this.#waiting.promise;
  }
  open(): void {
    this.#open = true;
    this.#waiting?.resolve();
    this.#waiting = null;
  }
}
