/** SHA-256, the identity of chunks, segments, manifests and packs (FIPS 180-4), and its hexadecimal form. */
import { createHash, hash as hashOnce } from "node:crypto";
import { FsError } from "../fs/error.ts";

/** 32 bytes of SHA-256. */
export type Hash = Uint8Array;

/** Length of a Hash in bytes. */
export const HASH_LENGTH = 32;

/** SHA-256 of the bytes. The result is a buffer of its own. */
export function sha256(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(hashOnce("sha256", bytes, "buffer"));
}

/** SHA-256 of pieces given one after the other. */
export class Sha256 {
  readonly #state = createHash("sha256");

  update(bytes: Uint8Array): this {
    this.#state.update(bytes);
    return this;
  }

  /** The hash of all pieces. Ends the object's life. */
  digest(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#state.digest());
  }
}

/** Lower-case hexadecimal. */
export function hex(hash: Uint8Array): string {
  return hash.toHex();
}

/** The bytes of a hexadecimal string. Throws invalid_input when it is none. */
export function unhex(text: string): Uint8Array<ArrayBuffer> {
  try {
    return Uint8Array.fromHex(text);
  } catch (error) {
    throw new FsError("invalid_input", `"${text}" is not a hexadecimal hash; give an even number of digits 0-9 a-f`, {
      cause: error,
    });
  }
}

/** Are two byte strings the same? Not constant-time: for identities, never for secrets. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
