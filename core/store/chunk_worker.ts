/** The worker thread that cuts, hashes and compresses chunks; chunk_pool.ts talks to it. */
import { type FsError, toFsError } from "../fs/error.ts";
import { serveWorker } from "../platform/workers.ts";
import { chunkFile, hashChunks } from "./chunk_file.ts";
import type { ChunkReply, ChunkRequest, FileRange, PackedChunks } from "./chunk_messages.ts";
import { FLAG_ZSTD, packChunk } from "./codec.ts";
import { createChunker } from "./create_chunker.ts";

/** Batches of a file that may be on their way unanswered. */
const CREDITS = 2;

interface OpenFile {
  credits: number;
  cancelled: boolean;
  /** Continues a file that waits for credit or has been cancelled. */
  wake: () => void;
}

type Post = (reply: ChunkReply, transfer?: Transferable[]) => void;
type Request<Kind> = Extract<ChunkRequest, { kind: Kind }>;

const chunker = createChunker();
const files = new Map<number, OpenFile>();

function failed(id: number, error: FsError): ChunkReply {
  const { operation, path } = error.details;
  return { kind: "failed", id, code: error.code, message: error.message, errno: error.errno, operation, path };
}

function process(request: Request<"process">, post: Post): void {
  const { id, buffer, offset, length, final } = request;
  const bytes = new Uint8Array(buffer, offset, length);
  const lengths = chunker.cutAll(bytes, 0, length, final);
  const consumed = lengths.reduce((sum, one) => sum + one, 0);
  if (request.early) {
    const tail = bytes.slice(consumed);
    post({ kind: "cut", id, tail }, [tail.buffer]);
  }
  const hashes = hashChunks(bytes, lengths);
  const packed = request.compress ? packAll(bytes, startsOf(lengths), lengths) : undefined;
  const transfer: Transferable[] = [buffer, lengths.buffer, hashes.buffer];
  if (packed !== undefined) transfer.push(packed.stored.buffer);
  post({ kind: "processed", id, buffer, lengths, hashes, consumed, packed }, transfer);
}

function startsOf(lengths: Uint32Array): Uint32Array {
  const starts = new Uint32Array(lengths.length);
  for (let i = 1; i < lengths.length; i++) starts[i] = (starts[i - 1] ?? 0) + (lengths[i - 1] ?? 0);
  return starts;
}

function packAll(bytes: Uint8Array, offsets: Uint32Array, lengths: Uint32Array): PackedChunks {
  const flags = new Uint8Array(lengths.length);
  const storedLengths = new Uint32Array(lengths.length);
  const compressed: Uint8Array[] = [];
  let total = 0;
  for (let i = 0; i < lengths.length; i++) {
    const offset = offsets[i] ?? 0;
    const packed = packChunk(bytes.subarray(offset, offset + (lengths[i] ?? 0)));
    flags[i] = packed.flags;
    storedLengths[i] = packed.stored.length;
    if (packed.flags !== FLAG_ZSTD) continue;
    compressed.push(packed.stored);
    total += packed.stored.length;
  }
  const stored = new Uint8Array(total);
  let at = 0;
  for (const part of compressed) {
    stored.set(part, at);
    at += part.length;
  }
  return { flags, storedLengths, stored };
}

async function processFile(id: number, path: string, ranges: readonly FileRange[] | undefined, post: Post) {
  const file: OpenFile = { credits: CREDITS, cancelled: false, wake: () => {} };
  files.set(id, file);
  try {
    const batches = chunkFile(path, chunker, ranges);
    for (let next = batches.next();; next = batches.next()) {
      if (next.done) {
        post({ kind: "done", id, size: next.value });
        return;
      }
      post({ kind: "batch", id, ...next.value }, [next.value.lengths.buffer, next.value.hashes.buffer]);
      file.credits--;
      // Also with credit left, other tasks and a cancellation get their turn.
      await turn();
      while (file.credits === 0 && !file.cancelled) {
        const woken = Promise.withResolvers<void>();
        file.wake = woken.resolve;
        await woken.promise;
      }
      if (file.cancelled) {
        batches.return(0);
        return;
      }
    }
  } finally {
    files.delete(id);
  }
}

const turns = new MessageChannel();
const waiting: (() => void)[] = [];
turns.port1.onmessage = () => waiting.shift()?.();

/** Lets the messages that have arrived be handled. */
function turn(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  waiting.push(resolve);
  turns.port2.postMessage(null);
  return promise;
}

async function handle(request: ChunkRequest, post: Post): Promise<void> {
  switch (request.kind) {
    case "process":
      return process(request, post);
    case "pack": {
      const { id, buffer, offsets, lengths } = request;
      const packed = packAll(new Uint8Array(buffer), offsets, lengths);
      return post({ kind: "packed", id, buffer, packed }, [buffer, packed.stored.buffer]);
    }
    case "file":
      return await processFile(request.id, request.path, request.ranges, post);
    case "credit":
    case "cancel": {
      const file = files.get(request.id);
      if (file === undefined) return;
      if (request.kind === "cancel") file.cancelled = true;
      else file.credits++;
      file.wake();
    }
  }
}

serveWorker<ChunkRequest, ChunkReply>((request, post) => {
  handle(request, post).catch((error) => post(failed(request.id, toFsError(error))));
});
