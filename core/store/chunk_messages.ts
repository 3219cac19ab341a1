/** What the chunk pool and its workers say to each other. */
import type { FsErrorCode } from "../fs/error.ts";

/** `length` bytes from `offset` of a local file, chunked as a content of their own. */
export interface FileRange {
  readonly offset: number;
  readonly length: number;
}

export type ChunkRequest =
  | {
    readonly kind: "process";
    readonly id: number;
    readonly buffer: ArrayBuffer;
    readonly offset: number;
    readonly length: number;
    readonly final: boolean;
    readonly compress: boolean;
    /** Answer "cut" before hashing. */
    readonly early: boolean;
  }
  | {
    readonly kind: "pack";
    readonly id: number;
    readonly buffer: ArrayBuffer;
    readonly offsets: Uint32Array;
    readonly lengths: Uint32Array;
  }
  | {
    readonly kind: "file";
    readonly id: number;
    readonly path: string;
    readonly ranges: readonly FileRange[] | undefined;
  }
  /** One more batch of this file may be sent. */
  | { readonly kind: "credit"; readonly id: number }
  | { readonly kind: "cancel"; readonly id: number };

/** Stored forms of some chunks: compressed ones are back to back in `stored`, raw ones stay where they were. */
export interface PackedChunks {
  /** FLAG_RAW or FLAG_ZSTD of each chunk. */
  readonly flags: Uint8Array<ArrayBuffer>;
  readonly storedLengths: Uint32Array<ArrayBuffer>;
  readonly stored: Uint8Array<ArrayBuffer>;
}

export type ChunkReply =
  | { readonly kind: "cut"; readonly id: number; readonly tail: Uint8Array<ArrayBuffer> }
  | {
    readonly kind: "processed";
    readonly id: number;
    readonly buffer: ArrayBuffer;
    readonly lengths: Uint32Array<ArrayBuffer>;
    readonly hashes: Uint8Array<ArrayBuffer>;
    readonly consumed: number;
    readonly packed: PackedChunks | undefined;
  }
  | { readonly kind: "packed"; readonly id: number; readonly buffer: ArrayBuffer; readonly packed: PackedChunks }
  | {
    readonly kind: "batch";
    readonly id: number;
    readonly range: number;
    readonly offset: number;
    readonly zeroChunks: number;
    readonly lengths: Uint32Array<ArrayBuffer>;
    readonly hashes: Uint8Array<ArrayBuffer>;
  }
  | { readonly kind: "done"; readonly id: number; readonly size: number }
  | {
    readonly kind: "failed";
    readonly id: number;
    readonly code: FsErrorCode;
    readonly message: string;
    readonly errno: number;
    readonly operation: string | undefined;
    readonly path: string | undefined;
  };
