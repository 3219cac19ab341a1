/** How many references the kernel holds on each node: 12 bytes a slot, no object an inode, shrinking as they are forgotten. */

const FIRST_SLOTS = 1024;
/** In a slot beside the count: the kernel may hold pages of the file. */
const PAGES = 0x8000_0000;
const COUNT = 0x7fff_ffff;

/**
 * Node id -> lookup count. Open addressing with linear probing and backward-shift deletion (Knuth, TAOCP 6.4, algorithm
 * R), load between 1/8 and 5/8. Key 0 marks an empty slot: no node has that number. Keys are integers below 2^53.
 */
export class LookupCounts {
  #keys = new Float64Array(FIRST_SLOTS);
  #counts = new Uint32Array(FIRST_SLOTS);
  #mask = FIRST_SLOTS - 1;
  #size = 0;

  /** Nodes the kernel knows. */
  get size(): number {
    return this.#size;
  }

  /** Bytes the table takes. */
  get bytes(): number {
    return this.#keys.byteLength + this.#counts.byteLength;
  }

  #home(ino: number): number {
    // Both halves of the number, mixed by a multiplication with 2^32 / golden ratio (Fibonacci hashing).
    const mixed = Math.imul((ino >>> 0) ^ Math.imul((ino / 4294967296) >>> 0, 0x85ebca6b), 0x9e3779b1);
    return (mixed ^ (mixed >>> 15)) & this.#mask;
  }

  #find(ino: number): number {
    const keys = this.#keys;
    let slot = this.#home(ino);
    while (keys[slot] !== 0 && keys[slot] !== ino) slot = (slot + 1) & this.#mask;
    return slot;
  }

  has(ino: number): boolean {
    return this.#keys[this.#find(ino)] === ino;
  }

  /** References held on `ino`, 0 when none. */
  get(ino: number): number {
    return (this.#counts[this.#find(ino)] ?? 0) & COUNT;
  }

  /** The kernel is given or has given bytes of the file: it may keep them until it forgets the node. */
  markPages(ino: number): void {
    const slot = this.#find(ino);
    if (this.#keys[slot] === ino) this.#counts[slot] = (this.#counts[slot] ?? 0) | PAGES;
  }

  /** Was `markPages` called since the kernel learned of the node? */
  mayHavePages(ino: number): boolean {
    return ((this.#counts[this.#find(ino)] ?? 0) & PAGES) !== 0;
  }

  /** One more reference. */
  add(ino: number): void {
    const slot = this.#find(ino);
    if (this.#keys[slot] === ino) {
      this.#counts[slot] = (this.#counts[slot] ?? 0) + 1;
      return;
    }
    this.#keys[slot] = ino;
    this.#counts[slot] = 1;
    this.#size++;
    if (this.#size * 8 > (this.#mask + 1) * 5) this.#resize((this.#mask + 1) * 2);
  }

  /** Drops `count` references; true when none is left (or there was none). */
  drop(ino: number, count: number): boolean {
    const slot = this.#find(ino);
    if (this.#keys[slot] !== ino) return true;
    const before = this.#counts[slot] ?? 0;
    const left = (before & COUNT) - count;
    if (left > 0) {
      this.#counts[slot] = left | (before & PAGES);
      return false;
    }
    this.#remove(slot);
    this.#size--;
    if (this.#mask + 1 > FIRST_SLOTS && this.#size * 8 < this.#mask + 1) this.#resize((this.#mask + 1) / 2);
    return true;
  }

  #remove(slot: number): void {
    const keys = this.#keys;
    const counts = this.#counts;
    const mask = this.#mask;
    let hole = slot;
    let probe = slot;
    for (;;) {
      probe = (probe + 1) & mask;
      const key = keys[probe] ?? 0;
      if (key === 0) break;
      // An entry may fill the hole unless its home lies between the hole and itself.
      if (((probe - this.#home(key)) & mask) >= ((probe - hole) & mask)) {
        keys[hole] = key;
        counts[hole] = counts[probe] ?? 0;
        hole = probe;
      }
    }
    keys[hole] = 0;
    counts[hole] = 0;
  }

  #resize(slots: number): void {
    const oldKeys = this.#keys;
    const oldCounts = this.#counts;
    this.#keys = new Float64Array(slots);
    this.#counts = new Uint32Array(slots);
    this.#mask = slots - 1;
    for (let i = 0; i < oldKeys.length; i++) {
      const key = oldKeys[i] ?? 0;
      if (key === 0) continue;
      const slot = this.#find(key);
      this.#keys[slot] = key;
      this.#counts[slot] = oldCounts[i] ?? 0;
    }
  }

  /** Every known node, as a copy of its number. */
  keys(): Float64Array<ArrayBuffer> {
    return this.#keys.filter((key) => key !== 0);
  }
}
