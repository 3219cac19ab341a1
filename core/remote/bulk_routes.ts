/** `POST /v1/chunks` and `GET /v1/contents/HASH`: bytes by identity, for mounts. */
import { FsError } from "../fs/error.ts";
import { requireScope } from "./auth.ts";
import { SpareBuffers } from "../store/spare_buffers.ts";
import { readBody } from "./body.ts";
import { contentAnswer } from "./content_answer.ts";
import { parseRange } from "./byte_range.ts";
import type { Call, ServerContext } from "./context.ts";
import { methodNotAllowed } from "./file_routes.ts";
import { jsonResponse, PLAIN_HEADERS, problemResponse } from "./problem.ts";
import { MAX_CHUNKS_BODY } from "./protocol.ts";
import { decodeChunks } from "./wire.ts";

/** For the bodies of `POST /v1/chunks`. */
const bodies = new SpareBuffers(4);
/** A mount that has a token for a subtree only could read the rest by identity. */
function requireWholeTree(call: Call): void {
  if (call.access.path === "/") return;
  throw new FsError("permission_denied", `this token is for ${call.access.path} only; use /v1/files`);
}

export async function chunks(context: ServerContext, call: Call): Promise<Response> {
  if (call.method !== "POST") return methodNotAllowed("POST");
  requireScope(call.access, "write");
  requireWholeTree(call);
  const body = await readBody(call.request, MAX_CHUNKS_BODY, bodies);
  try {
    const parts = decodeChunks(body);
    await context.core.chunks.put(parts, { verify: true });
    return jsonResponse({ stored: parts.length });
  } finally {
    bodies.give(new Uint8Array(body.buffer));
  }
}

export async function contents(context: ServerContext, call: Call): Promise<Response> {
  if (call.method !== "GET" && call.method !== "HEAD") return methodNotAllowed("GET, HEAD");
  requireScope(call.access, "read");
  requireWholeTree(call);
  const hash = call.rest.slice(1);
  if (!/^[0-9a-f]{64}$/.test(hash)) {
    throw new FsError("invalid_input", "a content is named by 64 hexadecimal digits", { path: hash.slice(0, 80) });
  }
  const { fs } = context.core;
  const { size } = await fs.contentView(hash);
  const headers: Record<string, string> = {
    "cache-control": "private, immutable, max-age=31536000, no-transform",
    "content-type": "application/octet-stream",
    "accept-ranges": "bytes",
    etag: `"${hash}"`,
  };
  if (call.request.headers.get("if-none-match")?.includes(hash)) return new Response(null, { status: 304, headers });
  const range = parseRange(call.request.headers.get("range"), size);
  if (range.kind === "unsatisfiable") {
    return problemResponse(
      new FsError("invalid_input", `the content has ${size} bytes: the range lies behind its end`, { limit: size }),
      hash,
      { "content-range": `bytes */${size}` },
      416,
    );
  }
  const offset = range.kind === "part" ? range.offset : 0;
  const length = range.kind === "part" ? range.length : size;
  if (range.kind === "part") headers["content-range"] = `bytes ${offset}-${offset + length - 1}/${size}`;
  headers["content-length"] = String(length);
  const status = range.kind === "part" ? 206 : 200;
  if (call.method === "HEAD" || length === 0) return new Response(null, { status, headers });
  const init = { status, headers: { ...PLAIN_HEADERS, ...headers } };
  return await contentAnswer(context, { hash, offset, length, signal: call.signal }, init);
}
