/** What the index and its worker thread say to each other. */

export interface IndexRequest {
  readonly id: number;
  /** verify: see verify.ts. checkpoint: what is committed goes from the write-ahead file into the database. */
  readonly kind: "verify" | "checkpoint";
  readonly path: string;
}
export interface IndexReply {
  readonly id: number;
  /** Of `verify`. */
  readonly problems: readonly string[];
  readonly error: string | null;
}
