/** Byte strings for tests: the same for the same seed, with the shapes that chunkers meet. */

export type ByteStyle = "random" | "text" | "runs" | "zeros";

/** `length` bytes that depend only on the arguments. `runs` mixes noise with long runs of one byte, zero among them. */
export function patternBytes(seed: number, length: number, style: ByteStyle = "random"): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  if (style === "zeros") return bytes;
  const next = xorshift(seed);
  if (style === "random") {
    const words = new Uint32Array(Math.ceil(length / 4));
    for (let i = 0; i < words.length; i++) words[i] = next();
    bytes.set(new Uint8Array(words.buffer, 0, length));
  } else if (style === "text") {
    for (let i = 0; i < length;) {
      const word = next();
      for (let letters = word % 9; letters >= 0 && i < length; letters--) {
        bytes[i++] = 97 + ((word >>> (letters * 3)) % 26);
      }
      if (i < length) bytes[i++] = 32;
    }
  } else {
    for (let i = 0; i < length;) {
      const word = next();
      const run = Math.min(length - i, word % (word % 7 === 0 ? 900_000 : 60_000));
      if (word % 3 === 0) bytes.fill(word % 5 === 0 ? word & 255 : 0, i, i + run);
      else bytes.set(patternBytes(word, run, "random"), i);
      i += Math.max(run, 1);
    }
  }
  return bytes;
}

/** xorshift32 (Marsaglia 2003): unsigned 32-bit numbers. */
export function xorshift(seed: number): () => number {
  let x = (seed ^ 0x9e3779b9) | 0 || 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
}
