/** Bytes of a content as an answer. */
import { SpareBuffers } from "../store/spare_buffers.ts";
import { inPieces } from "./body.ts";
import type { ServerContext } from "./context.ts";

/** So much is answered in one piece, in bytes: all that a mount asks for at once. */
const WHOLE = 5 * 1024 * 1024;
/** Answers of so many bytes and more share a few buffers. */
const SHARED = 1024 * 1024;
const spare = new SpareBuffers(4);

/** The bytes [offset, offset + length), all of which the content has. Few large pieces travel faster than many small ones. */
export async function contentAnswer(
  { core: { fs } }: ServerContext,
  { hash, offset, length, signal }: { hash: string; offset: number; length: number; signal: AbortSignal },
  init: ResponseInit,
): Promise<Response> {
  if (length > WHOLE) return new Response(inPieces(fs.readContent(hash, offset, length, signal)), init);
  if (length < SHARED) return new Response(await fs.contentBytes(hash, offset, length, signal), init);
  const memory = spare.take(WHOLE);
  const answer = new Response(await fs.contentBytes(hash, offset, length, signal, memory), init);
  // The answer has a copy of the bytes (Fetch, 5.2 "extract a body"); `net_test.ts` holds the runtime to it.
  spare.give(memory);
  return answer;
}
