/** Randomness: the only place that draws it. */

export interface Random {
  /** `length` random bytes, fit for secrets. */
  bytes(length: number): Uint8Array;
  /** A random UUID (RFC 9562 version 4). */
  uuid(): string;
  /** Uniform in [0, 1). */
  unit(): number;
}

export const systemRandom: Random = {
  bytes: (length) => crypto.getRandomValues(new Uint8Array(length)),
  uuid: () => crypto.randomUUID(),
  unit: () => Math.random(),
};
