/** Chunks and hashes a local file range by range without handing its bytes to anyone; holes are not read. */
import { FsError } from "../fs/error.ts";
import { closeFd, lseekFd, O_RDONLY, openFd, preadFd, SEEK_DATA, SEEK_HOLE } from "../platform/posix.ts";
import type { FileRange } from "./chunk_messages.ts";
import { type Chunker, MAX_CHUNK } from "./chunker.ts";
import { HASH_LENGTH, sha256 } from "./hash.ts";

/** Consecutive chunks of one range: first `zeroChunks` chunks of MAX_CHUNK zeros, then those that are listed. */
export interface FileBatch {
  /** Index into the ranges asked for; 0 for a whole file. */
  readonly range: number;
  /** Where the first chunk begins in the file, in bytes. */
  readonly offset: number;
  readonly zeroChunks: number;
  readonly lengths: Uint32Array<ArrayBuffer>;
  /** HASH_LENGTH bytes a listed chunk. */
  readonly hashes: Uint8Array<ArrayBuffer>;
}

/** What is read at a time: large enough that reading the undecided rest again costs about 1%. */
const WINDOW = 8 * 1024 * 1024;
const SEEK_END = 2;

/**
 * The chunks of a file (of its size when opened) or of ranges of it. Each batch holds at most WINDOW read bytes, and
 * the arrays are the consumer's to keep. Throws by errno; conflict when the file becomes shorter meanwhile.
 */
export function* chunkFile(
  path: string,
  chunker: Chunker,
  ranges?: readonly FileRange[],
): Generator<FileBatch, number> {
  const fd = openFd(path, O_RDONLY);
  try {
    const wanted = ranges ?? [{ offset: 0, length: lseekFd(fd, 0, SEEK_END) }];
    let size = 0;
    for (const [range, { offset, length }] of wanted.entries()) {
      yield* chunkRange(fd, path, chunker, range, offset, offset + length);
      size += length;
    }
    return size;
  } finally {
    closeFd(fd);
  }
}

function* chunkRange(
  fd: number,
  path: string,
  chunker: Chunker,
  range: number,
  start: number,
  end: number,
): Generator<FileBatch> {
  for (let at = start; at < end;) {
    const data = lseekFd(fd, at, SEEK_DATA);
    // Whole chunks of a hole are known without reading; where its last part goes is decided by what follows.
    const zeroChunks = Math.floor(((data < 0 ? end : Math.min(data, end)) - at) / MAX_CHUNK);
    const offset = at;
    at += zeroChunks * MAX_CHUNK;
    if (at >= end) {
      yield { range, offset, zeroChunks, lengths: new Uint32Array(0), hashes: new Uint8Array(0) };
      return;
    }
    // A window that ends shortly behind the data does not read the hole that follows.
    const from = data < 0 ? end : Math.max(data, at);
    const hole = from < end ? lseekFd(fd, from, SEEK_HOLE) : end;
    const length = Math.min(WINDOW, end - at, (hole < 0 ? end : hole) + MAX_CHUNK - at);
    const window = chunker.workspace(WINDOW).subarray(0, length);
    if (preadFd(fd, window, at) !== length) {
      throw new FsError("conflict", `${path} became shorter while it was read; write it again`, {
        operation: "read",
        path,
      });
    }
    const lengths = chunker.cutAll(window, 0, length, at + length === end);
    const hashes = hashChunks(window, lengths);
    // Before the yield: the consumer may transfer the arrays away.
    for (const one of lengths) at += one;
    yield { range, offset, zeroChunks, lengths, hashes };
  }
}

/** The hashes of chunks that lie back to back in `bytes`, HASH_LENGTH bytes each. */
export function hashChunks(bytes: Uint8Array, lengths: Uint32Array): Uint8Array<ArrayBuffer> {
  const hashes = new Uint8Array(lengths.length * HASH_LENGTH);
  let at = 0;
  for (let i = 0; i < lengths.length; i++) {
    const length = lengths[i] ?? 0;
    hashes.set(sha256(bytes.subarray(at, at + length)), i * HASH_LENGTH);
    at += length;
  }
  return hashes;
}
