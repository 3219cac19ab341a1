/** Expectations that tests of the filesystem contract share. */
import assert from "node:assert/strict";
import { FsError, type FsErrorCode } from "../../core/fs/error.ts";

/** The work fails with an FsError of this code (or one of these); the error, for a closer look. */
export async function rejects(code: FsErrorCode | readonly FsErrorCode[], work: Promise<unknown>): Promise<FsError> {
  const codes: readonly FsErrorCode[] = typeof code === "string" ? [code] : code;
  try {
    await work;
  } catch (error) {
    assert(error instanceof FsError, `not an FsError: ${error instanceof Error ? error.stack : error}`);
    assert(codes.includes(error.code), `${error.code} instead of ${codes.join(" or ")}: ${error.message}`);
    assert(error.message.length > 0);
    return error;
  }
  assert.fail(`should have failed with ${codes.join(" or ")}`);
}

/** All of a stream in one array. */
export async function collect(stream: ReadableStream<Uint8Array>): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of stream) {
    assert(part.length > 0, "a stream gave an empty chunk");
    parts.push(part);
    size += part.length;
  }
  const out = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

export const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
export const utf8 = (value: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(value);
