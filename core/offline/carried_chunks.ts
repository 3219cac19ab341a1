/** Which chunks went out with earlier requests, so that a file that grows line by line is not sent whole with every line. */
import { hex } from "../store/hash.ts";

/** Hashes remembered; the oldest go first (about 100 bytes each). */
const REMEMBERED = 16_384;

/**
 * The set belongs to one run of requests that the server works through in order. It is a shortcut, never a claim: a server
 * that lacks a chunk after all says so, and whoever sends clears the set and sends the bytes.
 */
export class CarriedChunks {
  readonly #hashes = new Set<string>();

  /** The chunks that have not been sent yet; from now on they count as sent. */
  lacking<C extends { readonly hash: Uint8Array }>(chunks: readonly C[]): C[] {
    return chunks.filter(({ hash }) => {
      const key = hex(hash);
      if (this.#hashes.delete(key)) {
        // Asked for again, it is young again.
        this.#hashes.add(key);
        return false;
      }
      this.#hashes.add(key);
      if (this.#hashes.size > REMEMBERED) {
        for (const oldest of this.#hashes) {
          this.#hashes.delete(oldest);
          break;
        }
      }
      return true;
    });
  }
  clear(): void {
    this.#hashes.clear();
  }
}
