/** Bodies both ways: request bodies with a limit and a checked length, answers in pieces of a good size. */
import type { SpareBuffers } from "../store/spare_buffers.ts";
import { FsError } from "../fs/error.ts";

/** Pieces of this size stream fastest through the HTTP server. */
const PIECE = 1024 * 1024;

/** The announced length of a request's body, or null (chunked). Throws invalid_input for a malformed one. */
export function announcedLength(request: Request): number | null {
  const header = request.headers.get("content-length");
  if (header === null) return null;
  const length = Number(header);
  if (!/^\d+$/.test(header) || !Number.isSafeInteger(length)) {
    throw new FsError("invalid_input", `Content-Length: ${header.slice(0, 40)} is not a length`);
  }
  return length;
}

/** The connection ended in the middle of a request's body. */
export function cutBody(announced: number | null, got: number): FsError {
  const of = announced === null ? "" : ` of ${announced}`;
  return new FsError("invalid_input", `the request's body ended after ${got}${of} bytes; send it again`, {
    ...(announced !== null && { requested: announced }),
    usage: got,
  });
}

/**
 * All of a request's body; with `spare`, in one of its buffers. Throws file_too_large beyond `limit` bytes, invalid_input
 * when it is cut short.
 */
export async function readBody(
  request: Request,
  limit: number,
  spare?: SpareBuffers,
): Promise<Uint8Array<ArrayBuffer>> {
  const announced = announcedLength(request);
  const tooLarge = () =>
    new FsError("file_too_large", `the request's body is larger than the ${limit} bytes this call takes`, { limit });
  if (announced !== null && announced > limit) throw tooLarge();
  if (request.body === null) {
    if (announced !== null && announced > 0) throw cutBody(announced, 0);
    return new Uint8Array();
  }
  let out = spare?.take(announced ?? 64 * 1024) ?? new Uint8Array(announced ?? 64 * 1024);
  let length = 0;
  try {
    for await (const part of request.body) {
      if (length + part.length > limit) throw tooLarge();
      if (length + part.length > out.length) {
        const grown = new Uint8Array(Math.min(limit, Math.max(out.length * 2, length + part.length)));
        grown.set(out.subarray(0, length));
        out = grown;
      }
      out.set(part, length);
      length += part.length;
    }
  } catch (error) {
    if (error instanceof FsError) throw error;
    throw cutBody(announced, length);
  }
  if (announced !== null && length !== announced) throw cutBody(announced, length);
  return out.subarray(0, length);
}

/** A JSON body as a map. Throws invalid_input. */
export async function readJson(request: Request, limit = 1024 * 1024): Promise<Record<string, unknown>> {
  const bytes = await readBody(request, limit);
  if (bytes.length === 0) return {};
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw new FsError("invalid_input", `the body is not JSON: ${error instanceof Error ? error.message : error}`);
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw new FsError("invalid_input", "the body has to be a JSON object");
  }
  return value as Record<string, unknown>;
}

/** The stream in pieces of about 1 MiB, read as they are asked for. */
export function inPieces(source: ReadableStream<Uint8Array>): ReadableStream<Uint8Array<ArrayBuffer>> {
  const reader = source.getReader();
  return new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      let piece: Uint8Array<ArrayBuffer> | null = null;
      let length = 0;
      for (;;) {
        const { done, value } = await reader.read();
        if (done) {
          if (piece !== null && length > 0) controller.enqueue(piece.subarray(0, length));
          controller.close();
          return;
        }
        if (piece === null && value.length >= PIECE) {
          controller.enqueue(value as Uint8Array<ArrayBuffer>);
          return;
        }
        piece ??= new Uint8Array(PIECE + PIECE / 2);
        if (length + value.length > piece.length) {
          controller.enqueue(piece.subarray(0, length));
          controller.enqueue(value as Uint8Array<ArrayBuffer>);
          return;
        }
        piece.set(value, length);
        length += value.length;
        if (length >= PIECE) {
          controller.enqueue(piece.subarray(0, length));
          return;
        }
      }
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
}
