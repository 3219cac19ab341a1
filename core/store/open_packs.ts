/** OpenPacks: the packs whose files are not yet in their final place, and what of them still has to reach the disk. */
import type { OpenPack } from "./open_pack.ts";

export class OpenPacks {
  readonly #packs = new Map<number, OpenPack>();

  /** The pack while its file is in the folder of open packs, else undefined. */
  get(id: number): OpenPack | undefined {
    return this.#packs.get(id);
  }
  add(pack: OpenPack): void {
    this.#packs.set(pack.id, pack);
  }
  /** Forgets it and closes its file when nobody reads it any more. */
  remove(pack: OpenPack): void {
    if (this.#packs.get(pack.id) === pack) this.#packs.delete(pack.id);
    pack.close();
  }
  all(): OpenPack[] {
    return [...this.#packs.values()];
  }

  /** Are there appended bytes that a commit of the index would have to wait for? */
  hasUnsynced(): boolean {
    for (const pack of this.#packs.values()) if (pack.dirty) return true;
    return false;
  }
  /** Puts what was appended before the call on the disk. */
  async sync(): Promise<void> {
    await Promise.all(this.all().filter((pack) => pack.dirty).map((pack) => pack.sync()));
  }
}
